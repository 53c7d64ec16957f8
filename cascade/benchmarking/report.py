"""Measurements → the report, and the report → benchmark.json.

benchmark.json is the Report below, field for field, under `"schema": "cascade benchmark 1"`. A field that gets another
meaning or goes away makes it 2. A number that a backend or a machine does not have is null, never 0. Times are
milliseconds, and of a batch unless the name says otherwise.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade.benchmarking.flops import Work
from cascade.benchmarking.roofline import Limit
from cascade.benchmarking.statistics import Percentiles, Spread, round_by_round
from cascade.benchmarking.timing import STAGES, Measurement
from cascade.benchmarking.worker import Loaded, Unavailable
from cascade.discovery.output_marker import BENCHMARK
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.runtime.engines import FLAVORS
from cascade.runtime.machine import Machine
from cascade.runtime.models import CLASSIFIER, SEGMENTER


def device_of(backend: str) -> str:
    """`cpu` or `gpu`."""
    return "gpu" if backend in FLAVORS else "cpu"


@dataclass(frozen=True)
class Settings:
    """batch_sizes  ascending.
    rounds          of every backend and batch size, in turns.
    warm_up         untimed batches before each round's.
    baseline        backend that the ratios are to.
    """

    batch_sizes: tuple[int, ...]
    rounds: int
    warm_up: int
    baseline: str


@dataclass(frozen=True)
class Batches:
    """What one backend did at one batch size, over all rounds. For how each was timed, see Measurement.

    stages_ms           for each of STAGES.
    classified_share    of the slices, that went through the classifier too.
    models, end_to_end  slices a second.
    models_ratio, end_to_end_ratio  to the baseline's, round by round: 2 is twice as fast.
    gflops              10^9 floating point operations a second, of each graph in its stage, and of both in models_ms
                        with all that this includes. Empty where they could not be counted.
    percent_of_limit    gflops of the limit of the backend's device; a backend that computes in fewer bits than the
                        limit was measured in may pass 100. Empty where either is missing.
    bytes_moved         of both graphs, as Work defines it, by precision. Empty where they could not be counted.
    peak_host_mb        most memory the backend's process had, up to this batch size, in MiB.
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
    peak_host_mb: float


@dataclass(frozen=True)
class BackendReport:
    """device_memory_mb  MiB by which the GPU's memory in use grew, by all programs, while this backend was loaded and
    warmed up; None on the CPU.
    """

    device: str
    loaded: Loaded
    device_memory_mb: float | None
    batches: list[Batches]


@dataclass(frozen=True)
class Report:
    """date       UTC, ISO 8601.
    slices        where they are from, and how many different ones.
    models        sha256 of each graph.
    work          of each graph; empty where it could not be counted.
    limits        by device, `cpu` and `gpu`.
    absent        what could not be measured → why.
    unavailable   backends that were asked for and cannot run → why.
    """

    date: str
    settings: Settings
    slices: str
    models: dict[str, str]
    machine: Machine
    work: dict[str, Work]
    limits: dict[str, Limit]
    absent: dict[str, Unavailable]
    unavailable: dict[str, Unavailable]
    backends: dict[str, BackendReport]


def batches_report(
    batch_size: int,
    rounds: Sequence[Measurement],
    baseline: Sequence[Measurement],
    peak_host_mb: float,
    work: dict[str, Work],
    limit: Limit | None,
) -> Batches:
    """Joins the rounds of one backend and batch size; `baseline` holds the same rounds of the baseline."""
    gflops = _gflops(batch_size, rounds, work)
    models = [item.models_slices_per_second for item in rounds]
    end_to_end = [item.end_to_end_slices_per_second for item in rounds]
    base_models = [item.models_slices_per_second for item in baseline]
    base_end_to_end = [item.end_to_end_slices_per_second for item in baseline]
    stages = {stage: [ms for item in rounds for ms in item.stages_ms.get(stage, ())] for stage in STAGES}
    count = batch_size * sum(len(item.models_ms) for item in rounds)
    return Batches(
        batch_size,
        {stage: Percentiles.of(values) if values else None for stage, values in stages.items()},
        Percentiles.of([ms for item in rounds for ms in item.models_ms]),
        Percentiles.of([ms for item in rounds for ms in item.total_ms]),
        round(sum(item.classified for item in rounds) / count, 4),
        Spread.of(models),
        Spread.of(end_to_end),
        round_by_round(models, base_models),
        round_by_round(end_to_end, base_end_to_end),
        gflops,
        {name: round(100 * value / limit.gflops, 2) for name, value in gflops.items()} if limit else {},
        {
            precision: sum(item.bytes_moved(batch_size, size) for item in work.values())
            for precision, size in (("fp32", 4), ("fp16", 2))
            if work
        },
        round(peak_host_mb, 1),
    )


def _gflops(batch_size: int, rounds: Sequence[Measurement], work: dict[str, Work]) -> dict[str, float]:
    """Of both graphs, and of each whose time is known. Slices that the classifier was not asked about do not count."""
    if not work:
        return {}
    flops = {
        SEGMENTER: work[SEGMENTER].flops * batch_size * sum(len(item.models_ms) for item in rounds),
        CLASSIFIER: work[CLASSIFIER].flops * sum(item.classified for item in rounds),
    }
    took_ms = {name: sum(sum(item.stages_ms.get(name, ())) for item in rounds) for name in flops}
    models_ms = sum(sum(item.models_ms) for item in rounds)
    found = {"models": sum(flops.values()) / models_ms}
    found |= {name: flops[name] / took_ms[name] for name in flops if took_ms[name] and flops[name]}
    return {name: round(value / 1e6, 2) for name, value in found.items()}


def as_json(report: Report) -> dict[str, Any]:
    """What benchmark.json holds."""
    content: dict[str, Any] = {"schema": BENCHMARK, **asdict(report)}
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def save_report(content: dict[str, Any], path: Path) -> None:
    """Raises CascadeError where it cannot be written."""
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")


def read_report(path: Path) -> dict[str, Any]:
    """Raises CascadeError for a file that is no benchmark.json of this schema."""
    fix = "give the benchmark.json of an earlier run"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix=fix) from None
    except (OSError, ValueError) as error:
        raise CascadeError(f"{path}: cannot be read as JSON ({error})", fix=fix) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(content, dict) or schema != BENCHMARK:
        raise CascadeError(f"{path}: is no {BENCHMARK!r}" + (f" but {schema!r}" if schema else ""), fix=fix)
    return content
