"""What `cascade benchmark` prints: the machine, the tables, and what could not be measured."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cascade.benchmarking.compare import Comparison
from cascade.benchmarking.report import BatchSizeResult, Report
from cascade.benchmarking.timing import STAGES
from cascade.runtime.machine import Machine
from cascade.runtime.models import CLASSIFIER, SEGMENTER

BUSY = 0.5
"""Load average above which the table warns that the machine was busy."""


def progress_bar(console: Console) -> Progress:
    """A transient progress bar. It refreshes rarely, since it runs on the cores that are measured."""
    return Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        refresh_per_second=2,
    )


def report_tables(report: Report, comparison: Comparison | None, out: Path) -> RenderableType:
    """Everything in the report except hashes."""
    parts: list[RenderableType] = [_machine(report.machine), Text(f"Slices: {report.slices}.")]
    parts += [_backends(report), _speed(report), _stages(report), _roofline(report)]
    if comparison:
        parts.append(_comparison(comparison))
    parts.append(Text(f"See {out / 'benchmark.json'} and {out / 'benchmark.png'}."))
    return Group(*parts)


def _machine(machine: Machine) -> Text:
    cores = f"{machine.cpu_cores} cores, " if machine.cpu_cores else ""
    memory = f", {machine.memory_gb:g} GB" if machine.memory_gb else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    lines = [
        f"{machine.cpu}, {cores}{machine.cpu_threads} threads ({', '.join(machine.cpu_instructions)}){memory}",
        "; ".join(machine.gpus) or "no NVIDIA GPU",
        f"{machine.os}, Python {machine.python}, {versions}",
        *(f"{name}={value}" for name, value in machine.settings.items()),
    ]
    text = Text("\n".join(lines))
    if machine.load_average and machine.load_average > BUSY:
        text.append(f"\nThe machine was busy: load average {machine.load_average:g} before the start.", "yellow")
    return text


def _backends(report: Report) -> RenderableType:
    headings = ("start\nms", "of which\nload ms", "first\nslice ms", "peak host\nMiB", "GPU\nMiB")
    table = _table(("\nbackend", "\nruns on"), headings)
    for name, item in report.backends.items():
        loaded = item.loaded
        memory = (item.batches[-1].peak_host_mb, item.device_memory_mb)
        values = (loaded.start_ms, loaded.load_ms, loaded.first_slice_ms, *memory)
        table.add_row(name, loaded.description, *("-" if value is None else f"{value:,.0f}" for value in values))
    unavailable = [
        Text(f"{name} cannot run: {reason.problem}\n  fix: {reason.fix}", "yellow")
        for name, reason in report.unavailable.items()
    ]
    return _titled("Backends, each started once in a new process, possibly from cached files", table, *unavailable)


def _speed(report: Report) -> RenderableType:
    ends = ("p50 ms", "slices/s", "speed-up")
    headings = [*(f"models\n{end}" for end in ends), *(f"end to end\n{end}" for end in ends[1:])]
    table = _table(("\nbatch", "\nbackend"), headings)
    for name, item in _results(report, table):
        cells = [str(item.batch_size), name, f"{item.models_ms.p50:.1f}"]
        for speed, ratio in ((item.models, item.models_ratio), (item.end_to_end, item.end_to_end_ratio)):
            cells += [f"{speed.median:.1f}", f"{ratio.median:.2f} ({ratio.least:.2f}-{ratio.greatest:.2f})"]
        table.add_row(*cells)
    rounds = "1 round" if report.settings.rounds == 1 else f"{report.settings.rounds} rounds"
    return _titled(
        "Throughput: models from memory to memory, end to end from files to results as `cascade predict`",
        table,
        f"{rounds}; speed-up over {report.settings.baseline} in the same round, median (minimum to maximum)",
    )


def _stages(report: Report) -> RenderableType:
    batches = [item for backend in report.backends.values() for item in backend.batches]
    stages = [stage for stage in STAGES if any(item.stages_ms[stage] for item in batches)]
    table = _table(("batch size\n(batches)", "\nbackend", ""), [f"\n{name}" for name in (*stages, "total")])
    for name, item in _results(report, table):
        columns = [*(item.stages_ms[stage] for stage in stages), item.total_ms]
        labels = (f"{item.batch_size} ({item.total_ms.samples})", name)
        for percentile in ("p50", "p95", "p99"):
            cells = ["-" if value is None else f"{getattr(value, percentile):.1f}" for value in columns]
            table.add_row(*labels, percentile, *cells)
            labels = ("", "")
    return _titled(
        "Latency of each stage in ms per batch, one stage after the other",
        table,
        "-: the backend does not have this stage. With fewer than 100 batches, p99 is close to the maximum.",
    )


def _roofline(report: Report) -> RenderableType:
    lines = [
        f"{name} roofline: {item.gflops:,.0f} GFLOP/s, {item.what}; memory {item.gb_per_second:,.0f} GB/s (copy)"
        for name, item in report.rooflines.items()
    ]
    lines += [
        f"{name}: {item.flops / 1e9:.2f} GFLOP per slice; moves {item.bytes_moved(1, 4) / 1e6:,.0f} MB in FP32, "
        f"{item.bytes_moved(1, 2) / 1e6:,.0f} MB in 16 bits, of which weights {item.weights * 4 / 1e6:,.0f} and "
        f"{item.weights * 2 / 1e6:,.0f} MB"
        for name, item in report.costs.items()
    ]
    lines += [f"not measured: {name}: {why.problem}\n  fix: {why.fix}" for name, why in report.not_measured.items()]
    if not report.costs:
        return Text("\n".join(lines))
    table = _table(("batch", "backend"), (SEGMENTER, CLASSIFIER, "both models", "classified"))
    for name, item in _results(report, table):
        cells = [_gflops(item, key) for key in (SEGMENTER, CLASSIFIER, "models")]
        table.add_row(str(item.batch_size), name, *cells, f"{item.classified_share:.0%}")
    return _titled("GFLOP/s (percent of the roofline in the precision of the backend)", table, "\n".join(lines))


def _comparison(comparison: Comparison) -> RenderableType:
    table = _table(("batch", "backend"), ("models", "end to end"))
    for change in comparison.changes:
        table.add_row(str(change.batch_size), change.backend, f"{change.models:.2f}", f"{change.end_to_end:.2f}")
    return _titled(
        f"Speed-up over the benchmark of {comparison.then} (slices/s; above 1 is faster)",
        table,
        *(Text(f"warning: {warning}", "yellow") for warning in comparison.warnings),
        *comparison.missing,
    )


def _results(report: Report, table: Table) -> Iterator[tuple[str, BatchSizeResult]]:
    """Backends and results by batch size. Ends the table's section after each batch size."""
    for index in range(len(report.settings.batch_sizes)):
        for name, backend in report.backends.items():
            yield name, backend.batches[index]
        table.add_section()


def _table(labels: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in labels:
        table.add_column(heading, no_wrap=heading.strip() == "backend")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _titled(title: str, table: Table, *notes: str | Text) -> Group:
    """Add a title and notes that, unlike the table's own, are not wrapped to its width."""
    return Group(Text(f"\n{title}", "bold"), table, *(Text(note) if isinstance(note, str) else note for note in notes))


def _gflops(item: BatchSizeResult, key: str) -> str:
    if key not in item.gflops:
        return "-"
    percent = f" ({item.percent_of_limit[key]:.0f} %)" if key in item.percent_of_limit else ""
    return f"{item.gflops[key]:,.0f}{percent}"
