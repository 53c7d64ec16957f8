"""The charts of an evaluation, each the bytes of a PNG; its colours, Okabe & Ito's, differ to any colour vision."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cascade.contract import CLASS_NAMES
from cascade.evaluation.scores import ScoredSlice
from cascade.evaluation.summary import SIZES, size_of

CLASS_COLOURS = dict(zip(CLASS_NAMES, ("#0072B2", "#D55E00", "#009E73"), strict=True))  # blue, vermillion, bluish green
GREY = "#666666"
DPI = 150

ACCURACIES = {
    "true_mask": "true mask",
    "predicted_mask": "predicted mask",
    "whole_slice": "whole slice",
    "by_patient": "predicted mask, by patient",
}
"""The keys below `accuracy` in metrics.json, as a person reads them."""


def charts(metrics: dict[str, Any], scored: Sequence[ScoredSlice]) -> dict[str, bytes]:
    """File name → PNG."""
    drawn = {
        "confusion_matrix.png": confusion_matrix(metrics),
        "accuracy.png": accuracies(metrics),
        "dice.png": dice(metrics, scored),
        "reliability.png": reliability(metrics),
    }
    return drawn | ({"presence.png": presence(metrics["presence"])} if metrics["presence"] else {})


def number(value: float | None, digits: int = 3) -> str:
    """`-` for a number that is not defined."""
    return "-" if value is None else f"{value:.{digits}f}"


def png(figure: Figure) -> bytes:
    """The figure, drawn without a display."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def confusion_matrix(metrics: dict[str, Any]) -> bytes:
    """By slice and by patient: counts, and in colour their share of the true class."""
    matrix = metrics["confusion_matrix"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, unit in zip(panels, ("slices", "patients"), strict=True):
        counts = np.array(matrix[unit])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.55 else "black"
            text = f"{count}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=12)
        axes.set_xticks(range(len(matrix["columns"])), [name.replace(" ", "\n") for name in matrix["columns"]])
        axes.set_yticks(range(len(matrix["rows"])), [name.replace(" ", "\n") for name in matrix["rows"]])
        axes.set(title=f"{counts.sum()} {unit}", xlabel="given class")
    panels[0].set_ylabel("true class")
    figure.colorbar(image, ax=panels, label="share of the true class", shrink=0.8)
    return png(figure)


def accuracies(metrics: dict[str, Any]) -> bytes:
    """Accuracy under each crop and by patient, with its interval: the step between two bars is what a stage costs."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for place, (key, name) in enumerate(ACCURACIES.items()):
        value, bounds = metrics["accuracy"][key]["value"], metrics["accuracy"][key]["ci95"]
        axes.barh(place, value, color="#56B4E9" if key != "predicted_mask" else "#0072B2", height=0.62)
        if bounds:
            axes.plot(bounds, [place, place], color="black", linewidth=1.5, marker="|", markersize=9)
        axes.text(0.012, place, f"{name}   {number(value)}", va="center", color="black", fontsize=11, bbox=LABEL)
    axes.set(xlim=(0, 1), xlabel="accuracy; the line is its 95 % interval", yticks=[])
    axes.invert_yaxis()
    _plain(axes)
    return png(figure)


def dice(metrics: dict[str, Any], scored: Sequence[ScoredSlice]) -> bytes:
    """By class and by tumor size: a dot a slice, a box over the quartiles, its line the median, a diamond the mean."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    by_class = {name: [item for item in scored if item.record.label == name] for name in CLASS_NAMES}
    _dice_boxes(left, by_class, metrics["by_class"])
    left.set(ylabel="Dice", ylim=(-0.03, 1.03), title="by class")
    by_size = {name: [item for item in scored if size_of(item) == name] for name in SIZES}
    _dice_boxes(right, by_size, metrics["by_size"])
    right.set(title=f"by tumor diameter, cut at {SIZES['medium'][0]} and {SIZES['medium'][1]} pixels")
    dots = [
        Line2D([], [], label=name, color=colour, marker="o", linestyle="") for name, colour in CLASS_COLOURS.items()
    ]
    figure.legend(handles=dots, loc="outside lower center", ncols=len(dots), frameon=False)
    return png(figure)


def _dice_boxes(axes: Axes, groups: dict[str, list[ScoredSlice]], figures: dict[str, Any]) -> None:
    random = np.random.default_rng(0)  # spreads the dots sideways, the same way each time
    for place, items in enumerate(groups.values()):
        values = [item.dice for item in items]
        if not values:
            continue
        colours = [CLASS_COLOURS[item.record.label] for item in items]
        axes.scatter(place + random.uniform(-0.3, 0.3, len(values)), values, s=14, c=colours, alpha=0.6, linewidths=0)
        axes.boxplot(values, positions=[place], widths=0.66, showfliers=False, whis=(5, 95), medianprops=LINE)
        axes.plot(place, np.mean(values), marker="D", color="white", markeredgecolor="black", markersize=7)
    means = {name: number(figures[name]["dice"]["mean"]) for name in groups}
    axes.set_xticks(range(len(groups)), [f"{name}\n{len(groups[name])} slices\nmean {means[name]}" for name in groups])
    axes.set_xlim(-0.6, len(groups) - 0.4)
    _plain(axes)


def reliability(metrics: dict[str, Any]) -> bytes:
    """Accuracy against the stated probability, and how many slices state it."""
    curve = metrics["reliability"]
    counts = np.array(curve["slices"])
    figure = Figure(figsize=(5.6, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="stated = true")
    confidence = [value for value in curve["confidence"] if value is not None]
    share_right = [value for value in curve["accuracy"] if value is not None]
    above.plot(confidence, share_right, color="#0072B2", marker="o", label="the cascade")
    error = number(curve["expected_calibration_error"])
    above.set(ylabel="share of right classes", ylim=(-0.02, 1.02), title=f"expected calibration error {error}")
    above.legend(loc="upper left", frameon=False)
    edges = np.linspace(0, 1, len(counts) + 1)
    below.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color="#56B4E9", edgecolor="white")
    below.set(xlabel="probability of the given class", ylabel="slices", xlim=(0, 1))
    for axes in (above, below):
        _plain(axes)
    return png(figure)


def presence(figures: dict[str, Any]) -> bytes:
    """Tumors found against false alarms, for every threshold; the cascade's own is marked."""
    curve = figures["curve"]
    figure = Figure(figsize=(5.6, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, *curve["false_alarms"]], [0, *curve["sensitivity"]], color="#0072B2")
    axes.plot(
        figures["false_alarms"], figures["sensitivity"], color="#D55E00", marker="o", linestyle="", label="as it is"
    )
    at = figures["at_sensitivity"]
    label = f"{at['least']:.0%} of the tumors, threshold {number(at['threshold'])}"
    axes.plot(at["false_alarms"], at["sensitivity"], color="#009E73", marker="D", linestyle="", label=label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="tumor-free slices in which a tumor is seen")
    axes.set(ylabel="tumors found", title=f"area under the curve {number(figures['auc'])}")
    axes.legend(loc="lower right", frameon=False)
    _plain(axes)
    return png(figure)


LINE = {"color": "black", "linewidth": 1.4}
LABEL = {"boxstyle": "round", "facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.25}


def _plain(axes: Axes) -> None:
    """No frame where there is no axis, and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
