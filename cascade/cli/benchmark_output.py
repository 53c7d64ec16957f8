"""What a person sees of `cascade benchmark`: the machine, the tables, what could not be measured."""

from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cascade.benchmarking.compare import Comparison
from cascade.benchmarking.report import Report
from cascade.benchmarking.statistics import Spread
from cascade.benchmarking.timing import STAGES
from cascade.runtime.machine import Machine
from cascade.runtime.models import CLASSIFIER, SEGMENTER

BUSY = 0.5
"""Load average from which on a machine is said to be busy."""


def progress_bar(console: Console) -> Progress:
    """Vanishes when done. Drawn twice a second at most: it runs on the cores that are measured."""
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
    """All that is in the report but the hashes."""
    parts: list[RenderableType] = [_machine(report.machine), Text(f"Slices: {report.slices}.")]
    parts += [_backends(report), _speed(report), _stages(report), _floor(report)]
    if comparison:
        parts.append(_comparison(comparison))
    parts.append(Text(f"See {out / 'benchmark.json'} and {out / 'benchmark.png'}."))
    return Group(*parts)


def _machine(machine: Machine) -> Text:
    cores = f"{machine.cpu_cores} cores, " if machine.cpu_cores else ""
    memory = f", {machine.memory_gb:g} GB" if machine.memory_gb else ""
    lines = [
        f"{machine.cpu}, {cores}{machine.cpu_threads} threads ({', '.join(machine.cpu_instructions)}){memory}",
        "; ".join(machine.gpus) or "no NVIDIA GPU",
        f"{machine.os}, Python {machine.python}, "
        + ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        *(f"{name}={value}" for name, value in machine.settings.items()),
    ]
    text = Text("\n".join(lines))
    if machine.load_average and machine.load_average > BUSY:
        text.append(
            f"\nThe machine was busy: {machine.load_average:g} processes wanted to run before the start.", "yellow"
        )
    return text


def _backends(report: Report) -> RenderableType:
    headings = ("start\nms", "of it\nload", "first\nslice ms", "peak host\nMiB", "GPU\nMiB")
    table = _table(("\nbackend", "\nruns on"), headings)
    for name, item in report.backends.items():
        loaded = item.loaded
        times = (f"{value:,.0f}" for value in (loaded.start_ms, loaded.load_ms, loaded.first_slice_ms))
        gpu = "-" if item.device_memory_mb is None else f"{item.device_memory_mb:,.0f}"
        table.add_row(name, loaded.description, *times, f"{item.batches[-1].peak_host_mb:,.0f}", gpu)
    refusals = [
        Text(f"{name} cannot run: {refusal.problem}\n  fix: {refusal.fix}", "yellow")
        for name, refusal in report.unavailable.items()
    ]
    title = "Backends, each started once in a fresh process, its files perhaps in the system's cache"
    return _titled(title, table, *refusals)


def _speed(report: Report) -> RenderableType:
    headings = ("models\np50 ms", "slices\nper s", "\nratio", "slices\nper s", "end to end\nratio")
    table = _table(("\nbatch", "\nbackend"), headings)
    for place, size in enumerate(report.settings.batch_sizes):
        for name, backend in report.backends.items():
            item = backend.batches[place]
            models = (f"{item.models_ms.p50:.1f}", f"{item.models.median:.1f}", _ratio(item.models_ratio))
            end_to_end = (f"{item.end_to_end.median:.1f}", _ratio(item.end_to_end_ratio))
            table.add_row(str(size), name, *models, *end_to_end)
        table.add_section()
    rounds = "1 round" if report.settings.rounds == 1 else f"{report.settings.rounds} rounds"
    return _titled(
        "Speed: models from memory to memory, end to end from files to results as `cascade predict`",
        table,
        f"{rounds} in turns; ratio: times as fast as {report.settings.baseline} in the same round, "
        "median (least to greatest)",
    )


def _stages(report: Report) -> RenderableType:
    there = [
        stage
        for stage in STAGES
        if any(batch.stages_ms[stage] for backend in report.backends.values() for batch in backend.batches)
    ]
    table = _table(("batch", "backend", ""), (*there, "all"))
    for place, size in enumerate(report.settings.batch_sizes):
        for name, backend in report.backends.items():
            item = backend.batches[place]
            columns = [*(item.stages_ms[stage] for stage in there), item.total_ms]
            for rank in ("p50", "p95", "p99"):
                cells = ["-" if value is None else f"{getattr(value, rank):.1f}" for value in columns]
                labels = (f"{size} ({item.total_ms.samples})", name) if rank == "p50" else ("", "")
                table.add_row(*labels, rank, *cells)
        table.add_section()
    return _titled(
        "Latency by stage in ms a batch, stages one after the other",
        table,
        "In brackets: batches timed. -: the backend has no such stage. Of fewer than 100, p99 is next to the slowest.",
    )


def _floor(report: Report) -> RenderableType:
    lines = [
        f"{device} limit: {item.gflops:,.0f} GFLOP/s, {item.what}; memory {item.gb_per_second:,.0f} GB/s copied"
        for device, item in report.limits.items()
    ]
    lines += [
        f"{name}: {item.flops / 1e9:.2f} GFLOP a slice; moves {item.bytes_moved(1, 4) / 1e6:,.0f} MB in FP32, "
        f"{item.bytes_moved(1, 2) / 1e6:,.0f} MB in 16 bits, of it weights {item.weights * 4 / 1e6:,.0f} and "
        f"{item.weights * 2 / 1e6:,.0f}"
        for name, item in report.work.items()
    ]
    lines += [f"absent, {name}: {item.problem}\n  fix: {item.fix}" for name, item in report.absent.items()]
    if not report.work:
        return Text("\n".join(lines))
    table = _table(("batch", "backend"), (SEGMENTER, CLASSIFIER, "both models", "classified"))
    for place, size in enumerate(report.settings.batch_sizes):
        for name, backend in report.backends.items():
            item = backend.batches[place]
            cells = [
                _share(item.gflops.get(key), item.percent_of_limit.get(key))
                for key in (SEGMENTER, CLASSIFIER, "models")
            ]
            table.add_row(str(size), name, *cells, f"{item.classified_share:.0%}")
        table.add_section()
    return _titled(
        "GFLOP/s, and percent of the limit of the backend's device",
        table,
        "A backend that computes in fewer bits than the limit was measured in may pass 100 %.",
        "\n".join(lines),
    )


def _comparison(comparison: Comparison) -> RenderableType:
    table = _table(("batch", "backend"), ("models", "end to end"))
    for change in comparison.changes:
        table.add_row(str(change.batch_size), change.backend, f"{change.models:.2f}", f"{change.end_to_end:.2f}")
    return _titled(
        f"Against {comparison.then}: slices/s now over then, above 1 is faster",
        table,
        *(Text(f"warning: {warning}", "yellow") for warning in comparison.warnings),
        *comparison.missing,
    )


def _table(labels: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in labels:
        table.add_column(heading, no_wrap=heading.strip() == "backend")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _titled(title: str, table: Table, *notes: str | Text) -> Group:
    """The table's own title and caption would be broken to its width."""
    return Group(Text(f"\n{title}", "bold"), table, *(Text(note) if isinstance(note, str) else note for note in notes))


def _ratio(value: Spread) -> str:
    return f"{value.median:.2f} ({value.least:.2f}-{value.greatest:.2f})"


def _share(gflops: float | None, percent: float | None) -> str:
    if gflops is None:
        return "-"
    return f"{gflops:,.0f}" + (f" ({percent:.0f} %)" if percent is not None else "")
