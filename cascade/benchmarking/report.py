"""Turn measurements into a report, and the report into benchmark.json.

benchmark.json contains the fields of `Report` and the schema, whose number increases if a field changes its meaning or
is removed. A number that a backend or a machine does not have is null, never 0. Times are milliseconds of a batch.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascade.benchmarking.flops import GraphCost
from cascade.benchmarking.roofline import Roofline
from cascade.benchmarking.timing import STAGES, Measurement
from cascade.benchmarking.worker import LoadedBackend
from cascade.discovery.output_marker import BENCHMARK
from cascade.errors import CascadeError
from cascade.runtime.engines import FLAVORS
from cascade.runtime.machine import Machine
from cascade.runtime.models import CLASSIFIER, SEGMENTER


def device_of(backend: str) -> str:
    """Device that a backend runs on, `cpu` or `gpu`."""
    return "gpu" if backend in FLAVORS else "cpu"


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of timings. With fewer than 100 `samples`, p99 is close to the maximum."""

    p50: float
    p95: float
    p99: float
    samples: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Percentiles":
        """Interpolate linearly, and round to 4 decimals."""
        p50, p95, p99 = (round(float(value), 4) for value in np.percentile(values, (50, 95, 99)))
        return cls(p50, p95, p99, len(values))


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum over the rounds, which are too few for a standard deviation."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Round to 4 decimals."""
        return cls(*(round(value, 4) for value in (statistics.median(values), min(values), max(values))))


def paired_ratio(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Ratio of each round's value to the baseline's value in the same round.

    Unlike a ratio of medians, it does not change if the machine becomes slower after some rounds.
    """
    return Spread.of([value / base for value, base in zip(values, baseline, strict=True)])


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark, see the function `benchmark`. The batch sizes ascend."""

    batch_sizes: tuple[int, ...]
    rounds: int
    warm_up: int
    baseline: str


@dataclass(frozen=True)
class BatchSizeResult:
    """Performance of one backend at one batch size, over all rounds. `Measurement` explains how each is timed.

    Attributes:
        batch_size: Slices a batch.
        stages_ms: Duration of each of STAGES; None for a stage that the backend does not have.
        models_ms: Duration of both models.
        total_ms: Duration from files to results, one batch at a time.
        classified_share: Fraction of the slices that the classifier ran on.
        models: Slices per second through both models.
        end_to_end: Slices per second from files to results.
        models_ratio: Speed-up of `models` over the baseline, round by round: 2 is twice as fast.
        end_to_end_ratio: Speed-up of `end_to_end`.
        gflops: 10^9 floating-point operations per second of each graph in its stage, and of both in models_ms.
        percent_of_limit: `gflops` in percent of the roofline of the backend. Empty, as `gflops`, if it is unknown.
        bytes_moved: Memory traffic of both graphs by precision, see `GraphCost`. Empty if it could not be counted.
        peak_host_mb: Peak memory of the backend's process up to this batch size, in MiB; None if unknown.
    """

    batch_size: int
    stages_ms: dict[str, Percentiles | None]
    models_ms: Percentiles
    total_ms: Percentiles
    classified_share: float
    models: Spread
    end_to_end: Spread
    models_ratio: Spread
    end_to_end_ratio: Spread
    gflops: dict[str, float]
    percent_of_limit: dict[str, float]
    bytes_moved: dict[str, int]
    peak_host_mb: float | None


@dataclass(frozen=True)
class BackendReport:
    """Results of one backend.

    Attributes:
        device: `cpu` or `gpu`.
        loaded: Start-up times.
        device_memory_mb: Growth of the GPU memory in MiB, see `Worker`; None on the CPU.
        batches: Results by ascending batch size.
    """

    device: str
    loaded: LoadedBackend
    device_memory_mb: float | None
    batches: list[BatchSizeResult]


@dataclass(frozen=True)
class Report:
    """Results of a benchmark.

    Attributes:
        date: UTC, ISO 8601.
        settings: Settings of the benchmark.
        slices: Origin and number of the slices.
        models: SHA-256 of each graph.
        machine: The machine.
        costs: Cost of each graph; empty if it could not be counted.
        rooflines: Peak performance by backend, in its precision.
        not_measured: What could not be measured, and why.
        unavailable: Requested backends that cannot run, and why.
        backends: Results of the other backends.
    """

    date: str
    settings: Settings
    slices: str
    models: dict[str, str]
    machine: Machine
    costs: dict[str, GraphCost]
    rooflines: dict[str, Roofline]
    not_measured: dict[str, CascadeError]
    unavailable: dict[str, CascadeError]
    backends: dict[str, BackendReport]

    def to_json(self) -> dict[str, Any]:
        """Convert to the contents of benchmark.json. A CascadeError becomes its problem and fix."""
        content: dict[str, Any] = json.loads(json.dumps({"schema": BENCHMARK, **asdict(self)}, default=vars))
        return content


def combine_rounds(
    batch_size: int,
    rounds: Sequence[Measurement],
    baseline: Sequence[Measurement],
    peak_host_mb: float | None,
    costs: dict[str, GraphCost],
    roofline: Roofline | None,
) -> BatchSizeResult:
    """Combine the rounds of a backend at one batch size. `baseline` contains the same rounds of the baseline."""
    gflops = _gflops(batch_size, rounds, costs)
    models = [item.models_slices_per_second for item in rounds]
    end_to_end = [item.end_to_end_slices_per_second for item in rounds]
    stages = {stage: [ms for item in rounds for ms in item.stages_ms.get(stage, ())] for stage in STAGES}
    slices = batch_size * sum(len(item.models_ms) for item in rounds)
    return BatchSizeResult(
        batch_size,
        {stage: Percentiles.of(values) if values else None for stage, values in stages.items()},
        Percentiles.of([ms for item in rounds for ms in item.models_ms]),
        Percentiles.of([ms for item in rounds for ms in item.total_ms]),
        round(sum(item.classified for item in rounds) / slices, 4),
        Spread.of(models),
        Spread.of(end_to_end),
        paired_ratio(models, [item.models_slices_per_second for item in baseline]),
        paired_ratio(end_to_end, [item.end_to_end_slices_per_second for item in baseline]),
        gflops,
        {name: round(100 * value / roofline.gflops, 2) for name, value in gflops.items()} if roofline else {},
        {
            precision: sum(cost.bytes_moved(batch_size, size) for cost in costs.values())
            for precision, size in (("fp32", 4), ("fp16", 2))
            if costs
        },
        None if peak_host_mb is None else round(peak_host_mb, 1),
    )


def _gflops(batch_size: int, rounds: Sequence[Measurement], costs: dict[str, GraphCost]) -> dict[str, float]:
    """Speed of both graphs together, and of each whose time is known. Slices that were not classified do not count."""
    if not costs:
        return {}
    flops = {
        SEGMENTER: costs[SEGMENTER].flops * batch_size * sum(len(item.models_ms) for item in rounds),
        CLASSIFIER: costs[CLASSIFIER].flops * sum(item.classified for item in rounds),
    }
    duration_ms = {name: sum(sum(item.stages_ms.get(name, ())) for item in rounds) for name in flops}
    speeds = {"models": sum(flops.values()) / sum(sum(item.models_ms) for item in rounds)}
    speeds |= {name: flops[name] / duration_ms[name] for name in flops if duration_ms[name] and flops[name]}
    return {name: round(value / 1e6, 2) for name, value in speeds.items()}


def read_report(path: Path) -> dict[str, Any]:
    """Read a benchmark.json, or raise CascadeError if it is missing or of another schema."""
    fix = "specify the benchmark.json of an earlier run"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix=fix) from None
    except (OSError, ValueError) as error:
        raise CascadeError(f"{path}: cannot be read as JSON ({error})", fix=fix) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != BENCHMARK:
        raise CascadeError(f"{path}: its schema is {schema!r}, not {BENCHMARK!r}", fix=fix)
    return content
