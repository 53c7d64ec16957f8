"""What `cascade predict` prints: a progress bar, then a table of the results and the reasons for failures."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from itertools import groupby
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cascade.cli.console import printable
from cascade.contract import CLASS_NAMES
from cascade.discovery.filters import HIDDEN
from cascade.discovery.inputs import Inputs
from cascade.discovery.store import is_url
from cascade.io.open import open_sources
from cascade.prediction.executor import Executor
from cascade.prediction.results import NOTE
from cascade.prediction.run_options import RunOptions
from cascade.prediction.run_result import RunResult
from cascade.prediction.volumes import VolumeResult

MAX_FAILURES = 20
"""Failures to print; the rest is counted."""

MAX_LEFT_OUT = 200
"""Files that were left out to print in a dry run; the rest is counted."""

MAX_REASONS = 10
"""Reasons why files were left out, and names of dropped inputs, to print; the rest is counted."""

MAX_VOLUMES = 30
"""Volumes to print, those with a tumor first; the rest is counted."""


class SlicesPerSecond(ProgressColumn):
    """Speed over the last seconds."""

    def render(self, task: Task) -> Text:
        """Return the speed with its unit; empty text before the first slice."""
        return Text(f"{task.speed:.1f} slices/s" if task.speed else "", style="cyan")


def progress_bar(console: Console, *, quiet: bool) -> Progress:
    """Return a progress bar, which disappears at the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SlicesPerSecond(),
        TimeRemainingColumn(),
        TextColumn("remaining"),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
        refresh_per_second=4,  # each refresh takes a few milliseconds from the models
    )


def backend_line(executor: Executor) -> Text:
    """Name the backend, and why faster ones were skipped."""
    reasons = "".join(f"\n  skipped {name}: {reason}" for name, reason in executor.skipped_backends.items())
    return Text(f"Backend: {executor.description}").append(reasons, style="dim")


def run_summary(result: RunResult, out: str | Path, options: RunOptions, *, verbose: bool) -> RenderableType:
    """Describe the result of a run: slices by class and status, speed, place of the results, and failures.

    Args:
        result: Result of the run.
        out: Results folder, or its URL.
        options: Options of the run.
        verbose: Include the notes on single inputs.
    """
    predicted = len(result.rows) - len(result.failed) - result.resumed_rows
    counts = Counter(row.label or row.status for row in result.rows)
    table = Table(caption=NOTE, caption_justify="left")
    table.add_column("result")
    table.add_column("slices", justify="right")
    for label in CLASS_NAMES:
        table.add_row(label, f"{counts[label]:,}")
    table.add_row("no tumor", f"{counts['no_tumor']:,}")
    table.add_row("failed", f"{counts['error']:,}", style="red" if result.failed else None, end_section=True)
    table.add_row("total", f"{len(result.rows):,}")
    lines = []
    if predicted:
        rate = predicted / result.seconds
        lines.append(Text(f"Predicted {_slices(predicted)} in {result.seconds:.1f} s ({rate:.1f} slices/s)."))
    if result.resumed_rows:
        lines.append(Text(f"Kept {_slices(result.resumed_rows)} of the earlier run."))
    name = "report.html" if options.report else "results.csv"
    main_file = f"{str(out).rstrip('/')}/{name}" if is_url(out) else Path(out) / name
    lines.append(Text(f"Results: {main_file}"))
    if result.dropped:
        text = f"Dropped the results of inputs that are no longer there: {_listed(result.dropped)}."
        lines.append(Text(printable(text), style="yellow"))
    if result.interrupted:
        remaining = f"Interrupted with {_slices(result.remaining)} remaining. Use --resume to continue."
        lines.append(Text(remaining, style="yellow"))
    if verbose:
        lines += [Text(printable(f"note: {note}"), style="dim") for note in _notes(result)]
    elif notes := sum(1 for _ in _notes(result)):
        hint = "shown by --verbose and in the column `notes` of results.csv"
        lines.append(Text(f"Notes on inputs: {notes:,}, {hint}.", style="dim"))
    reasons = Counter(reason for reason in result.left_out.values() if reason != HIDDEN)
    if reasons:
        listed = _listed([f"{count:,}: {reason}" for reason, count in reasons.most_common()], "; ")
        lines.append(Text(printable(f"Left out ({listed}). run.json lists them."), style="dim"))
    volumes = [volume_table(result.volumes)] if result.volumes else []
    return Group(table, *volumes, *lines, *failure_lines(result))


class FoldedName:
    """A name that is folded after "/", "_" or "-", and elsewhere only if a part is longer than a line."""

    def __init__(self, name: str) -> None:
        self._name = printable(name)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the range of widths: up to that of a single line."""
        return Measurement(1, cell_len(self._name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines."""
        line = ""
        for part in re.findall(r"[^/_-]*[/_-]|[^/_-]+", self._name):
            if line and cell_len(line + part) > options.max_width:
                yield Text(line, overflow="fold")
                line = ""
            line += part
        yield Text(line, overflow="fold")


def volume_table(volumes: Sequence[VolumeResult]) -> RenderableType:
    """List the findings of the first MAX_VOLUMES volumes. A terminal of 80 columns is wide enough."""
    table = Table("volume")
    table.add_column("finding", width=len("meningioma 0.98"))  # longer ones take more lines
    for name in ("ml", "diameters", "slices"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in nsmallest(MAX_VOLUMES, volumes, lambda row: (row.status != "tumor", row.name)):
        finding = row.label or {"no_tumor": "no tumor", "error": "failed"}.get(row.status, row.status)
        probability = f" {max(row.probabilities):.2f}" if row.probabilities else ""
        table.add_row(
            FoldedName(row.name),
            f"{finding}{probability}{' (uncertain)' if row.uncertain else ''}",
            "" if row.volume_ml is None else f"{row.volume_ml:.1f}",
            "" if row.longest_mm is None else f"{row.longest_mm:.0f} x {row.perpendicular_mm:.0f} mm",
            f"{row.tumor_slices} of {row.slices}" if row.tumor_slices else f"{row.slices or ''}",
        )
    if len(volumes) <= MAX_VOLUMES:
        return table
    return Group(table, Text(f"and {len(volumes) - MAX_VOLUMES:,} more volumes, see volumes.csv"))


def dry_run_table(inputs: Inputs, options: RunOptions) -> RenderableType:
    """List the files and series that a run would process, and what it would leave out and why."""
    sources, problems, left_out = open_sources(inputs, axis=options.axis, volume=options.volume)
    table = Table("input", "slices", "notes")
    table.columns[1].justify = "right"
    for source in sources:
        table.add_row(Text(printable(source.name), overflow="fold"), f"{source.count:,}", Text("; ".join(source.notes)))
    slices = sum(source.count for source in sources)
    lines = [
        Text(
            f"Dry run: {slices:,} slices of {len(sources):,} inputs would be processed. Only headers were checked, and "
            "nothing was written."
        )
    ]
    if options.resume:
        lines.append(Text("With --resume, inputs that an earlier run has finished are not processed again."))
    reasons = [f"left out: {inputs.with_urls(name)}: {reason}" for name, reason in sorted(left_out.items())]
    lines += [Text(printable(line), style="dim") for line in reasons[:MAX_LEFT_OUT]]
    if len(reasons) > MAX_LEFT_OUT:
        lines.append(Text(f"left out: {len(reasons) - MAX_LEFT_OUT:,} more", style="dim"))
    for error in problems.values():
        message = inputs.with_urls(str(error).replace(str(inputs.unpacked), str(inputs.folder)))
        lines.append(Text(printable(f"would fail: {message}"), style="red"))
    return Group(table, *lines)


def failure_lines(result: RunResult) -> list[Text]:
    """Return the first MAX_FAILURES failures with reason and fix; the slices of a volume that share one are merged."""
    counts = Counter((row.problem, row.fix) for row in result.failed)
    lines = [
        f"failed: {problem}{f' ({slices:,} slices)' if slices > 1 else ''}\n  fix: {fix}"
        for (problem, fix), slices in list(counts.items())[:MAX_FAILURES]
    ]
    if len(counts) > MAX_FAILURES:
        lines.append(f"and {len(counts) - MAX_FAILURES:,} more, see results.csv")
    return [Text(printable(line), style="red") for line in lines]


def _notes(result: RunResult) -> Iterator[str]:
    """Yield one line for each input and note, with the number of slices unless it concerns all."""
    for name, group in groupby(result.rows, lambda row: row.input):
        rows = list(group)
        for note, count in Counter(note for row in rows for note in row.notes).items():
            yield f"{name}: {note}" + (f" ({count:,} of {len(rows):,} slices)" if count < len(rows) else "")


def _listed(texts: Sequence[str], separator: str = ", ") -> str:
    more = [f"{len(texts) - MAX_REASONS:,} more"] if len(texts) > MAX_REASONS else []
    return separator.join([*texts[:MAX_REASONS], *more])


def _slices(count: int) -> str:
    return f"{count:,} slice" + ("" if count == 1 else "s")
