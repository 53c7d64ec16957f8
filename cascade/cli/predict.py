"""The command `cascade predict`; what it calls is imported when it runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from cascade.cli.console import stderr
from cascade.cli.options import BackendName, BatchSize, Engines, Models
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS
from cascade.runtime.select import AUTO

TAKE, LEAVE, SAY = "What to take", "What to leave", "What to say"


def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Slices, volumes, folders, zips, patterns; - for a list on stdin.", show_default=False),
    ],
    recursive: Annotated[
        bool, typer.Option(help="Folders in folders.", show_default=False, rich_help_panel=TAKE)
    ] = True,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Only such names: 'T1*'.", rich_help_panel=TAKE),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Not such names.", rich_help_panel=TAKE),
    ] = None,
    axis: Annotated[
        int | None,
        typer.Option(
            "--axis",
            min=0,
            max=2,
            metavar="0|1|2",
            help="A NIfTI's, across slices.",
            show_default=False,
            rich_help_panel=TAKE,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List all, do nothing.", rich_help_panel=TAKE)] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.", rich_help_panel=LEAVE)] = Path(
        "results"
    ),
    overlays: Annotated[
        bool, typer.Option(help="Draw what is found.", show_default=False, rich_help_panel=LEAVE)
    ] = True,
    report: Annotated[bool, typer.Option(help="Make report.html.", show_default=False, rich_help_panel=LEAVE)] = True,
    keep_identifiers: Annotated[
        bool, typer.Option("--keep-identifiers", help="Of patients, in DICOM masks.", rich_help_panel=LEAVE)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results in --out.", rich_help_panel=LEAVE)
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out.", rich_help_panel=LEAVE)
    ] = False,
    models: Models = BUNDLED_MODELS,
    backend: BackendName = AUTO,
    engines: Engines = None,
    batch_size: BatchSize = 8,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.", rich_help_panel=SAY)] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Notes on single inputs too.", rich_help_panel=SAY)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="results.json on stdout.", rich_help_panel=SAY)] = False,
) -> None:
    """Outline the tumor in MRI slices and name it. Research only.

    Reads PNG, JPEG, TIFF, BMP, WebP, .mat, DICOM, NIfTI and zips of them.
    Exit code: 0 all done, 1 nothing done, 2 some failed, 130 interrupted.

    Example: [bold]cascade predict scans/ --out results[/]
    """
    from cascade.cli.predict_output import backend_line, dry_run_table, failures, progress_bar, run_report
    from cascade.discovery.inputs import read_list
    from cascade.prediction.results import claim
    from cascade.prediction.run import RunOptions, found_inputs, predict_paths

    if overwrite and resume:
        raise CascadeError("--overwrite and --resume exclude each other", fix="give one of them")
    console = stderr()
    given = [path for item in paths for path in (read_list(sys.stdin.buffer) if str(item) == "-" else [item])]
    options = RunOptions(
        batch_size=batch_size,
        axis=axis,
        recursive=recursive,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        overlays=overlays,
        report=report,
        keep_identifiers=keep_identifiers,
        overwrite=overwrite,
        resume=resume,
    )
    if dry_run:
        with found_inputs(given, out, options) as inputs:
            console.print(dry_run_table(inputs, options), soft_wrap=True)
        claim(out, overwrite=overwrite, resume=resume)
        return
    with progress_bar(console, quiet=quiet) as progress:
        task = progress.add_task("Loading the models", total=None)
        from cascade.pipeline import Cascade

        cascade = Cascade.open(models, backend, engines)
        if not quiet:
            progress.console.print(backend_line(cascade), soft_wrap=True)
        progress.update(task, description="Looking at the files")
        run = predict_paths(
            cascade,
            given,
            out,
            options,
            begin=lambda count: progress.update(task, description="Predicting", total=count),
            advance=lambda count: progress.advance(task, count),
        )
    console.print(Group(*failures(run)) if quiet else run_report(run, out, options, verbose=verbose), soft_wrap=True)
    if as_json:
        print((out / "results.json").read_text())
    raise typer.Exit(run.exit_code)
