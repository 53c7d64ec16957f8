"""The command `cascade evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.console import stderr
from cascade.cli.options import BackendName, BatchSize, Device, Engines, Folder, Models
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS
from cascade.runtime.select import AUTO


def evaluate(
    folder: Folder,
    split_file: Annotated[
        Path | None, typer.Option("--split", help="Split file that `cascade data split` wrote.", show_default=False)
    ] = None,
    subset: Annotated[
        str | None,
        typer.Option("--subset", help="Subset of the split: train, validation or test.", show_default="test"),
    ] = None,
    no_split: Annotated[bool, typer.Option("--no-split", help="Evaluate all slices or volumes of the folder.")] = False,
    negatives: Annotated[
        Path | None,
        typer.Option("--negatives", help="Folder of slices without a tumor, for false positives.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for metrics, table and figures. Replaces an earlier evaluation.")
    ] = Path("evaluation"),
    models: Models = BUNDLED_MODELS,
    backend: BackendName = AUTO,
    engines: Engines = None,
    device: Device = None,
    batch_size: BatchSize = 8,
) -> None:
    """Measure the accuracy of masks and classes on a labeled data set.

    Use --no-split for data of your own, or --split for the subset that models of your own did not learn from.
    A data set of volumes is evaluated by volume. Exit code: 0 all slices or volumes were used, 1 none, 2 some.

    Example: [bold]cascade evaluate my-hospital/ --no-split[/]
    """
    if no_split == (split_file is not None):
        raise CascadeError("either a split file or --no-split is needed", fix="use --split FILE or --no-split")
    if no_split and subset:
        raise CascadeError("--subset selects a part of a split", fix="use --split FILE instead of --no-split")
    from cascade.cli.evaluate_output import evaluation_table, volume_evaluation_table
    from cascade.datasets.volumes import lists_volumes
    from cascade.evaluation.evaluate import evaluate as run_evaluation

    if no_split and lists_volumes(folder):  # a split lists slices
        from cascade.evaluation.evaluate_volumes import evaluate_volumes
        from cascade.pipeline import Cascade

        if negatives:
            raise CascadeError(
                f"{folder}: lists volumes, but --negatives adds slices only",
                fix="list the heads without a tumor in the table, with the label none",
            )
        by_volume = evaluate_volumes(folder, Cascade.open(models, backend, engines, device=device), out)
        stderr().print(volume_evaluation_table(by_volume))
        raise typer.Exit(2 if by_volume.failed.volumes else 0)
    evaluation = run_evaluation(
        folder,
        split_file=split_file,
        subset=subset or "test",
        negatives=negatives,
        models=models,
        backend=backend,
        engines=engines,
        device=device,
        batch_size=batch_size,
        out=out,
    )
    stderr().print(evaluation_table(evaluation))
    raise typer.Exit(2 if evaluation.failed.slices else 0)
