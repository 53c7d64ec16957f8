"""The finding of a volume: which components are a tumor, and its class, volume and diameters."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from cascade.contract import CLASS_NAMES, FloatArray
from cascade.volume.components import find_components
from cascade.volume.diameters import Diameters, largest_diameters
from cascade.volume.stack import BoolArray, Stack

FULL_SLAB_MM = 5.0
"""A slice that stands for less than this counts as a fraction of a slice: its neighbors show nearly the same tissue, so
a false positive repeats on them. It is the usual thickness of clinical slices."""

MAX_LOG_ODDS = 4.0
"""No slice gives more support than this, which is a probability of 0.982: one slice alone is never a finding."""

PART_OF_HEAD = 12.0
"""Slices of FULL_SLAB_MM. A stack of fewer shows a part of a head, so that less of a tumor may lie in it, and less
support is enough."""


@dataclass(frozen=True)
class VolumeRule:
    """When a component is a tumor.

    The support of a component is the sum over its slices of the log-odds of a tumor in the slice, which are 0 to
    MAX_LOG_ODDS: independent evidence adds up so. Thin slices count in part, see `slice_weights`.

    Attributes:
        min_support: A component with less support is not a tumor. In a stack of fewer slices than PART_OF_HEAD, the
            limit is lower in proportion: in one of a few slices, one may be all that can show a tumor.
    """

    min_support: float = 6.0

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "VolumeRule":
        """Read the rule from its entry in models.json; the default stands for what it lacks."""
        return cls(**{item.name: float(record[item.name]) for item in fields(cls) if item.name in record})


@dataclass(frozen=True)
class VolumeFinding:
    """What was found in a volume.

    Attributes:
        status: "tumor" or "no_tumor".
        probabilities: Class name → probability, the mean over the slices of the tumor, weighted by its area in each;
            they sum to 1. Empty without a tumor.
        uncertain: True if the highest probability is below the calibrated threshold.
        support: Highest support of a component, also where it is too low; 0 if all masks are empty.
        slices: Number of slices of the volume.
        tumor_slices: Number of slices that show the tumor.
        key_slice: Index of the slice with the largest product of the two diameters; None without a tumor.
        volume_ml: Volume of the tumor, gaps between slices included; None if the spacing is unknown.
        diameters: Diameters in the key slice; None without a tumor, or if the spacing is unknown.
    """

    status: str
    probabilities: dict[str, float] = field(default_factory=dict)
    uncertain: bool = False
    support: float = 0.0
    slices: int = 0
    tumor_slices: int = 0
    key_slice: int | None = None
    volume_ml: float | None = None
    diameters: Diameters | None = None

    @property
    def label(self) -> str | None:
        """Most probable class; None without a tumor."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


def slice_weights(stack: Stack) -> NDArray[np.float64]:
    """Return how much each slice (N,) counts, 0 to 1: less than 1 if it is thinner than FULL_SLAB_MM."""
    if stack.slab_mm is None:
        return np.ones(len(stack.masks))
    return np.minimum(np.array(stack.slab_mm) / FULL_SLAB_MM, 1.0)


def log_odds(evidence: FloatArray) -> NDArray[np.float64]:
    """Return the log-odds of probabilities, clipped to 0 and MAX_LOG_ODDS."""
    return np.clip(logit(evidence.astype(np.float64)), 0.0, MAX_LOG_ODDS)


def find_tumor(stack: Stack, rule: VolumeRule, uncertain_below: float = 0.0) -> tuple[VolumeFinding, BoolArray]:
    """Decide on a volume.

    Args:
        stack: Predictions of its slices.
        rule: When a component is a tumor.
        uncertain_below: A class with a lower probability is uncertain.

    Returns:
        The finding, and the (N, H, W) mask of the accepted components.
    """
    components = find_components(stack.masks)
    weights = slice_weights(stack)
    support = (weights * log_odds(stack.evidence)) @ (components.areas > 0)
    accepted = support >= rule.min_support * min(weights.sum() / PART_OF_HEAD, 1.0)
    mask = components.mask(accepted)
    best, known = float(support.max(initial=0.0)), stack.spacing_mm is not None and stack.slab_mm is not None
    if not accepted.any():
        return VolumeFinding("no_tumor", support=best, slices=len(mask), volume_ml=0.0 if known else None), mask
    areas = components.areas[:, accepted].sum(axis=1)
    probability = areas @ stack.class_probability / areas.sum()
    key_slice, diameters = _measure(mask, stack.spacing_mm)
    finding = VolumeFinding(
        status="tumor",
        probabilities=dict(zip(CLASS_NAMES, probability.tolist(), strict=True)),
        uncertain=bool(probability.max() < uncertain_below),
        support=best,
        slices=len(mask),
        tumor_slices=int(np.count_nonzero(areas)),
        key_slice=key_slice,
        volume_ml=_volume_ml(areas, stack),
        diameters=diameters,
    )
    return finding, mask


def _volume_ml(areas: NDArray[np.int64], stack: Stack) -> float | None:
    if stack.spacing_mm is None or stack.slab_mm is None:
        return None
    row_mm, column_mm = stack.spacing_mm
    return float(areas @ np.array(stack.slab_mm)) * row_mm * column_mm / 1000


def _measure(mask: BoolArray, spacing_mm: tuple[float, float] | None) -> tuple[int, Diameters | None]:
    """Return the slice with the largest product of diameters, and the diameters if the spacing is known."""
    slices = np.flatnonzero(mask.any(axis=(1, 2))).tolist()
    measured = {index: largest_diameters(mask[index], spacing_mm or (1.0, 1.0)) for index in slices}
    key_slice = max(slices, key=lambda index: measured[index].product_mm2)
    return key_slice, measured[key_slice] if spacing_mm else None
