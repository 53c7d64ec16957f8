"""What a person sees of `cascade benchmark`: the machine, the tables, what could not be measured."""

from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cascade.benchmarking.compare import Comparison
from cascade.benchmarking.machine import Machine
from cascade.benchmarking.measure import STAGES
from cascade.benchmarking.report import Report
from cascade.benchmarking.statistics import Spread
from cascade.graphs import CLASSIFIER, SEGMENTER

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


def _backends(report: Report) -> Table:
    table = _table("Backends: cold start in a fresh process, files perhaps in the system's cache")
    for heading in ("backend", "runs on"):
        table.add_column(heading)
    for heading in ("start ms", "of it load", "first slice ms", "peak host MiB", "GPU MiB"):
        table.add_column(heading, justify="right")
    for name, item in report.backends.items():
        loaded = item.loaded
        times = (f"{value:,.0f}" for value in (loaded.start_ms, loaded.load_ms, loaded.first_slice_ms))
        gpu = "-" if item.device_memory_mb is None else f"{item.device_memory_mb:,.0f}"
        table.add_row(name, loaded.description, *times, f"{item.batches[-1].peak_host_mb:,.0f}", gpu)
    for name, refusal in report.unavailable.items():
        table.add_row(name, Text(f"cannot run: {refusal.problem}\nfix: {refusal.fix}", "yellow"), *5 * ("-",))
    return table


def _speed(report: Report) -> Table:
    baseline = report.settings.baseline
    table = _table("Speed: models from memory to memory, end to end from files to results as `cascade predict`")
    table.add_column("batch", justify="right")
    table.add_column("backend")
    for heading in ("models ms\np50", "\np95", "\np99", "models\nslices/s", "end to end\nslices/s"):
        table.add_column(heading, justify="right")
    for heading in ("models", "end to end"):
        table.add_column(f"{heading} over\n{baseline}", justify="right")
    for place, size in enumerate(report.settings.batch_sizes):
        for name, backend in report.backends.items():
            item = backend.batches[place]
            times = (f"{value:.1f}" for value in (item.models_ms.p50, item.models_ms.p95, item.models_ms.p99))
            speeds = (f"{item.models.median:.1f}", f"{item.end_to_end.median:.1f}")
            ratios = (_ratio(item.models_ratio), _ratio(item.end_to_end_ratio))
            table.add_row(str(size), name, *times, *speeds, *ratios)
        table.add_section()
    rounds = report.settings.rounds
    table.caption = (
        f"{rounds} {'round' if rounds == 1 else 'rounds'} in turns; ratios round by round: median (least to greatest)"
    )
    return table


def _stages(report: Report) -> Table:
    table = _table("Latency by stage in ms a batch, stages one after the other")
    table.add_column("batch", justify="right")
    table.add_column("backend")
    for heading in ("", *STAGES, "all", "batches"):
        table.add_column(heading, justify="right")
    for place, size in enumerate(report.settings.batch_sizes):
        for name, backend in report.backends.items():
            item = backend.batches[place]
            columns = [*(item.stages_ms[stage] for stage in STAGES), item.total_ms]
            for rank in ("p50", "p95", "p99"):
                cells = ["-" if value is None else f"{getattr(value, rank):.1f}" for value in columns]
                first = rank == "p50"
                samples = str(item.total_ms.samples)
                table.add_row(str(size) if first else "", name if first else "", rank, *cells, samples if first else "")
        table.add_section()
    table.caption = "-: the backend has no such stage. Of fewer than 100 batches, p99 is next to the slowest."
    return table


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
    text = Text("\n".join(lines))
    if not report.work:
        return text
    table = _table("GFLOP/s, and percent of the limit above")
    table.add_column("batch", justify="right")
    table.add_column("backend")
    for heading in (SEGMENTER, CLASSIFIER, "both models", "classified"):
        table.add_column(heading, justify="right")
    for place, size in enumerate(report.settings.batch_sizes):
        for name, backend in report.backends.items():
            item = backend.batches[place]
            cells = [
                _share(item.gflops.get(key), item.percent_of_limit.get(key))
                for key in (SEGMENTER, CLASSIFIER, "models")
            ]
            table.add_row(str(size), name, *cells, f"{item.classified_share:.0%}")
        table.add_section()
    table.caption = "A backend that computes in fewer bits than the limit was measured in may pass 100 %."
    return Group(text, table)


def _comparison(comparison: Comparison) -> RenderableType:
    table = _table(f"Against {comparison.then}: slices/s now over then, above 1 is faster")
    table.add_column("batch", justify="right")
    table.add_column("backend")
    for heading in ("models", "end to end"):
        table.add_column(heading, justify="right")
    for change in comparison.changes:
        table.add_row(str(change.batch_size), change.backend, f"{change.models:.2f}", f"{change.end_to_end:.2f}")
    lines = [Text(f"warning: {warning}", "yellow") for warning in comparison.warnings]
    return Group(table, *lines, *(Text(item) for item in comparison.missing))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", caption_justify="left")


def _ratio(value: Spread) -> str:
    return f"{value.median:.2f} ({value.least:.2f} to {value.greatest:.2f})"


def _share(gflops: float | None, percent: float | None) -> str:
    if gflops is None:
        return "-"
    return f"{gflops:,.0f}" + (f" ({percent:.0f} %)" if percent is not None else "")
