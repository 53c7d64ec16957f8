"""The commands `cascade train ...`; torch and all of train/ are imported when one of them runs."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from cascade.cli.console import stderr
from cascade.cli.options import Folder
from cascade.errors import CascadeError
from cascade.runtime.models import CLASSIFIER, SEGMENTER, SHIPPED

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from train.classifier import ClassifierSettings
    from train.segmenter import SegmenterSettings

T = TypeVar("T", bound="DataclassInstance")

app = typer.Typer(help="Train the two models and export them.", no_args_is_help=True)

SplitFile = Annotated[
    Path, typer.Option("--split", help="Split file that `cascade data split` wrote.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, show_default=False)]
TrainBatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, show_default=False)]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", min=0, show_default=False)]
START = "Start from `imagenet`, `none`, a file of weights or an exported .onnx, which must not know your test people."
Weights = Annotated[str | None, typer.Option("--weights", help=START, show_default="imagenet")]
Healthy = Annotated[
    Path | None, typer.Option("--healthy", help="Folder of slices of healthy heads.", show_default=False)
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, show_default="0")]
Devices = Annotated[int | None, typer.Option("--devices", min=0, help="GPUs to use; 0 takes all.", show_default="0")]
SegmenterEpochs = Annotated[int | None, typer.Option("--segmenter-epochs", min=1, show_default=False)]
ClassifierEpochs = Annotated[int | None, typer.Option("--classifier-epochs", min=1, show_default=False)]
SegmenterWeights = Annotated[str | None, typer.Option("--segmenter-weights", help=START, show_default="imagenet")]
ClassifierWeights = Annotated[str | None, typer.Option("--classifier-weights", help=START, show_default="imagenet")]
LimitBatches = Annotated[
    int | None, typer.Option("--limit-batches", min=1, help="Of each epoch, to try things out.", show_default=False)
]


@app.command("segmenter", no_args_is_help=True)
def train_segmenter(
    context: typer.Context,
    folder: Folder,
    split_file: SplitFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for the run.")] = Path("runs/segmenter"),
    healthy: Healthy = None,
    resume: Resume = False,
    epochs: Epochs = None,
    batch_size: TrainBatchSize = None,
    learning_rate: LearningRate = None,
    weights: Weights = None,
    seed: Seed = None,
    devices: Devices = None,
    limit_batches: LimitBatches = None,
) -> None:
    """Train the U-Net that outlines the tumor.

    Example: [bold]cascade train segmenter figshare/ --split figshare/split.json[/]
    """
    with _train_packages():
        from train.segmenter import SegmenterSettings
        from train.segmenter import train_segmenter as run_training

    run_training(folder, split_file, out, _settings(SegmenterSettings, context), healthy=healthy, resume=resume)


@app.command("classifier", no_args_is_help=True)
def train_classifier(
    context: typer.Context,
    folder: Folder,
    split_file: SplitFile,
    models: Annotated[
        Path,
        typer.Option("--models", help="Folder of the segmenter that draws the masks.", show_default="that shipped"),
    ] = SHIPPED,
    out: Annotated[Path, typer.Option("--out", help="Folder for the run.")] = Path("runs/classifier"),
    resume: Resume = False,
    epochs: Epochs = None,
    batch_size: TrainBatchSize = None,
    learning_rate: LearningRate = None,
    weights: Weights = None,
    seed: Seed = None,
    devices: Devices = None,
    limit_batches: LimitBatches = None,
) -> None:
    """Train what names the tumor, a ResNet-50 and the segmenter's encoder, on the crops that the segmenter finds.

    Example: [bold]cascade train classifier figshare/ --split figshare/split.json --models models[/]
    """
    with _train_packages():
        from train.classifier import ClassifierSettings
        from train.classifier import train_classifier as run_training

    run_training(folder, split_file, models, out, _settings(ClassifierSettings, context), resume=resume)


@app.command("both", no_args_is_help=True)
def train_both(
    folder: Folder,
    split_file: SplitFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for all of it; goes on in it.")] = Path("runs/both"),
    part: Annotated[str, typer.Option("--part", help="Of the split, to evaluate.")] = "validation",
    segmenter_epochs: SegmenterEpochs = None,
    classifier_epochs: ClassifierEpochs = None,
    segmenter_weights: SegmenterWeights = None,
    classifier_weights: ClassifierWeights = None,
    healthy: Healthy = None,
    limit_batches: LimitBatches = None,
) -> None:
    """Train both models, export them and evaluate them, all by one command.

    Called again, it goes on where it was ended. The test part stays closed until you name it with --part.

    Example: [bold]cascade train both figshare/ --split figshare/split.json --healthy heads/[/]
    """
    with _train_packages():
        from cascade.cli.evaluate_output import metrics_table
        from cascade.datasets.split import PARTS
        from train.both import begin_or_go_on
        from train.both import train_both as run_both

    settings = _both_settings(segmenter_epochs, segmenter_weights, classifier_epochs, classifier_weights, limit_batches)
    if part not in PARTS:
        raise CascadeError(f"there is no part {part!r}", fix=f"choose one of {', '.join(PARTS)}")
    begin_or_go_on(out, split_file, *settings, healthy)
    metrics = run_both(folder, split_file, out, *settings, healthy, part=part, evaluation=out / f"evaluation-{part}")
    stderr().print(metrics_table(metrics))


@app.command("crossval", no_args_is_help=True)
def train_crossval(
    folder: Folder,
    split_file: SplitFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for all folds; goes on in it.")] = Path("runs/crossval"),
    folds: Annotated[int, typer.Option("--folds", min=2)] = 5,
    segmenter_epochs: SegmenterEpochs = None,
    classifier_epochs: ClassifierEpochs = None,
    segmenter_weights: SegmenterWeights = None,
    classifier_weights: ClassifierWeights = None,
    healthy: Healthy = None,
    limit_batches: LimitBatches = None,
) -> None:
    """Train and test both models fold by fold, so that everyone is tested once by models that never saw them.

    As many trainings of each as there are folds. Called again, it goes on where it was ended.
    A file's weights must not come from people of this data set.

    Example: [bold]cascade train crossval figshare/ --split figshare/split.json --segmenter-epochs 10[/]
    """
    with _train_packages():
        from train.crossval import crossval_table, crossvalidate

    settings = _both_settings(segmenter_epochs, segmenter_weights, classifier_epochs, classifier_weights, limit_batches)
    figures = crossvalidate(folder, split_file, out, folds, *settings, healthy)
    stderr().print(crossval_table(figures))


@app.command("export", no_args_is_help=True)
def train_export(
    name: Annotated[str, typer.Argument(help="segmenter or classifier.", show_default=False)],
    run: Annotated[
        Path, typer.Argument(help="Folder of the training run, or an .onnx to calibrate anew.", show_default=False)
    ],
    folder: Folder,
    split_file: SplitFile,
    models: Annotated[Path, typer.Option("--models", help="Folder to write the model into.", show_default=False)],
    last: Annotated[bool, typer.Option("--last", help="The last epoch's weights, not the best one's.")] = False,
    mean_with: Annotated[
        list[Path] | None,
        typer.Option(
            "--mean-with", help="Another run's best.ckpt or last.ckpt, or an exported .onnx: export the mean."
        ),
    ] = None,
) -> None:
    """Turn a run's checkpoint into an ONNX graph that was seen to compute the same.

    Example: [bold]cascade train export segmenter runs/segmenter figshare/ --split figshare/split.json --models new[/]
    """
    if name not in (SEGMENTER, CLASSIFIER):
        raise CascadeError(f"there is no model {name!r}", fix=f"give {SEGMENTER} or {CLASSIFIER}")
    with _train_packages():
        from train.export import export_model

    record = export_model(name, run, folder, split_file, models, "last" if last else "best", mean_with or ())
    stderr().print(_record_table(record))


def _settings(kind: type[T], context: typer.Context) -> T:
    """The settings with what was given on the command line under their names; the rest as they are by default."""
    return _given(kind, {field.name: context.params.get(field.name) for field in fields(kind)})


def _both_settings(
    segmenter_epochs: int | None,
    segmenter_weights: str | None,
    classifier_epochs: int | None,
    classifier_weights: str | None,
    limit_batches: int | None,
) -> "tuple[SegmenterSettings, ClassifierSettings]":
    from train.classifier import ClassifierSettings
    from train.segmenter import SegmenterSettings

    # On several devices each of their processes would run all of it.
    given = {"limit_batches": limit_batches, "devices": 1}
    return (
        _given(SegmenterSettings, given | {"epochs": segmenter_epochs, "weights": segmenter_weights}),
        _given(ClassifierSettings, given | {"epochs": classifier_epochs, "weights": classifier_weights}),
    )


def _given(kind: type[T], values: dict[str, Any]) -> T:
    return kind(**{name: value for name, value in values.items() if value is not None})


@contextmanager
def _train_packages() -> Iterator[None]:
    _check_train_package()
    try:
        yield
    except ModuleNotFoundError as error:
        raise CascadeError(
            f"training needs the package {error.name}, which is not installed", fix="pip install 'cascade[train]'"
        ) from error


def _check_train_package() -> None:
    """Check, without importing it, that `train` is the package installed with cascade.

    Raises:
        CascadeError: Another module named `train` comes first on the module search path.
    """
    spec = importlib.util.find_spec("train")
    if spec is None:
        return  # importing it will report the reason
    installed = Path(__file__).resolve().parents[2] / "train"
    if installed not in [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]:
        raise CascadeError(
            f"{spec.origin or 'train'}: is not part of cascade, but hides its package `train`",
            fix="rename it, or remove its folder from PYTHONPATH",
        )


def _record_table(record: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    for name, value in record.items():
        table.add_row(name, Text(str(value), overflow="fold"))
    return table
