"""The commands `cascade train ...`. Each imports torch and the package `train` only when it runs."""

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from cascade.cli.console import stderr
from cascade.cli.options import Folder
from cascade.cli.train_options import (
    BatchSize,
    Checkpoint,
    ClassifierEpochs,
    ClassifierWeights,
    DetectionOnly,
    DetectionWeight,
    Devices,
    Epochs,
    EpochSlices,
    Exported,
    External,
    LearningRate,
    LimitBatches,
    Measured,
    Negatives,
    Resume,
    Seed,
    SegmenterEpochs,
    SegmenterWeights,
    SplitFile,
    Weights,
)
from cascade.cli.train_package import train_packages
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from train.external import ExternalSlice
    from train.pipeline import PipelineSettings

T = TypeVar("T", bound="DataclassInstance")


app = typer.Typer(help="Train the two models and export them.", no_args_is_help=True)


@app.command("segmenter", no_args_is_help=True)
def train_segmenter(
    context: typer.Context,
    folder: Folder,
    split_file: SplitFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for the run.")] = Path("runs/segmenter"),
    external: External = None,
    negatives: Negatives = None,
    resume: Resume = False,
    epochs: Epochs = None,
    epoch_slices: EpochSlices = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    detection: DetectionWeight = None,
    detection_only: DetectionOnly = False,
    weights: Weights = None,
    seed: Seed = None,
    devices: Devices = None,
    limit_batches: LimitBatches = None,
) -> None:
    """Train the U-Net that segments the tumor.

    Example: [bold]cascade train segmenter figshare/ --split figshare/split.json --negatives healthy/[/]
    """
    with train_packages():
        from train.segmenter import SegmenterSettings
        from train.segmenter import train_segmenter as run_training

    settings = _settings(SegmenterSettings, context)
    run_training(folder, split_file, out, settings, external=_external(external, negatives), resume=resume)


@app.command("classifier", no_args_is_help=True)
def train_classifier(
    context: typer.Context,
    folder: Folder,
    split_file: SplitFile,
    models: Annotated[
        Path,
        typer.Option(
            "--models", help="Folder with the segmenter that predicts the masks.", show_default="the bundled models"
        ),
    ] = BUNDLED_MODELS,
    out: Annotated[Path, typer.Option("--out", help="Folder for the run.")] = Path("runs/classifier"),
    external: External = None,
    negatives: Negatives = None,
    resume: Resume = False,
    epochs: Epochs = None,
    epoch_slices: EpochSlices = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weights: Weights = None,
    seed: Seed = None,
    devices: Devices = None,
    limit_batches: LimitBatches = None,
) -> None:
    """Train the classifier on the crops that the segmenter finds.

    Example: [bold]cascade train classifier figshare/ --split figshare/split.json --models models[/]
    """
    with train_packages():
        from train.classifier import ClassifierSettings
        from train.classifier import train_classifier as run_training

    settings = _settings(ClassifierSettings, context)
    run_training(folder, split_file, models, out, settings, external=_external(external, negatives), resume=resume)


@app.command("both", no_args_is_help=True)
def train_both(
    context: typer.Context,
    folder: Folder,
    split_file: SplitFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for all results.")] = Path("runs/both"),
    subset: Annotated[
        str, typer.Option("--subset", help="Subset of the split to evaluate: train, validation or test.")
    ] = "validation",
    external: External = None,
    negatives: Negatives = None,
    segmenter_epochs: SegmenterEpochs = None,
    classifier_epochs: ClassifierEpochs = None,
    segmenter_weights: SegmenterWeights = None,
    classifier_weights: ClassifierWeights = None,
    learning_rate: LearningRate = None,
    detection: DetectionWeight = None,
    detection_only: DetectionOnly = False,
    checkpoint: Exported = Checkpoint.best,
    limit_batches: LimitBatches = None,
) -> None:
    """Train both models, export them and evaluate them.

    Run the command again to continue. The test subset stays unused until you name it with --subset.

    Example: [bold]cascade train both figshare/ --split figshare/split.json --negatives healthy/[/]
    """
    with train_packages():
        from cascade.cli.evaluate_output import evaluation_table
        from cascade.datasets.split import SUBSETS
        from train.pipeline import prepare_pipeline, train_pipeline

    if subset not in SUBSETS:
        raise CascadeError(f"there is no subset {subset!r}", fix=f"choose one of {', '.join(SUBSETS)}")
    settings = _pipeline_settings(context, _external(external, negatives))
    prepare_pipeline(out, split_file, settings)
    result = train_pipeline(folder, split_file, out, settings, subset=subset, evaluation=out / f"evaluation-{subset}")
    stderr().print(evaluation_table(result))


@app.command("crossval", no_args_is_help=True)
def train_crossval(
    context: typer.Context,
    folder: Folder,
    split_file: SplitFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for all folds.")] = Path("runs/crossval"),
    folds: Annotated[int, typer.Option("--folds", min=2, metavar="N", help="Number of folds.")] = 5,
    keep_train: Annotated[
        bool, typer.Option("--keep-train", help="Train on the split's train subset in every fold.")
    ] = False,
    external: External = None,
    negatives: Negatives = None,
    segmenter_epochs: SegmenterEpochs = None,
    classifier_epochs: ClassifierEpochs = None,
    segmenter_weights: SegmenterWeights = None,
    classifier_weights: ClassifierWeights = None,
    learning_rate: LearningRate = None,
    detection: DetectionWeight = None,
    detection_only: DetectionOnly = False,
    checkpoint: Exported = Checkpoint.best,
    limit_batches: LimitBatches = None,
) -> None:
    """Train and test both models fold by fold, so that no subject is tested by models that saw it.

    Run the command again to continue. Weights to start from must come from subjects that are not
    tested: with --keep-train, from the train subset alone.

    Example: [bold]cascade train crossval figshare/ --split figshare/split.json --segmenter-epochs 10[/]
    """
    with train_packages():
        from train.crossval import crossval_table, crossvalidate

    settings = _pipeline_settings(context, _external(external, negatives))
    stderr().print(crossval_table(crossvalidate(folder, split_file, out, folds, settings, keep_train=keep_train)))


@app.command("export", no_args_is_help=True)
def train_export(
    name: Annotated[str, typer.Argument(help="segmenter or classifier.", show_default=False)],
    run: Annotated[
        Path, typer.Argument(help="Folder of a training run, or an .onnx to calibrate again.", show_default=False)
    ],
    folder: Folder,
    split_file: SplitFile,
    models: Annotated[Path, typer.Option("--models", help="Folder to write the model to.", show_default=False)],
    external: Measured = None,
    checkpoint: Exported = Checkpoint.best,
    average_with: Annotated[
        list[Path] | None,
        typer.Option(
            "--average-with",
            help="Export the mean of the weights of this and other checkpoints or .onnx files. Repeatable.",
            show_default=False,
        ),
    ] = None,
    thresholds_of: Annotated[
        list[Path] | None,
        typer.Option(
            "--thresholds-of",
            help="Take the mean thresholds of these folders of models, for a model that was trained on all subjects. "
            "Repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export a checkpoint as an ONNX graph, after comparing it with PyTorch.

    Example: [bold]cascade train export segmenter runs/segmenter figshare/ --split figshare/split.json --models new[/]
    """
    if name not in (SEGMENTER, CLASSIFIER):
        raise CascadeError(f"there is no model {name!r}", fix=f"give {SEGMENTER} or {CLASSIFIER}")
    with train_packages():
        from train.export import export_model

    record = export_model(
        name,
        run,
        folder,
        split_file,
        models,
        checkpoint=checkpoint.value,
        average_with=average_with or (),
        thresholds_of=thresholds_of or (),
        external=_external(external, None),
    )
    stderr().print(_record_table(record))


def _settings(kind: type[T], context: typer.Context) -> T:
    """Build settings from the options that were set; the others keep their defaults."""
    return _with(kind, {field.name: context.params.get(field.name) for field in fields(kind)})


def _pipeline_settings(context: typer.Context, external: "list[ExternalSlice]") -> "PipelineSettings":
    """Build the settings of both trainings from the options that were set."""
    from train.classifier import ClassifierSettings
    from train.pipeline import PipelineSettings
    from train.segmenter import SegmenterSettings

    options = context.params
    # On several devices each of their processes would run the whole pipeline.
    shared = {"devices": 1, **{name: options[name] for name in ("limit_batches", "learning_rate")}}
    segmenter = {name: options[f"segmenter_{name}"] for name in ("epochs", "weights")}
    segmenter |= {name: options[name] for name in ("detection", "detection_only")}
    classifier = {name: options[f"classifier_{name}"] for name in ("epochs", "weights")}
    return PipelineSettings(
        _with(SegmenterSettings, shared | segmenter),
        _with(ClassifierSettings, shared | classifier),
        tuple(external),
        options["checkpoint"].value,
    )


def _with(kind: type[T], values: dict[str, Any]) -> T:
    return kind(**{name: value for name, value in values.items() if value is not None})


def _external(external: list[Path] | None, negatives: list[Path] | None) -> "list[ExternalSlice]":
    """Read the indexes and folders of external slices."""
    from train.external import read_index, read_negatives

    names = Counter(path.name for path in negatives or ())
    return [
        *(item for path in external or () for item in read_index(path)),
        # The paths of folders with the same name are the names of their sets.
        *(
            item
            for path in negatives or ()
            for item in read_negatives(path, str(path) if names[path.name] > 1 else None)
        ),
    ]


def _record_table(record: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    for name, value in record.items():
        table.add_row(name, Text(str(value), overflow="fold"))
    return table
