import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cascade.colors import CLASS_COLORS
from cascade.contract import CLASS_NAMES, Box
from cascade.io.slices import Slice
from cascade.prediction.overlay import (
    BOX_COLOR,
    BOX_INDEX,
    MAX_FONT_SIZE,
    SIZE,
    apply_window,
    caption_strip,
    contour,
    draw_box,
    overlay_png,
    preview_png,
)
from cascade.result import Prediction

GLIOMA = dict(zip(CLASS_NAMES, (0.02, 0.97, 0.01), strict=True))
RAMP = np.tile(np.linspace(0, 4000, 100, dtype=np.float32), (60, 1))


def opened(content):
    return Image.open(io.BytesIO(content))


def glioma_in_ramp():
    mask = np.zeros(RAMP.shape, dtype=bool)
    mask[20:30, 40:60] = True
    return Prediction(mask, Box(35.0, 15.0, 65.0, 35.0), GLIOMA)


def test_a_pixel_of_the_slice_is_the_same_pixel_of_the_overlay():
    rgb = np.asarray(opened(overlay_png(Slice(RAMP), glioma_in_ramp())).convert("RGB"))
    assert tuple(rgb[20, 40]) == CLASS_COLORS["glioma"]  # a corner of the mask
    assert tuple(rgb[15, 35]) == tuple(rgb[34, 64]) == BOX_COLOR  # two corners of the box: right and bottom are edges
    assert tuple(rgb[25, 50]) == tuple(rgb[50, 50])  # inside the contour the slice is seen
    assert rgb[50, 10].max() < 60
    assert rgb[50, 90].min() > 200


def test_the_caption_lies_below_the_slice_and_is_never_cut():
    with_tumor = opened(overlay_png(Slice(RAMP), glioma_in_ramp()))
    without = opened(overlay_png(Slice(RAMP), Prediction(np.zeros(RAMP.shape, dtype=bool), None)))
    assert with_tumor.height > 60
    assert with_tumor.width > 100  # wider than the slice: class, probability and note need it
    assert not np.array_equal(np.asarray(with_tumor)[60:, :100], np.asarray(without)[60:, :100])


def test_an_overlay_says_how_large_the_slice_is_and_that_a_class_is_uncertain():
    certain = opened(overlay_png(Slice(RAMP), glioma_in_ramp()))
    uncertain = opened(overlay_png(Slice(RAMP), replace(glioma_in_ramp(), uncertain=True)))
    assert certain.info[SIZE] == uncertain.info[SIZE] == "100x60"
    assert uncertain.width > certain.width  # the slice is narrow, and the caption longer


def test_an_overlay_without_a_tumor_has_no_colors():
    overlay = opened(overlay_png(Slice(RAMP), Prediction(np.zeros(RAMP.shape, dtype=bool), None)))
    rgb = np.asarray(overlay.convert("RGB"))
    assert np.array_equal(rgb[..., 0], rgb[..., 1])
    assert np.array_equal(rgb[..., 0], rgb[..., 2])


@pytest.mark.parametrize(("shape", "size"), [((512, 400), "200x256"), ((600, 300), "100x200"), ((240, 240), "240x240")])
def test_a_preview_is_the_whole_slice_in_at_most_256_pixels(shape, size):
    """A report shows all slices of a volume. Pictures in full size of those without a tumor would fill the disk."""
    ramp = np.tile(np.linspace(0, 4000, shape[1], dtype=np.float32), (shape[0], 1))
    preview = opened(preview_png(Slice(ramp), Prediction(np.zeros(shape, dtype=bool), None)))
    assert preview.info[SIZE] == size
    width, height = map(int, size.split("x"))
    grays = np.asarray(preview.convert("L")).astype(int)[:height, :width]
    assert (np.diff(grays[0]) >= 0).all()
    assert grays[0, 0] < 10
    assert grays[0, -1] > 245


def test_a_few_extreme_pixels_do_not_darken_the_slice():
    spiked = RAMP.copy()
    spiked[0, 0] = 1e6
    assert np.abs(apply_window(spiked).astype(int) - apply_window(RAMP).astype(int))[1:].max() <= 3


def test_a_slice_dark_but_for_a_few_pixels_is_shown_from_its_lowest_to_its_highest():
    dark = np.zeros((100, 100), dtype=np.float32)
    dark[3, 7] = 5
    assert apply_window(dark).max() == 239


def test_a_contour_is_the_inner_border_and_closed_at_the_edge_of_the_slice():
    mask = np.zeros((5, 6), dtype=bool)
    mask[0:4, 1:5] = True
    expected = np.array(
        [
            [0, 1, 1, 1, 1, 0],
            [0, 1, 0, 0, 1, 0],
            [0, 1, 0, 0, 1, 0],
            [0, 1, 1, 1, 1, 0],
            [0, 0, 0, 0, 0, 0],
        ]
    )
    assert np.array_equal(contour(mask, 1), expected)
    assert np.array_equal(contour(mask, 2), mask)


def test_the_four_sides_of_a_box_are_equally_wide_and_lie_inside_it():
    picture = np.zeros((7, 8), dtype=np.uint8)
    draw_box(picture, Box(1.2, 0.8, 7.4, 5.6), width=2)
    assert ["".join("#" if pixel == BOX_INDEX else "." for pixel in row) for row in picture] == [
        "........",
        ".######.",
        ".######.",
        ".##..##.",
        ".######.",
        ".######.",
        "........",
    ]


@pytest.mark.parametrize("box", [Box(0, 0, 100, 60), Box(99.6, 59.7, 100, 60), Box(50, 20, 51, 21), Box(3, 3, 3, 3)])
def test_any_box_inside_the_slice_can_be_drawn(box):
    found = glioma_in_ramp()
    overlay_png(Slice(RAMP), Prediction(found.mask, box, GLIOMA))


def test_lines_grow_with_the_slice_so_that_they_stay_visible():
    large = np.tile(np.linspace(0, 1, 1024, dtype=np.float32), (1024, 1))
    mask = np.zeros(large.shape, dtype=bool)
    mask[400:600, 400:600] = True
    rgb = np.asarray(
        opened(overlay_png(Slice(large), Prediction(mask, Box(300, 300, 700, 700), GLIOMA))).convert("RGB")
    )
    assert [tuple(rgb[500, column]) == CLASS_COLORS["glioma"] for column in range(399, 406)] == [False] + 4 * [
        True
    ] + 2 * [False]


def test_the_caption_of_a_very_wide_picture_has_a_font_of_ordinary_size():
    """Pillow took it for an attack, which ended the run; below that, it took gigabytes."""
    assert caption_strip("glioma 0.98", 0, 300_000).shape == (round(MAX_FONT_SIZE * 1.6), 300_000)
