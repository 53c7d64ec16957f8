"""Galleries show the slices that they name, each with its true and its predicted outline."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from stub_evaluation import BRIGHT, GLIOMA, HALF_OFF, TUMOR, StubClassifier, StubSegmenter, scored, write_mat

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import LabeledSlice
from cascade.datasets.reader import SliceInfo
from cascade.evaluation import gallery as module
from cascade.pipeline import Cascade
from cascade.runtime.cpu import CpuBackend


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The gallery of two slices as a figure."""
    monkeypatch.setattr(module, "png", lambda figure: figure)
    some = []
    for number, predicted in enumerate((TUMOR, HALF_OFF)):
        name = f"{number}.mat"
        write_mat(tmp_path / name, "100", GLIOMA, predicted=predicted)
        some.append(replace(scored(number, 1.0 - number / 2), info=SliceInfo(name, "", "glioma", "100")))
    return module.gallery("worst", some, tmp_path, Cascade(CpuBackend(StubSegmenter(), StubClassifier())))


def test_a_gallery_has_its_slices_side_by_side_and_leaves_the_other_places_empty(drawn):
    assert drawn.get_suptitle() == "The worst 2 by Dice"
    assert [axes.get_title().split("\n")[0] for axes in drawn.axes] == [
        "0.mat   Dice 1.000",
        "1.mat   Dice 0.500",
        *4 * [""],
    ]
    assert not any(axes.axison for axes in drawn.axes)
    assert {axes.get_subplotspec().get_geometry()[:2] for axes in drawn.axes} == {(2, 3)}
    for axes, region in zip(drawn.axes, (TUMOR, HALF_OFF), strict=False):
        (image,) = axes.images
        assert (image.get_array()[region] == BRIGHT).all()
        assert image.get_array().shape == (512, 512)


def test_the_solid_outline_is_the_true_one_and_the_dashed_one_the_predicted(drawn):
    """The true tumor is in columns 100 to 139, and the second prediction in 120 to 159."""
    left, right = drawn.axes[:2]
    assert [columns(outline) for outline in left.collections] == [(99.5, 139.5), (99.5, 139.5)]
    assert [columns(outline) for outline in right.collections] == [(99.5, 139.5), (119.5, 159.5)]
    solid, dashed = (outline.get_linestyle()[0][1] for outline in right.collections)
    assert (solid, bool(dashed)) == (None, True)
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["true outline", "predicted outline"]
    assert [line.get_linestyle() for line in legend.get_lines()] == ["-", "--"]
    assert [to_hex(outline.get_edgecolor()[0]) for outline in right.collections] == [
        to_hex(line.get_color()) for line in legend.get_lines()
    ]


def test_a_slice_is_drawn_from_black_at_its_1st_to_white_at_its_995th_per_mille():
    """The values are 0 to 1000, once each: the 1st percentile is 10, and 99.5 % is 995."""
    axes, pixels = Figure().subplots(), np.arange(1001, dtype=np.float32).reshape(7, 143)
    nothing = np.zeros(pixels.shape, dtype=bool)
    module.draw_slice(axes, scored(1, 0.5), LabeledSlice(pixels, nothing, CLASS_NAMES[1], "4", None), nothing)
    (image,) = axes.images
    assert image.get_clim() == pytest.approx((10, 995))


@pytest.mark.parametrize("name", ["a$b_$.png", "$x^$.png", "p\udcff.png"])
def test_a_file_name_is_drawn_as_it_is(name):
    """As a formula, it ended the evaluation after all slices were predicted."""
    figure = Figure()
    axes, pixels = figure.subplots(), np.arange(12, dtype=np.float32).reshape(3, 4)
    item = scored(1, 0.5)
    item = replace(item, info=replace(item.info, path=name))
    module.draw_slice(axes, item, LabeledSlice(pixels, pixels > 5, CLASS_NAMES[1], "4", None), pixels > 5)
    figure.savefig(io.BytesIO())
    assert axes.get_title().startswith(name.replace("\udcff", "\\udcff"))


def columns(outline):
    """Return the first and the last column of an outline."""
    (path,) = outline.get_paths()
    return path.vertices[:, 0].min(), path.vertices[:, 0].max()
