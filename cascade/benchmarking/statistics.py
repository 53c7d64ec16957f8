"""Many timings → the few numbers that are shown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Percentiles:
    """Linear between the two nearest timings. Of fewer than 100 `samples`, p99 is next to the slowest."""

    p50: float
    p95: float
    p99: float
    samples: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Percentiles":
        """At least one value."""
        p50, p95, p99 = (round(float(value), 4) for value in np.percentile(values, (50, 95, 99)))
        return cls(p50, p95, p99, len(values))


@dataclass(frozen=True)
class Spread:
    """Over the rounds: few values, so that the extremes tell more than a deviation would."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """At least one value."""
        return cls(*(round(value, 4) for value in (statistics.median(values), min(values), max(values))))


def round_by_round(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """The ratio of each round's value to the baseline's of the same round.

    A machine that slows down halfway slows both halves of each ratio; the ratio of two medians would not forgive it.
    """
    return Spread.of([value / base for value, base in zip(values, baseline, strict=True)])
