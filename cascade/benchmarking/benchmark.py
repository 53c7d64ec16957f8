"""START HERE: `benchmark` measures the backends round-robin, each in a process of its own."""

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from cascade.benchmarking.compare import Comparison, compare_reports
from cascade.benchmarking.flops import GraphCost, count_cost
from cascade.benchmarking.plot import latency_plot
from cascade.benchmarking.report import BackendReport, Report, Settings, combine_rounds, device_of, read_report
from cascade.benchmarking.roofline import Roofline
from cascade.benchmarking.rounds import Peaks, ProgressCallback, run_rounds, slices_per_round, start_backends
from cascade.benchmarking.simulated import SEED, SIMULATED_SLICES, simulate_slices
from cascade.benchmarking.timing import Measurement
from cascade.benchmarking.worker import Worker
from cascade.contract import SLICE_SIZE
from cascade.discovery.inputs import Inputs, find_slices
from cascade.discovery.output_marker import BENCHMARK_PICTURE
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.io.image import read_slice
from cascade.runtime.engines import FLAVORS
from cascade.runtime.gpu import select_gpu
from cascade.runtime.machine import this_machine
from cascade.runtime.models import CLASSIFIER, SEGMENTER, find_model
from cascade.runtime.select import BACKENDS

DEFAULT_BASELINE = "onnxruntime"


def benchmark(
    paths: Sequence[Path],
    *,
    models: Path,
    engines: Path | None,
    device: int | None = None,
    backends: Sequence[str],
    batch_sizes: Sequence[int],
    rounds: int,
    warm_up: int,
    baseline: str | None,
    out: Path,
    earlier: Path | None = None,
    on_progress: ProgressCallback = lambda step, fraction: None,
) -> tuple[Report, Comparison | None]:
    """Measure backends, and write benchmark.json and benchmark.png.

    Args:
        paths: Files, folders or patterns of slices. Empty for simulated slices.
        models: Folder of the models.
        engines: Folder of the engines; None for the default.
        device: Number of the GPU; None for the first.
        backends: Names of the backends.
        batch_sizes: Slices a batch.
        rounds: Measurements of each backend at each batch size.
        warm_up: Untimed batches before each measurement.
        baseline: Backend that the others are compared with; None for DEFAULT_BASELINE, or the first backend that runs.
        out: Folder for the output. Results of the end-to-end measurement are written to the same disk.
        earlier: A benchmark.json to compare with.
        on_progress: Called before each measurement.

    Raises:
        CascadeError: If the request is invalid or there is no such GPU, before anything is measured, or if no backend
            can run.
    """
    check_request(backends, batch_sizes, rounds, warm_up, baseline, device)
    if device is not None:
        select_gpu(device)
    names, sizes = tuple(dict.fromkeys(backends)), tuple(sorted(set(batch_sizes)))
    graphs = {name: find_model(name, models) for name in (SEGMENTER, CLASSIFIER)}
    earlier_report = read_report(earlier) if earlier else None
    if earlier_report:
        compare_reports(earlier_report, earlier_report)  # detect a damaged file now, not after minutes
    machine = this_machine()
    with ExitStack() as stack:
        slices, source = stack.enter_context(slices_to_run(paths, max(map(slices_per_round, sizes))))
        scratch = stack.enter_context(_scratch_folder(out))
        ready, unavailable = start_backends(
            names,
            lambda name: stack.enter_context(closing(Worker(name, models, engines, slices, scratch, device))),
            sizes,
            warm_up,
            on_progress,
        )
        settings = Settings(sizes, rounds, warm_up, choose_baseline(baseline, ready, unavailable))
        peaks = Peaks(ready, scratch, device)
        measures = {name: worker.measure for name, worker in ready.items()}
        measurements = run_rounds(measures, settings, peaks.measure, on_progress)
    rooflines, not_measured = peaks.best(), peaks.not_measured
    try:
        costs = {name: count_cost(graph.path) for name, graph in graphs.items()}
    except CascadeError as error:
        costs, not_measured["arithmetic of the graphs"] = {}, error
    report = Report(
        datetime.now(UTC).isoformat(timespec="seconds"),
        settings,
        source,
        {name: graph.sha256 for name, graph in graphs.items()},
        machine,
        costs,
        rooflines,
        not_measured,
        unavailable,
        {
            name: _backend_report(
                worker, measurements[name], measurements[settings.baseline], costs, rooflines.get(name)
            )
            for name, worker in ready.items()
        },
    )
    content = report.to_json()
    comparison = compare_reports(content, earlier_report) if earlier_report else None
    content["comparison"] = asdict(comparison) if comparison else None
    write_atomically(out / "benchmark.json", json.dumps(content, indent=1).encode() + b"\n")
    write_atomically(out / BENCHMARK_PICTURE, latency_plot(report))
    return report, comparison


def check_request(
    backends: Sequence[str],
    batch_sizes: Sequence[int],
    rounds: int,
    warm_up: int,
    baseline: str | None,
    device: int | None = None,
) -> None:
    """Raise CascadeError if an argument of `benchmark` is invalid."""
    for name in (*backends, *([baseline] if baseline else ())):
        if name not in BACKENDS:
            raise CascadeError(f"unknown backend {name!r}", fix=f"choose from {', '.join(BACKENDS)}")
    if not backends:
        raise CascadeError("no backend was specified", fix=f"choose from {', '.join(BACKENDS)}")
    if baseline and baseline not in backends:
        raise CascadeError(f"the baseline {baseline} is not among the backends", fix="add it to --backends")
    if device is not None and not set(backends) & set(FLAVORS):
        raise CascadeError(
            f"--device {device}: all backends run on the CPU",
            fix=f"omit --device, or add {' or '.join(FLAVORS)} to --backends",
        )
    if not batch_sizes or min(batch_sizes) < 1:
        raise CascadeError("batch size must be at least 1", fix="choose --batch-sizes such as 1,8,32")
    if rounds < 1 or warm_up < 0:
        raise CascadeError(
            "there must be at least 1 round, and 0 or more warm-up batches", fix="change --rounds or --warm-up"
        )


@contextmanager
def slices_to_run(paths: Sequence[Path], limit: int) -> Iterator[tuple[Inputs, str]]:
    """Find or simulate slices, at most `limit` of them, and describe their origin.

    Raises:
        CascadeError: If a path or a slice cannot be read.
    """
    if paths:
        inputs = find_slices(paths)
        for error in inputs.problems.values():
            raise error
        names = inputs.names[:limit]
        for name in names:
            read_slice(inputs.folder / name)
        yield Inputs(inputs.folder, names, {}), f"{len(names)} slices of {inputs.folder}"
        return
    with tempfile.TemporaryDirectory(prefix="cascade-benchmark-") as folder:
        simulate_slices(Path(folder))
        source = f"{SIMULATED_SLICES} simulated slices of {SLICE_SIZE} x {SLICE_SIZE}, seed {SEED}"
        yield find_slices([Path(folder)]), source


@contextmanager
def _scratch_folder(out: Path) -> Iterator[Path]:
    """Create a folder below `out` and remove it in the end."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out, prefix=".measuring-")
    except OSError as error:
        raise CascadeError(f"{out}: cannot be written to ({error.strerror})", fix="choose another --out") from error
    with folder as name:
        yield Path(name).resolve()


def choose_baseline(requested: str | None, ready: Collection[str], unavailable: Mapping[str, CascadeError]) -> str:
    """Choose the baseline among the backends that run, or raise CascadeError if the requested one cannot."""
    if requested is None:
        return DEFAULT_BASELINE if DEFAULT_BASELINE in ready else next(iter(ready))
    if requested in unavailable:
        reason = unavailable[requested]
        raise CascadeError(f"the baseline {requested} cannot run: {reason.problem}", fix=reason.fix)
    return requested


def _backend_report(
    worker: Worker,
    rounds: dict[int, list[Measurement]],
    baseline: dict[int, list[Measurement]],
    costs: dict[str, GraphCost],
    roofline: Roofline | None,
) -> BackendReport:
    batches = [
        combine_rounds(size, rounds[size], baseline[size], worker.peak_host_mb[size], costs, roofline)
        for size in rounds
    ]
    return BackendReport(device_of(worker.name), worker.loaded, worker.device_memory_mb, batches)
