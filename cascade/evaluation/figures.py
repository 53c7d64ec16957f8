"""Charts of an evaluation, as PNG files."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cascade.colors import BLUE, CLASS_COLORS, GREEN, SKY_BLUE, VERMILLION, hex_color
from cascade.contract import CLASS_NAMES, PIXEL_MM
from cascade.evaluation.schema import Detection, MaskMetrics, Metrics
from cascade.evaluation.scores import ScoredSlice
from cascade.evaluation.summary import SIZES, size_of

GRAY = "#666666"
DPI = 150
MEDIAN_LINE = {"color": "black", "linewidth": 1.4}
LABEL_BOX = {"boxstyle": "round", "facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.25}

ACCURACIES = {
    "true_mask": "true mask",
    "predicted_mask": "predicted mask",
    "whole_slice": "whole slice",
    "by_subject": "predicted mask, by subject",
}
"""Label for each key of `Metrics.accuracy`."""


def charts(metrics: Metrics, scored: Sequence[ScoredSlice], detection: Detection | None = None) -> dict[str, bytes]:
    """Draw all charts.

    Args:
        metrics: Metrics of `scored`.
        scored: At least one slice.
        detection: Detection of tumors, if there are negatives.

    Returns:
        PNG files by name.
    """
    files = {
        "confusion_matrix.png": confusion_matrix(metrics),
        "accuracy.png": accuracies(metrics),
        "dice.png": dice(metrics, scored),
        "reliability.png": reliability(metrics),
    }
    if detection:
        files["detection.png"] = roc_curve(detection)
    return files


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a number with a fixed number of decimals, and None as `-`."""
    return "-" if value is None else f"{value:.{digits}f}"


def png(figure: Figure) -> bytes:
    """Encode a figure as PNG, without a display."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def confusion_matrix(metrics: Metrics) -> bytes:
    """Draw the confusion matrices of slices and of subjects: counts, and as color the fraction of the true class."""
    matrix = metrics.confusion_matrix
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, unit, counts in zip(
        panels, ("slices", "subjects"), map(np.array, (matrix.slices, matrix.subjects)), strict=True
    ):
        fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if fractions[row, column] > 0.55 else "black"
            text = f"{count}\n{fractions[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=12)
        axes.set_xticks(range(len(matrix.columns)), [name.replace(" ", "\n") for name in matrix.columns])
        axes.set_yticks(range(len(matrix.rows)), [name.replace(" ", "\n") for name in matrix.rows])
        axes.set(title=f"{counts.sum()} {unit}", xlabel="predicted class")
    panels[0].set_ylabel("true class")
    figure.colorbar(image, ax=panels, label="fraction of the true class", shrink=0.8)
    return png(figure)


def accuracies(metrics: Metrics) -> bytes:
    """Draw the accuracy with each crop and by subject; differences between bars show what each stage costs."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for place, (key, label) in enumerate(ACCURACIES.items()):
        estimate = metrics.accuracy[key]
        color = BLUE if key == "predicted_mask" else SKY_BLUE
        if estimate.value is not None:
            axes.barh(place, estimate.value, color=hex_color(color), height=0.62)
        if estimate.ci95:
            axes.plot(estimate.ci95, [place, place], color="black", linewidth=1.5, marker="|", markersize=9)
        text = f"{label}   {format_number(estimate.value)}"
        axes.text(0.012, place, text, va="center", color="black", fontsize=11, bbox=LABEL_BOX)
    axes.set(xlim=(0, 1), xlabel="accuracy with 95 % confidence interval", yticks=[])
    axes.invert_yaxis()
    _simplify(axes)
    return png(figure)


def dice(metrics: Metrics, scored: Sequence[ScoredSlice]) -> bytes:
    """Draw Dice by class and by tumor size: a dot for each slice, a box for the quartiles, a diamond for the mean."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    by_class = {name: [item for item in scored if item.info.label == name] for name in CLASS_NAMES}
    _dice_boxes(left, by_class, metrics.by_class)
    left.set(ylabel="Dice", ylim=(-0.03, 1.03), title="by class")
    by_size = {name: [item for item in scored if size_of(item) == name] for name in SIZES}
    _dice_boxes(right, by_size, metrics.by_size)
    right.set(
        title=f"by tumor diameter, divided at {SIZES['medium'][0]} and {SIZES['medium'][1]} pixels of {PIXEL_MM} mm"
    )
    dots = [
        Line2D([], [], label=name, color=hex_color(color), marker="o", linestyle="")
        for name, color in CLASS_COLORS.items()
    ]
    figure.legend(handles=dots, loc="outside lower center", ncols=len(dots), frameon=False)
    return png(figure)


def _dice_boxes(axes: Axes, groups: dict[str, list[ScoredSlice]], metrics: Mapping[str, MaskMetrics]) -> None:
    random = np.random.default_rng(0)  # the same horizontal jitter each time
    for place, items in enumerate(groups.values()):
        values = [item.dice for item in items]
        if not values:
            continue
        jitter = random.uniform(-0.3, 0.3, len(values))
        colors = [hex_color(CLASS_COLORS[item.info.label]) for item in items]
        axes.scatter(place + jitter, values, s=14, c=colors, alpha=0.6, linewidths=0)
        axes.boxplot(values, positions=[place], widths=0.66, showfliers=False, whis=(5, 95), medianprops=MEDIAN_LINE)
        axes.plot(place, np.mean(values), marker="D", color="white", markeredgecolor="black", markersize=7)
    axes.set_xticks(
        range(len(groups)),
        [
            f"{name}\n{len(items)} slices\nmean {format_number(metrics[name].dice.mean)}"
            for name, items in groups.items()
        ],
    )
    axes.set_xlim(-0.6, len(groups) - 0.4)
    _simplify(axes)


def reliability(metrics: Metrics) -> bytes:
    """Draw accuracy against the predicted probability, and the number of slices by probability."""
    curve = metrics.reliability
    counts = np.array(curve.slices)
    figure = Figure(figsize=(5.6, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    above.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1, label="perfect calibration")
    confidence = [value for value in curve.confidence if value is not None]
    accuracy = [value for value in curve.accuracy if value is not None]
    above.plot(confidence, accuracy, color=hex_color(BLUE), marker="o", label="classifier")
    error = format_number(curve.expected_calibration_error)
    above.set(ylabel="accuracy", ylim=(-0.02, 1.02), title=f"expected calibration error {error}")
    above.legend(loc="upper left", frameon=False)
    edges = np.linspace(0, 1, len(counts) + 1)
    below.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=hex_color(SKY_BLUE), edgecolor="white")
    below.set(xlabel="probability of the predicted class", ylabel="slices", xlim=(0, 1))
    for axes in (above, below):
        _simplify(axes)
    return png(figure)


def roc_curve(detection: Detection) -> bytes:
    """Draw the ROC curve of tumor detection, with the model's threshold and the operating point."""
    curve, point = detection.curve, detection.operating_point
    figure = Figure(figsize=(5.6, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, *curve.false_positive_rate], [0, *curve.sensitivity], color=hex_color(BLUE))
    axes.plot(
        detection.false_positive_rate,
        detection.sensitivity,
        color=hex_color(VERMILLION),
        marker="o",
        linestyle="",
        label="default threshold",
    )
    axes.plot(
        point.false_positive_rate,
        point.sensitivity,
        color=hex_color(GREEN),
        marker="D",
        linestyle="",
        label=f"sensitivity of at least {point.min_sensitivity:.0%}, threshold {format_number(point.threshold)}",
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false-positive rate on negatives", ylabel="sensitivity")
    axes.set(title=f"area under the curve {format_number(detection.auc)}")
    axes.legend(loc="lower right", frameon=False)
    _simplify(axes)
    return png(figure)


def _simplify(axes: Axes) -> None:
    """Remove the frame where there is no axis, and add a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
