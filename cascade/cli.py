"""The commands of `cascade`: each parses, calls and prints. What they call is imported when they run."""

import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cascade import __version__, cli_benchmark, cli_build, cli_predict, cli_train
from cascade.cli_options import BackendName, BatchSize, Engines, Folder, Models, printable, stderr
from cascade.contract import CLASS_NAMES
from cascade.errors import CascadeError
from cascade.runtime.engines import ENGINES
from cascade.runtime.models import SHIPPED
from cascade.runtime.select import AUTO

if TYPE_CHECKING:
    from cascade.datasets.split import Split

app = typer.Typer(
    name="cascade",
    help="Finds brain tumors in T1-weighted contrast-enhanced MRI slices and names them: meningioma, glioma, pituitary "
    "tumor. [bold]For research only. Not a medical device: do not use it to diagnose or treat anyone.[/]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a bug's traceback is shown as Python tells it
)
data = typer.Typer(help="Look at a labelled data set, and split it by patient.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(cli_train.app, name="train")
app.command("predict", no_args_is_help=True)(cli_predict.predict)
app.command("build")(cli_build.build)
app.command("benchmark")(cli_benchmark.benchmark)


def main(arguments: Sequence[str] | None = None) -> None:
    """What the console script runs: the only place that prints a CascadeError, and exits with 1."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
            signal.signal(number, signal.default_int_handler)
    try:
        app(args=arguments, prog_name="cascade")
    except CascadeError as error:
        stderr().print(Text(printable(f"error: {error}"), style="red"), soft_wrap=True)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cascade {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


@app.command(no_args_is_help=True)
def evaluate(
    folder: Folder,
    split_file: Annotated[
        Path | None, typer.Option("--split", help="Split file; one of its parts is evaluated.", show_default=False)
    ] = None,
    part: Annotated[str, typer.Option("--part", help="Of the split: train, validation or test.")] = "test",
    whole: Annotated[bool, typer.Option("--all", help="Evaluate the whole folder instead of a part.")] = False,
    tumor_free: Annotated[
        Path | None,
        typer.Option("--tumor-free", help="Slices without a tumor, to count false alarms.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for metrics, table and figures.")] = Path("evaluation"),
    models: Models = SHIPPED,
    backend: BackendName = AUTO,
    engines: Engines = ENGINES,
    batch_size: BatchSize = 8,
) -> None:
    """Measure masks and classes against a labelled data set.

    Give --split for slices that the models were not trained on, or --all for data they have never seen.

    Exit code: 0 all slices were used, 2 some could not be, 1 nothing could be done.

    Example: [bold]cascade evaluate figshare/ --split figshare/split.json[/]
    """
    if whole == (split_file is not None):
        raise CascadeError("either one part or the whole folder can be evaluated", fix="give --split FILE or --all")
    from cascade.cli_evaluate_output import metrics_table
    from cascade.evaluation.evaluate import evaluate as run_evaluation

    metrics = run_evaluation(
        folder,
        split_file=split_file,
        part=part,
        tumor_free=tumor_free,
        models=models,
        backend=backend,
        engines=engines,
        batch_size=batch_size,
        out=out,
    )
    stderr().print(metrics_table(metrics))
    raise typer.Exit(2 if metrics["failed"]["slices"] else 0)


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False, models: Models = SHIPPED
) -> None:
    """Print versions, models, backends and devices: what to paste into a bug report.

    Example: [bold]cascade info --json[/]
    """
    from cascade.info import about, info_table

    content = about(models)
    if as_json:
        print(json.dumps(content, indent=1))
    else:
        stderr().print(info_table(content))


@data.command("inspect", no_args_is_help=True)
def data_inspect(
    folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False
) -> None:
    """Count slices by class, patient and size, and name what is broken.

    Exit code: 0 all slices can be used, 2 some cannot.

    Example: [bold]cascade data inspect figshare/[/]
    """
    from cascade.datasets.summary import inspect_folder, inspection_table

    inspection = inspect_folder(folder)
    if as_json:
        print(json.dumps(asdict(inspection), indent=1))
    else:
        stderr().print(inspection_table(inspection))
    raise typer.Exit(2 if inspection.broken else 0)


@data.command("split", no_args_is_help=True)
def data_split(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; never replaced.", show_default="split.json in the folder"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another split.")] = 0,
) -> None:
    """Decide once which patients train, which tune and which test.

    Example: [bold]cascade data split figshare/[/]
    """
    from cascade.datasets.split import make_split, write_split

    path = out or folder / "split.json"
    split, problems = make_split(folder, seed)
    write_split(split, path, seed)
    console = stderr()
    console.print(_split_table(split, path))
    console.print(Group(*(Text(f"left out: {problem}", style="red") for problem in problems)), soft_wrap=True)


def _split_table(split: "Split", path: Path) -> Table:
    """Slices of each part and class, and how many patients they are from."""
    from cascade.datasets.figshare import person
    from cascade.datasets.split import PARTS

    table = Table("part", title=str(path), title_justify="left")
    for heading in (*CLASS_NAMES, "slices", "patients"):
        table.add_column(heading, justify="right")
    for part in PARTS:
        slices = split.part(part)
        labels = Counter(item.label for item in slices)
        patients = {person(item.patient) for item in slices}
        table.add_row(part, *(f"{labels[name]:,}" for name in CLASS_NAMES), f"{len(slices):,}", f"{len(patients):,}")
    return table
