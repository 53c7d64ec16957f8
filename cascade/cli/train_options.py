"""Options that the commands `cascade train ...` share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Checkpoint(StrEnum):
    """Which checkpoint of a run to export."""

    best = "best"
    last = "last"


Exported = Annotated[
    Checkpoint, typer.Option("--checkpoint", metavar="EPOCH", help="Epoch to export: `best` or `last`.")
]
SplitFile = Annotated[
    Path, typer.Option("--split", help="Split file written by `cascade data split`.", show_default=False)
]
External = Annotated[
    list[Path] | None,
    typer.Option(
        "--external",
        metavar="PATH",
        help="Also train on the slices of an index CSV. Repeatable.",
        show_default=False,
    ),
]
Measured = Annotated[
    list[Path] | None,
    typer.Option(
        "--external",
        help="Index CSV: the record states how often a tumor is seen on its validation slices. Repeatable.",
        show_default=False,
    ),
]
Negatives = Annotated[
    list[Path] | None,
    typer.Option(
        "--negatives",
        metavar="PATH",
        help="Also train on a folder of tumor-free slices. Repeatable.",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
Epochs = Annotated[
    int | None, typer.Option("--epochs", metavar="N", min=1, help="Number of epochs.", show_default=False)
]
EpochSlices = Annotated[
    int | None,
    typer.Option(
        "--epoch-slices", metavar="N", min=1, help="Slices drawn per epoch.", show_default="as many as there are"
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", min=1, help="Slices per step.", show_default=False)
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate", metavar="X", min=0, help="Highest learning rate of the schedule.", show_default=False
    ),
]
DetectionWeight = Annotated[
    float | None,
    typer.Option("--detection-weight", metavar="X", min=0, help="Weight of detection loss.", show_default="0.5"),
]
DetectionOnly = Annotated[
    bool, typer.Option("--detection-only", help="Train only the detection, and leave the outlines as they are.")
]
START = "Weights to start from: `imagenet`, `none`, a checkpoint or an exported .onnx."
Weights = Annotated[str | None, typer.Option("--weights", help=START, show_default="imagenet")]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", min=0, help="Seed of all random numbers.", show_default="0")
]
Devices = Annotated[
    int | None, typer.Option("--devices", metavar="N", min=0, help="Number of GPUs; 0 uses all.", show_default="0")
]
SegmenterEpochs = Annotated[
    int | None,
    typer.Option(
        "--segmenter-epochs", metavar="N", min=1, help="Epochs of the segmenter's training.", show_default=False
    ),
]
ClassifierEpochs = Annotated[
    int | None,
    typer.Option(
        "--classifier-epochs", metavar="N", min=1, help="Epochs of the classifier's training.", show_default=False
    ),
]
SegmenterWeights = Annotated[
    str | None,
    typer.Option(
        "--segmenter-weights", metavar="PATH", help="Weights the segmenter starts from.", show_default="imagenet"
    ),
]
ClassifierWeights = Annotated[
    str | None,
    typer.Option(
        "--classifier-weights", metavar="PATH", help="Weights the classifier starts from.", show_default="imagenet"
    ),
]
LimitBatches = Annotated[
    int | None,
    typer.Option(
        "--limit-batches", metavar="N", min=1, help="Batches per epoch, to try things out.", show_default=False
    ),
]
