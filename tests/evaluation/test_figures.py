"""Figures of an evaluation: drawn for any number of slices, and without identifiers of patients in the captions."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from stub_evaluation import scored

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import LabeledSlice
from cascade.evaluation.figures import charts, dice
from cascade.evaluation.gallery import choose, draw_slice
from cascade.evaluation.summary import summarize
from cascade.io.slices import Slice
from cascade.prediction.overlay import overlay_png
from cascade.result import Prediction


@pytest.mark.parametrize("count", [1, 2, 90])
def test_every_chart_is_a_picture_whatever_the_number_of_slices(count):
    slices = [scored(number, dice=number / count) for number in range(count)]
    for name, picture in charts(summarize(slices), slices).items():
        with Image.open(io.BytesIO(picture)) as image:
            assert image.format == "PNG", name
            assert min(image.size) > 400, name


def test_the_charts_can_be_drawn_if_no_slice_has_a_predicted_class():
    slices = [scored(number, dice=0.0, probabilities=(0.0, 0.0, 0.0)) for number in range(3)]
    metrics = summarize(slices)
    assert metrics.reliability.expected_calibration_error is None
    assert len(charts(metrics, slices)) == 4


def test_a_class_has_one_color_in_charts_and_overlays(monkeypatch):
    """Meningiomas were orange in overlays and reports, and blue in charts, where gliomas were vermillion."""
    monkeypatch.setattr("cascade.evaluation.figures.png", lambda figure: figure)
    slices = [scored(number, dice=0.5) for number in range(3)]
    figure = dice(summarize(slices), slices)
    (legend,) = figure.legends
    dots = dict(zip(CLASS_NAMES, figure.axes[0].collections, strict=True))
    ramp = np.tile(np.linspace(0, 1000, 64, dtype=np.float32), (64, 1))
    mask = np.zeros(ramp.shape, dtype=bool)
    mask[20:40, 20:40] = True
    for name, text, line in zip(CLASS_NAMES, legend.get_texts(), legend.get_lines(), strict=True):
        probabilities = {other: float(other == name) for other in CLASS_NAMES}
        with Image.open(io.BytesIO(overlay_png(Slice(ramp), Prediction(mask, None, probabilities)))) as overlay:
            color = overlay.convert("RGB").getpixel((20, 20))  # a corner of the contour
        assert text.get_text() == name
        assert tuple(np.round(255 * np.array(to_rgb(line.get_color())))) == color
        assert tuple(np.round(255 * dots[name].get_facecolor()[0, :3])) == color


def test_the_best_the_median_and_the_worst_six_are_chosen_by_dice():
    chosen = choose([scored(number, dice=number / 20) for number in range(20)])
    assert [round(item.dice * 20) for item in chosen["worst"]] == [0, 1, 2, 3, 4, 5]
    assert [round(item.dice * 20) for item in chosen["median"]] == [7, 8, 9, 10, 11, 12]
    assert [round(item.dice * 20) for item in chosen["best"]] == [19, 18, 17, 16, 15, 14]


def test_fewer_than_six_slices_are_shown_in_all_three():
    chosen = choose([scored(number, dice=number / 4) for number in range(4)])
    assert {name: len(items) for name, items in chosen.items()} == {"best": 4, "median": 4, "worst": 4}


def drawn(true: np.ndarray, predicted: np.ndarray):
    axes = Figure().subplots()
    pixels = np.arange(true.size, dtype=np.float32).reshape(true.shape)
    labeled = LabeledSlice(pixels, true, CLASS_NAMES[1], "patient-4", None)
    draw_slice(axes, scored(4, dice=0.5), labeled, predicted)
    return axes


def test_the_caption_names_file_dice_and_classes_but_no_patient():
    axes = drawn(np.eye(8, dtype=bool), np.eye(8, dtype=bool))
    assert axes.get_title() == "4.mat   Dice 0.500\nglioma → meningioma"


def test_both_outlines_are_drawn_and_an_empty_mask_has_none():
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:5, 2:5] = True
    assert len(drawn(mask, mask).collections) == 2
    assert len(drawn(mask, np.zeros_like(mask)).collections) == 1


def test_the_outline_of_a_mask_at_the_edge_of_the_slice_is_closed():
    whole = np.ones((8, 6), dtype=bool)
    (outline,) = drawn(whole, np.zeros_like(whole)).collections
    (path,) = outline.get_paths()
    assert path.vertices[0].tolist() == path.vertices[-1].tolist()
    assert path.vertices.min(axis=0).tolist() == [-0.5, -0.5]  # the outer edge of the first pixel
    assert path.vertices.max(axis=0).tolist() == [5.5, 7.5]
