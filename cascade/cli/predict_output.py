"""What a person sees of `cascade predict`: a progress bar, then a table and the reasons of what failed."""

from collections import Counter
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cascade.cli.console import printable
from cascade.contract import CLASS_NAMES
from cascade.discovery.filters import HIDDEN
from cascade.discovery.inputs import Inputs
from cascade.io.open import open_sources
from cascade.pipeline import Cascade
from cascade.prediction.batch import Run
from cascade.prediction.results import NOTE
from cascade.prediction.run import RunOptions

FAILURES_SHOWN = 20
LEFT_OUT_SHOWN = 200


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


def backend_line(cascade: Cascade) -> Text:
    """What runs the models and, where it was chosen, why not something faster."""
    reasons = "".join(f"\n  not {name}: {reason}" for name, reason in cascade.skipped_backends.items())
    return Text(f"Running on {cascade.description}.").append(reasons, style="dim")


def run_report(run: Run, out: Path, options: RunOptions, *, verbose: bool) -> RenderableType:
    """Counts by status and class, speed, where the results lie, and the failures.

    verbose  also what there is to say of single inputs.
    """
    done = len(run.rows) - len(run.failed) - run.resumed
    counts = Counter(row.label or row.status for row in run.rows)
    table = Table(caption=NOTE, caption_justify="left")
    table.add_column("found")
    table.add_column("slices", justify="right")
    for label in CLASS_NAMES:
        table.add_row(label, f"{counts[label]:,}")
    table.add_row("no tumor", f"{counts['no_tumor']:,}")
    table.add_row("failed", f"{counts['error']:,}", style="red" if run.failed else None, end_section=True)
    table.add_row("all", f"{len(run.rows):,}")
    speed = f"Slices done: {done:,} in {run.seconds:.1f} s, {done / run.seconds:.1f} a second. " if done else ""
    earlier = f"Done before: {run.resumed:,}. " if run.resumed else ""
    best = "report.html" if options.report else "results.csv"
    lines = [Text(f"{speed}{earlier}Open {out / best}; tables and masks lie beside it.")]
    if run.interrupted:
        rest = f"what was done is kept, slices left: {run.left:,}; go on with --resume."
        lines.append(Text(f"Interrupted: {rest}", style="yellow"))
    notes = _notes(run)
    if notes and verbose:
        lines += [Text(printable(f"note: {note}"), style="dim") for note in notes]
    elif notes:
        lines.append(Text(f"{len(notes):,} notes on inputs, see --verbose or the column notes.", style="dim"))
    reasons = Counter(why for why in run.left_out.values() if why != HIDDEN)
    if reasons:
        told = "; ".join(f"{count:,}: {why}" for why, count in reasons.most_common())
        lines.append(Text(printable(f"Left out ({told}): run.json names them."), style="dim"))
    return Group(table, *lines, *failures(run))


def _notes(run: Run) -> list[str]:
    """One for each input and note, with the number of slices where it is not of all."""
    slices = Counter(row.input for row in run.rows)
    noted = Counter((row.input, note) for row in run.rows for note in row.notes)
    return [
        f"{name}: {note}" + (f" ({count:,} of {slices[name]:,} slices)" if count < slices[name] else "")
        for (name, note), count in noted.items()
    ]


def dry_run_table(inputs: Inputs, options: RunOptions) -> RenderableType:
    """What a run would do, file by file or series by series, and why not the rest."""
    sources, problems = open_sources(inputs, axis=options.axis)
    table = Table("input", "slices", "note")
    table.columns[1].justify = "right"
    for source in sources:
        table.add_row(Text(printable(source.name), overflow="fold"), f"{source.count:,}", Text("; ".join(source.notes)))
    slices = sum(source.count for source in sources)
    lines = [
        Text(
            f"{slices:,} slices of {len(sources):,} inputs would be done, where their pixels can be read; "
            "nothing was written."
        )
    ]
    if options.resume:
        lines.append(
            Text("Of these, --resume leaves out what an earlier run did and whose files are as they were then.")
        )
    left_out = sorted(inputs.skipped.items())
    lines += [Text(printable(f"left out: {name}: {why}"), style="dim") for name, why in left_out[:LEFT_OUT_SHOWN]]
    if len(left_out) > LEFT_OUT_SHOWN:
        lines.append(Text(f"left out: {len(left_out) - LEFT_OUT_SHOWN:,} more", style="dim"))
    for error in problems.values():
        said = str(error).replace(str(inputs.unpacked), str(inputs.folder))
        lines.append(Text(printable(f"would fail: {said}"), style="red"))
    return Group(table, *lines)


def failures(run: Run) -> list[Text]:
    """The first FAILURES_SHOWN, each with reason and fix; once what all slices of a volume share."""
    counts = Counter((row.problem, row.fix) for row in run.failed)
    lines = [
        f"failed: {problem}{f' ({slices:,} slices)' if slices > 1 else ''}\n  fix: {fix}"
        for (problem, fix), slices in list(counts.items())[:FAILURES_SHOWN]
    ]
    if len(counts) > FAILURES_SHOWN:
        lines.append(f"and {len(counts) - FAILURES_SHOWN:,} more, see results.csv")
    return [Text(printable(line), style="red") for line in lines]
