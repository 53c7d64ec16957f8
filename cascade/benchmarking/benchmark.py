"""How fast each backend is here: `benchmark` measures them in turns, each in a process of its own."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from cascade.benchmarking.compare import Comparison, compare_reports
from cascade.benchmarking.flops import Work, count_work
from cascade.benchmarking.gpu_roofline import gpu_limit
from cascade.benchmarking.plot import latency_plot
from cascade.benchmarking.report import (
    BackendReport,
    Report,
    Settings,
    as_json,
    batches_report,
    device_of,
    read_report,
    save_report,
)
from cascade.benchmarking.roofline import CpuLimit, Limit
from cascade.benchmarking.rounds import Started, Step, Turns, slices_a_round, start_backends, take_turns
from cascade.benchmarking.simulated import DIFFERENT, SEED, simulate_slices
from cascade.benchmarking.worker import Unavailable
from cascade.contract import SLICE_SIZE
from cascade.discovery.inputs import Inputs, find_slices
from cascade.discovery.output_marker import BENCHMARK_PICTURE
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.io.image import read_slice
from cascade.runtime.machine import this_machine
from cascade.runtime.models import CLASSIFIER, SEGMENTER, ExportedModel, find_model
from cascade.runtime.select import BACKENDS

DEFAULT_BASELINE = "onnxruntime"


def benchmark(
    paths: Sequence[Path],
    *,
    models: Path,
    engines: Path,
    backends: Sequence[str],
    batch_sizes: Sequence[int],
    rounds: int,
    warm_up: int,
    baseline: str | None,
    out: Path,
    earlier: Path | None = None,
    step: Step = lambda what, done: None,
) -> tuple[Report, Comparison | None]:
    """`cascade benchmark`: writes benchmark.json and benchmark.png to `out`.

    paths     slices; simulated ones where there are none.
    baseline  None takes DEFAULT_BASELINE where it runs, else the first that does.
    earlier   a benchmark.json to compare with.
    out       also the disk that results are written to while the way from files to results is timed.

    Raises CascadeError for what cannot be measured, before anything is; and where no backend can run.
    """
    check_request(backends, batch_sizes, rounds, warm_up, baseline)
    names, sizes = tuple(dict.fromkeys(backends)), tuple(sorted(set(batch_sizes)))
    graphs = {name: find_model(name, models) for name in (SEGMENTER, CLASSIFIER)}
    then = read_report(earlier) if earlier else None
    if then:
        compare_reports(then, then)  # better refused now than after minutes
    machine = this_machine()
    with ExitStack() as stack:
        slices, source = stack.enter_context(slices_to_run(paths, max(slices_a_round(size) for size in sizes)))
        scratch = stack.enter_context(_scratch(out))
        started, unavailable = start_backends(names, models, engines, slices, sizes, warm_up, scratch, stack, step)
        settings = Settings(sizes, rounds, warm_up, chosen_baseline(baseline, started, unavailable))
        absent: dict[str, Unavailable] = {}
        limits = _gpu_limits(started, absent)
        cpu = CpuLimit()
        turns = take_turns({name: item.worker for name, item in started.items()}, settings, cpu.measure, step)
        limits["cpu"] = cpu.best()
    work = _count(graphs, absent)
    report = Report(
        datetime.now(UTC).isoformat(timespec="seconds"),
        settings,
        source,
        {name: graph.sha256 for name, graph in graphs.items()},
        machine,
        work,
        limits,
        absent,
        unavailable,
        _reports(started, turns, settings, work, limits),
    )
    content = as_json(report)
    comparison = compare_reports(content, then) if then else None
    save_report(content | {"comparison": asdict(comparison) if comparison else None}, out / "benchmark.json")
    write_atomically(out / BENCHMARK_PICTURE, latency_plot(report))
    return report, comparison


def check_request(
    backends: Sequence[str], batch_sizes: Sequence[int], rounds: int, warm_up: int, baseline: str | None
) -> None:
    """Raises CascadeError for a request that makes no sense."""
    for name in (*backends, *([baseline] if baseline else ())):
        if name not in BACKENDS:
            raise CascadeError(f"there is no backend {name!r}", fix=f"choose from {', '.join(BACKENDS)}")
    if not backends:
        raise CascadeError("no backend was asked for", fix=f"choose from {', '.join(BACKENDS)}")
    if baseline and baseline not in backends:
        raise CascadeError(
            f"the baseline {baseline} is not among the backends", fix="add it to --backends, or name one of them"
        )
    if not batch_sizes or min(batch_sizes) < 1:
        raise CascadeError("a batch holds at least one slice", fix="give --batch-sizes such as 1,8,32")
    if rounds < 1 or warm_up < 0:
        raise CascadeError("there is nothing to measure", fix="give at least --rounds 1 and --warm-up 0")


@contextmanager
def slices_to_run(paths: Sequence[Path], most: int) -> Iterator[tuple[Inputs, str]]:
    """At most so many slices, and where they are from.

    Raises CascadeError where one of the paths cannot be used, or one of the slices not be read.
    """
    if paths:
        inputs = find_slices(paths)
        for error in inputs.problems.values():
            raise error
        names = inputs.names[:most]
        for name in names:
            read_slice(inputs.folder / name)
        yield Inputs(inputs.folder, names, {}), f"{len(names)} slices of {inputs.folder}"
        return
    with tempfile.TemporaryDirectory(prefix="cascade-benchmark-") as folder:
        simulate_slices(Path(folder))
        yield (
            find_slices([Path(folder)]),
            f"{DIFFERENT} slices of {SLICE_SIZE} x {SLICE_SIZE}, simulated by code, seed {SEED}",
        )


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder below `out`, removed in the end. Raises CascadeError where none can be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out, prefix=".measuring-")
    except OSError as error:
        raise CascadeError(f"{out}: cannot be written to ({error.strerror})", fix="name another --out") from error
    with folder as name:
        yield Path(name).resolve()


def chosen_baseline(asked: str | None, started: Mapping[str, object], unavailable: Mapping[str, Unavailable]) -> str:
    """Raises CascadeError where the one asked for cannot run."""
    if asked is None:
        return DEFAULT_BASELINE if DEFAULT_BASELINE in started else next(iter(started))
    if asked in unavailable:
        raise CascadeError(f"the baseline {asked} cannot run: {unavailable[asked].problem}", fix=unavailable[asked].fix)
    return asked


def _reports(
    started: Mapping[str, Started], turns: Turns, settings: Settings, work: dict[str, Work], limits: dict[str, Limit]
) -> dict[str, BackendReport]:
    """By backend."""
    reports = {}
    for name, item in started.items():
        limit, rounds, baseline = limits.get(device_of(name)), turns[name], turns[settings.baseline]
        batches = [
            batches_report(size, rounds[size], baseline[size], item.peak_host_mb[size], work, limit)
            for size in settings.batch_sizes
        ]
        reports[name] = BackendReport(device_of(name), item.loaded, item.device_memory_mb, batches)
    return reports


def _gpu_limits(started: Mapping[str, object], absent: dict[str, Unavailable]) -> dict[str, Limit]:
    """Measured where a backend uses the GPU; why not, goes to `absent`."""
    if not any(device_of(name) == "gpu" for name in started):
        return {}
    try:
        return {"gpu": gpu_limit()}
    except CascadeError as error:
        absent["gpu limit"] = Unavailable(error.problem, error.fix)
        return {}


def _count(graphs: dict[str, ExportedModel], absent: dict[str, Unavailable]) -> dict[str, Work]:
    """Of both graphs, or of none; why not, goes to `absent`."""
    try:
        return {name: count_work(graph.path) for name, graph in graphs.items()}
    except CascadeError as error:
        absent["arithmetic of the graphs"] = Unavailable(error.problem, error.fix)
        return {}
