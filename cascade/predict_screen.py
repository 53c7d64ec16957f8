"""What a person sees of `cascade predict`: a progress bar, then a table and the reasons of what failed."""

from collections import Counter
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cascade.backends import Choice
from cascade.contract import CLASS_NAMES
from cascade.predict import Run
from cascade.results import NOTE

FAILURES_SHOWN = 20


class SlicesPerSecond(ProgressColumn):
    """Over the last seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} slices/s" if task.speed else "", style="cyan")


def progress_bar(console: Console, *, quiet: bool) -> Progress:
    """Vanishes when done: the table says how it went."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SlicesPerSecond(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
        refresh_per_second=4,  # each takes a few milliseconds from the models
    )


def backend_line(choice: Choice) -> Text:
    """What runs the models and, where it was chosen, why not something faster."""
    reasons = "".join(f"\n  not {name}: {reason}" for name, reason in choice.passed_over.items())
    return Text(f"Running on {choice.backend.description}.").append(reasons, style="dim")


def run_report(run: Run, out: Path) -> RenderableType:
    """Counts by status and class, speed, where the results lie, and the failures."""
    done = len(run.rows) - len(run.failed)
    counts = Counter(row.label or row.status for row in run.rows)
    table = Table(caption=NOTE, caption_justify="left")
    table.add_column("found")
    table.add_column("slices", justify="right")
    for label in CLASS_NAMES:
        table.add_row(label, f"{counts[label]:,}")
    table.add_row("no tumor", f"{counts['no_tumor']:,}")
    table.add_row("failed", f"{counts['error']:,}", style="red" if run.failed else None, end_section=True)
    table.add_row("all", f"{len(run.rows):,}")
    speed = f"{done:,} slices in {run.seconds:.1f} s, {done / run.seconds:.1f} slices/s. " if done else ""
    lines = [Text(f"{speed}See {out / 'results.csv'}, and results.json, masks and overlays beside it.")]
    if run.interrupted:
        lines.append(Text("Interrupted: the results are those of the slices done until then.", style="yellow"))
    return Group(table, *lines, *failures(run))


def failures(run: Run) -> list[Text]:
    """The first FAILURES_SHOWN, each with reason and fix."""
    lines = [f"failed: {row.problem}\n  fix: {row.fix}" for row in run.failed[:FAILURES_SHOWN]]
    if len(run.failed) > FAILURES_SHOWN:
        lines.append(f"and {len(run.failed) - FAILURES_SHOWN:,} more, see results.csv")
    return [Text(line, style="red") for line in lines]
