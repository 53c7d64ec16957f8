"""Slices with the expert's and the segmenter's outline: the best, the median and the worst six by Dice."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cascade.datasets.figshare import LabeledSlice
from cascade.datasets.reader import read_labeled
from cascade.evaluation.figures import png
from cascade.evaluation.metrics import BoolArray
from cascade.evaluation.scores import ScoredSlice
from cascade.io.slices import Slice
from cascade.pipeline import Cascade

SHOWN = 6
TRUE_COLOUR, PREDICTED_COLOUR = "#56B4E9", "#E69F00"  # blue and orange differ to any colour vision


def choose(scored: Sequence[ScoredSlice]) -> dict[str, list[ScoredSlice]]:
    """`best`, `median` and `worst` SHOWN slices, each in the order of their Dice; they overlap where there are few."""
    ordered = sorted(scored, key=lambda item: (item.dice, item.record.path))
    middle = max(0, (len(ordered) - SHOWN) // 2)
    return {
        "best": ordered[::-1][:SHOWN],
        "median": ordered[middle : middle + SHOWN],
        "worst": ordered[:SHOWN],
    }


def gallery(name: str, some: Sequence[ScoredSlice], folder: Path, cascade: Cascade) -> bytes:
    """A PNG of up to SHOWN slices, read and segmented again: keeping every mask would not fit in memory."""
    figure = Figure(figsize=(10.5, 8), layout="constrained")
    figure.suptitle(f"The {name} {len(some)} by Dice", fontsize=14)
    panels = figure.subplots(2, 3).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, item in zip(panels, some, strict=False):
        labelled = read_labeled(folder, item.record)
        mask = cascade.predict(Slice(labelled.pixels, labelled.spacing_mm)).mask
        show(axes, item, labelled, mask)
    lines = [
        Line2D([], [], label="true outline", color=TRUE_COLOUR),
        Line2D([], [], label="predicted outline", color=PREDICTED_COLOUR, linestyle="dashed"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    return png(figure)


def show(axes: Axes, item: ScoredSlice, labelled: LabeledSlice, mask: BoolArray) -> None:
    """One slice; above it its file's name, Dice, true and given class. No folders: they may name patients."""
    low, high = np.percentile(labelled.pixels, [1, 99.5])
    axes.imshow(labelled.pixels, cmap="gray", vmin=low, vmax=high)
    for outlined, colour, style in ((labelled.mask, TRUE_COLOUR, "solid"), (mask, PREDICTED_COLOUR, "dashed")):
        if outlined.any():
            rows, columns = (np.arange(-1, side + 1) for side in outlined.shape)
            padded = np.pad(outlined, 1)  # closes the outline of a mask that reaches the edge
            axes.contour(columns, rows, padded, levels=[0.5], colors=colour, linestyles=style, linewidths=1.3)
    name = PurePosixPath(item.record.path).name
    axes.set_title(f"{name}   Dice {item.dice:.3f}\n{item.record.label} → {item.given('predicted_mask')}", fontsize=10)
