"""The commands `cascade data ...`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from cascade.cli.console import printable, stderr
from cascade.cli.options import Folder

app = typer.Typer(help="Inspect a labeled data set, and split it by patient.", no_args_is_help=True)


@app.command("inspect", no_args_is_help=True)
def data_inspect(
    folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False
) -> None:
    """Count slices by class, patient and size, and list the files that cannot be used.

    Exit code: 0 all files can be used, 2 some cannot.

    Example: [bold]cascade data inspect figshare/[/]
    """
    from cascade.cli.data_output import inspection_table
    from cascade.datasets.summary import inspect_folder

    inspection = inspect_folder(folder)
    if as_json:
        print(json.dumps(asdict(inspection), indent=1))
    else:
        stderr().print(inspection_table(inspection))
    raise typer.Exit(2 if inspection.broken else 0)


@app.command("split", no_args_is_help=True)
def data_split(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Split file to write; an existing one is never replaced.",
            show_default="split.json in the folder",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random split.")] = 0,
    all_train: Annotated[
        bool, typer.Option("--train-on-all", help="Assign all patients to the training subset, for final models.")
    ] = False,
) -> None:
    """Assign each patient to the training, validation or test subset.

    Example: [bold]cascade data split figshare/[/]
    """
    from cascade.cli.data_output import split_table
    from cascade.datasets.split import check_is_new, make_split, write_split

    path = out or folder / "split.json"
    check_is_new(path)
    split, problems = make_split(folder, seed, all_train=all_train)
    write_split(split, path, seed)
    console = stderr()
    console.print(split_table(split, path))
    console.print(
        Group(*(Text(printable(f"left out: {problem}"), style="red") for problem in problems)), soft_wrap=True
    )
