"""Galleries of slices with true and predicted outline: the best, the median and the worst by Dice."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cascade.colors import VERMILLION, YELLOW, hex_color
from cascade.datasets.figshare import LabeledSlice
from cascade.datasets.reader import read_labeled
from cascade.evaluation.figures import png
from cascade.evaluation.metrics import BoolArray
from cascade.evaluation.scores import ScoredSlice
from cascade.io.slices import Slice
from cascade.pipeline import Cascade

COUNT = 6
"""Number of slices in a gallery."""

TRUE_COLOR, PREDICTED_COLOR = hex_color(YELLOW), hex_color(VERMILLION)
"""Colors of the outlines; none of them is the color of a class."""


def choose(scored: Sequence[ScoredSlice]) -> dict[str, list[ScoredSlice]]:
    """Choose COUNT slices each for the galleries `best`, `median` and `worst`; they overlap if there are few slices."""
    ordered = sorted(scored, key=lambda item: (item.dice, item.info.path))
    middle = max(0, (len(ordered) - COUNT) // 2)
    return {
        "best": ordered[::-1][:COUNT],
        "median": ordered[middle : middle + COUNT],
        "worst": ordered[:COUNT],
    }


def gallery(name: str, some: Sequence[ScoredSlice], folder: Path, cascade: Cascade) -> bytes:
    """Draw up to COUNT slices as PNG. They are read and segmented again, since keeping all masks takes much memory.

    Args:
        name: Name of the gallery, for the title.
        some: The slices.
        folder: Folder of the data set.
        cascade: Segments the slices.
    """
    figure = Figure(figsize=(10.5, 8), layout="constrained")
    figure.suptitle(f"The {name} {len(some)} by Dice", fontsize=14)
    panels = figure.subplots(2, 3).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, item in zip(panels, some, strict=False):
        labeled = read_labeled(folder, item.info)
        mask = cascade.predict(Slice(labeled.pixels, labeled.spacing_mm)).mask
        draw_slice(axes, item, labeled, mask)
    lines = [
        Line2D([], [], label="true outline", color=TRUE_COLOR),
        Line2D([], [], label="predicted outline", color=PREDICTED_COLOR, linestyle="dashed"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    return png(figure)


def draw_slice(axes: Axes, item: ScoredSlice, labeled: LabeledSlice, mask: BoolArray) -> None:
    """Draw a slice, with file name, Dice, true and predicted class above it.

    Folder names are left out, since they may identify patients.

    Args:
        axes: Axes to draw into.
        item: Scores of the slice.
        labeled: The slice.
        mask: (H, W), predicted mask.
    """
    low, high = np.percentile(labeled.pixels, [1, 99.5])
    axes.imshow(labeled.pixels, cmap="gray", vmin=low, vmax=high)
    for outlined, color, style in ((labeled.mask, TRUE_COLOR, "solid"), (mask, PREDICTED_COLOR, "dashed")):
        if outlined.any():
            rows, columns = (np.arange(-1, side + 1) for side in outlined.shape)
            padded = np.pad(outlined, 1)  # closes the outline of a mask at the edge of the slice
            axes.contour(columns, rows, padded, levels=[0.5], colors=color, linestyles=style, linewidths=1.3)
    name = PurePosixPath(item.info.path).name.encode(errors="backslashreplace").decode()
    classes = f"{item.info.label} → {item.predicted_label('predicted_mask')}"
    axes.set_title(f"{name}   Dice {item.dice:.3f}\n{classes}", fontsize=10, parse_math=False)
