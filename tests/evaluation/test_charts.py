"""What the charts show: every value at its place, and nothing cut off by the limits of an axis."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from stub_evaluation import scored

from cascade.colors import BLUE, SKY_BLUE, hex_color
from cascade.contract import CLASS_NAMES
from cascade.evaluation import figures
from cascade.evaluation.schema import Detection, DetectionCurve, Estimate, OperatingPoint
from cascade.evaluation.summary import summarize

GLIOMA_FIRST, MENINGIOMA_FIRST, NOTHING = (0.2, 0.7, 0.1), (0.7, 0.2, 0.1), (0.0, 0.0, 0.0)


@pytest.fixture(autouse=True)
def figures_stay_open(monkeypatch):
    """A chart returns its figure instead of a PNG file."""
    monkeypatch.setattr(figures, "png", lambda figure: figure)


def axis_fits(limits):
    """True if an axis shows 0 to 1, with a margin of at most 5 %."""
    low, high = limits
    return -0.05 <= low <= 0 and 1 <= high <= 1.05


@pytest.fixture
def metrics():
    """Two meningiomas, one of them classified as glioma; a glioma that is right; a pituitary tumor without a mask."""
    probabilities = {0: MENINGIOMA_FIRST, 3: GLIOMA_FIRST, 1: GLIOMA_FIRST, 2: NOTHING}
    return summarize([scored(number, 0.5, rows) for number, rows in probabilities.items()])


def test_the_confusion_matrix_has_the_true_class_as_row_and_the_fraction_of_the_row_as_color(metrics):
    figure = figures.confusion_matrix(metrics)
    left, right = figure.axes[:2]
    for axes, unit in ((left, "slices"), (right, "subjects")):
        cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text for text in axes.texts}
        filled = {place: text.get_text() for place, text in cells.items() if not text.get_text().startswith("0")}
        assert filled == {(0, 0): "1\n50%", (0, 1): "1\n50%", (1, 1): "1\n100%", (2, 3): "1\n100%"}
        assert len(cells) == 3 * 4
        (image,) = axes.images
        assert image.get_array().tolist() == [[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
        assert image.get_clim() == (0, 1)
        assert (cells[1, 1].get_color(), cells[0, 0].get_color()) == ("white", "black")  # on dark and on light blue
        assert axes.get_title() == f"4 {unit}"
        assert [label.get_text() for label in axes.get_xticklabels()][2:] == ["pituitary\ntumor", "none"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["meningioma", "glioma", "pituitary\ntumor"]
    assert left.get_shared_y_axes().joined(left, right)


def test_each_accuracy_is_a_bar_from_0_with_its_interval_and_the_predicted_mask_stands_out(metrics):
    intervals = {"true_mask": (0.1, 0.3), "predicted_mask": (0.3, 0.5), "whole_slice": (0.5, 0.7)}
    for number, name in enumerate(figures.ACCURACIES):
        metrics.accuracy[name] = Estimate(0.2 + number / 5, intervals.get(name))
    metrics.accuracy["by_subject"] = Estimate(None, None)
    (axes,) = figures.accuracies(metrics).axes
    bars = axes.patches[:3]  # none by subject; the labels have patches of their own
    assert [bar.get_width() for bar in bars] == pytest.approx([0.2, 0.4, 0.6])
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == pytest.approx([0, 1, 2])
    assert {bar.get_x() for bar in bars} == {0}
    assert all(0.4 < bar.get_height() < 0.8 for bar in bars)  # with a gap between two bars
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [
        to_hex(hex_color(color)) for color in (SKY_BLUE, BLUE, SKY_BLUE)
    ]
    assert [tuple(line.get_xdata()) for line in axes.lines] == list(intervals.values())
    assert [tuple(line.get_ydata()) for line in axes.lines] == [(0, 0), (1, 1), (2, 2)]
    texts = ["true mask   0.200", "predicted mask   0.400", "whole slice   0.600", "predicted mask, by subject   -"]
    assert [(text.get_position()[1], text.get_text()) for text in axes.texts] == list(enumerate(texts))
    assert all(0 < text.get_position()[0] < 0.05 for text in axes.texts)
    assert axes.get_xlim() == (0, 1)
    assert axes.yaxis_inverted()  # the first at the top
    assert axes.get_yticks().tolist() == []


def test_dice_has_a_dot_for_each_slice_a_box_with_whiskers_and_the_mean():
    """101 meningiomas with 0, 0.01, ..., 1: the box is from 0.25 to 0.75, the whiskers from 0.05 to 0.95."""
    slices = [scored(3 * number, number / 100) for number in range(101)]  # every third is a meningioma
    figure = figures.dice(summarize(slices), slices)
    left, right = figure.axes
    (dots,) = left.collections
    assert dots.get_offsets()[:, 1].tolist() == [number / 100 for number in range(101)]
    assert np.abs(dots.get_offsets()[:, 0]).max() < 0.5  # beside no other class
    box, low, high, _, _, median, mean = left.lines
    assert (min(box.get_ydata()), max(box.get_ydata())) == pytest.approx((0.25, 0.75))
    assert (*low.get_ydata(), *high.get_ydata()) == pytest.approx((0.25, 0.05, 0.75, 0.95))
    assert (median.get_ydata()[0], mean.get_ydata()[0]) == pytest.approx((0.5, 0.5))
    assert (mean.get_xdata()[0], mean.get_marker()) == (0, "D")
    assert [label.get_text() for label in left.get_xticklabels()] == [
        "meningioma\n101 slices\nmean 0.500",
        "glioma\n0 slices\nmean -",
        "pituitary tumor\n0 slices\nmean -",
    ]
    assert [label.get_text().split("\n")[1] for label in right.get_xticklabels()] == [
        "10 slices",  # diameters of 20, 23, ..., 47
        "10 slices",  # 50, ..., 77
        "81 slices",
    ]
    assert right.get_title() == "by tumor diameter, divided at 50 and 80 pixels of 0.49 mm"
    for axes in (left, right):
        assert axis_fits(axes.get_ylim())
        assert -1 < axes.get_xlim()[0] <= -0.5
        assert 2.5 <= axes.get_xlim()[1] < 3
        assert axes.get_xticks().tolist() == [0, 1, 2]
    assert left.get_shared_y_axes().joined(left, right)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(CLASS_NAMES)


def test_the_same_slices_have_their_dots_at_the_same_places_each_time():
    slices = [scored(number, number / 10) for number in range(10)]
    first, second = (
        [dots.get_offsets().tolist() for dots in figures.dice(summarize(slices), slices).axes[0].collections]
        for _ in range(2)
    )
    assert first == second
    assert len({x - round(x) for dots in first for x, _ in dots}) > 5


def test_reliability_has_a_point_for_each_bin_with_slices_and_a_bar_for_each_bin():
    """Three of four slices are right at 0.7: bin 10, from 10 / 15 to 11 / 15."""
    rows = [MENINGIOMA_FIRST, MENINGIOMA_FIRST, MENINGIOMA_FIRST, GLIOMA_FIRST]
    slices = [scored(3 * number, 0.5, row) for number, row in enumerate(rows)]
    above, below = figures.reliability(summarize(slices)).axes
    diagonal, curve = above.lines
    assert (list(diagonal.get_xdata()), list(diagonal.get_ydata())) == ([0, 1], [0, 1])
    assert (curve.get_xdata()[0], curve.get_ydata()[0], len(curve.get_xdata())) == (pytest.approx(0.7), 0.75, 1)
    assert [bar.get_height() for bar in below.patches] == [4 if place == 10 else 0 for place in range(15)]
    assert [bar.get_x() for bar in below.patches] == pytest.approx([place / 15 for place in range(15)])
    assert [bar.get_width() for bar in below.patches] == pytest.approx([1 / 15] * 15)
    assert above.get_title() == "expected calibration error 0.050"
    assert axis_fits(above.get_ylim())
    assert below.get_xlim() == (0, 1)
    assert above.get_shared_x_axes().joined(above, below)
    assert above.get_position().height > 2 * below.get_position().height


def test_the_roc_curve_starts_at_0_and_passes_the_threshold_and_the_operating_point():
    curve = DetectionCurve(threshold=(0.9, 0.5, 0.2), sensitivity=(0.6, 0.8, 1.0), false_positive_rate=(0.1, 0.3, 1.0))
    point = OperatingPoint(min_sensitivity=0.98, threshold=0.2, sensitivity=1.0, false_positive_rate=0.4)
    detection = Detection(
        negatives=10,
        sensitivity=0.8,
        false_positive_rate=0.3,
        large_false_positive_rate=0.0,
        by_folder={},
        auc=0.8765,
        operating_point=point,
        curve=curve,
    )
    (axes,) = figures.roc_curve(detection).axes
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines] == [
        ([0, 0.1, 0.3, 1.0], [0, 0.6, 0.8, 1.0]),
        ([0.3], [0.8]),
        ([0.4], [1.0]),
    ]
    assert axes.lines[1].get_label() == "default threshold"
    assert axes.lines[2].get_label() == "sensitivity of at least 98%, threshold 0.200"
    assert axes.get_title() == "area under the curve 0.876"
    assert axis_fits(axes.get_xlim())
    assert axis_fits(axes.get_ylim())


def test_every_chart_has_a_grid_behind_the_data_and_no_frame_where_there_is_no_axis(metrics):
    (axes,) = figures.accuracies(metrics).axes
    assert {name: spine.get_visible() for name, spine in axes.spines.items()} == {
        "left": True,
        "bottom": True,
        "top": False,
        "right": False,
    }
    assert axes.get_axisbelow()
    assert all(line.get_visible() for line in axes.get_xgridlines())
