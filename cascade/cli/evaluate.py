"""The command `cascade evaluate`; what it calls is imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.console import stderr
from cascade.cli.options import BackendName, BatchSize, Engines, Folder, Models
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS
from cascade.runtime.select import AUTO


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
    models: Models = BUNDLED_MODELS,
    backend: BackendName = AUTO,
    engines: Engines = None,
    batch_size: BatchSize = 8,
) -> None:
    """Measure masks and classes against a labelled data set.

    Give --split for slices that the models were not trained on, or --all for data they have never seen.

    Exit code: 0 all slices were used, 2 some could not be, 1 nothing could be done.

    Example: [bold]cascade evaluate figshare/ --split figshare/split.json[/]
    """
    if whole == (split_file is not None):
        raise CascadeError("either one part or the whole folder can be evaluated", fix="give --split FILE or --all")
    from cascade.cli.evaluate_output import evaluation_table
    from cascade.evaluation.evaluate import evaluate as run_evaluation

    evaluation = run_evaluation(
        folder,
        split_file=split_file,
        subset=part,
        negatives=tumor_free,
        models=models,
        backend=backend,
        engines=engines,
        batch_size=batch_size,
        out=out,
    )
    stderr().print(evaluation_table(evaluation))
    raise typer.Exit(2 if evaluation.failed.slices else 0)
