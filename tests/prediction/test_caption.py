"""The caption below an overlay: a square in the color of the class, the class, and the note on research use."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from stub_cascade import cascade_of, rows_of

from cascade.colors import CLASS_COLORS
from cascade.contract import CLASS_NAMES
from cascade.io.slices import Slice
from cascade.pipeline import Prediction
from cascade.prediction.overlay import (
    BOX_COLOR,
    BOX_INDEX,
    FIRST_CLASS_INDEX,
    GRAYS,
    PALETTE,
    SIZE,
    apply_window,
    caption_strip,
    overlay_png,
)
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

BLANK_WIDTH = 6
"""More blank columns than this separate two texts, fewer separate two words."""

NOTE_GRAY = GRAYS // 2


def texts(strip):
    """Return (first column, last column) of each text of a strip."""
    ink = np.flatnonzero(strip.any(axis=0))
    starts = np.flatnonzero(np.diff(ink) > BLANK_WIDTH) + 1
    return [(int(part[0]), int(part[-1])) for part in np.split(ink, starts)]


def test_the_palette_has_the_grays_from_black_to_white_then_the_box_and_the_classes():
    colors = np.frombuffer(PALETTE, np.uint8).reshape(-1, 3).tolist()
    assert (colors[0], colors[GRAYS - 1]) == ([0, 0, 0], [255, 255, 255])
    assert colors[GRAYS // 2] == [128, 128, 128]  # 255 * 120 / 239 = 128.03
    assert all(red == green == blue for red, green, blue in colors[:GRAYS])
    assert tuple(colors[BOX_INDEX]) == BOX_COLOR
    assert [tuple(color) for color in colors[FIRST_CLASS_INDEX:]] == [CLASS_COLORS[name] for name in CLASS_NAMES]


def test_a_square_in_the_color_of_the_class_stands_before_the_caption():
    """A strip of 400 columns has letters of 13 pixels, 21 rows and a margin of 4."""
    strip = caption_strip("glioma 0.97", FIRST_CLASS_INDEX, 400)
    assert strip.shape == (21, 400)
    rows, columns = np.nonzero(strip == FIRST_CLASS_INDEX)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 17, 4, 17)
    assert len(rows) == 14 * 14
    assert 21 <= np.flatnonzero(strip[:, 18:].any(axis=0))[0] + 18 <= 24  # the first letter


def test_without_a_class_the_caption_starts_at_the_margin():
    strip = caption_strip("no tumor found", 0, 400)
    assert 4 <= texts(strip)[0][0] <= 7
    assert strip.max() == GRAYS - 1


def test_the_note_ends_at_the_right_margin_and_is_darker_than_the_caption():
    strip = caption_strip("no tumor found", 0, 400)
    caption, note = texts(strip)
    assert caption[1] < 200 < note[0]
    assert 392 <= note[1] <= 396
    assert strip[:, note[0] :].max() == NOTE_GRAY
    for first, last in (caption, note):
        rows = np.flatnonzero(strip[:, first : last + 1].any(axis=1))
        assert abs((rows[0] + rows[-1]) / 2 - 10.5) <= 2  # in the middle of 21 rows


def test_a_strip_is_as_wide_as_its_texts_need():
    caption, note = texts(caption_strip("no tumor found", 0, 20))
    assert 7 <= note[0] - caption[1] <= 14  # two margins, and the blank sides of the letters


@pytest.mark.parametrize(("height", "width"), [(60, 900), (900, 400)])
def test_an_overlay_is_as_wide_as_its_slice_where_the_caption_fits(height, width):
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    content = overlay_png(Slice(ramp), Prediction(np.zeros(ramp.shape, dtype=bool)))
    with Image.open(io.BytesIO(content)) as overlay:
        assert overlay.width == width
        assert overlay.height == height + len(caption_strip("no tumor found", 0, width))


def test_letters_grow_with_the_slice():
    assert [len(caption_strip("no tumor found", 0, width)) for width in (100, 442, 1020)] == [21, 21, 48]  # 1.6 * 30


def test_the_darkest_percent_is_black_and_the_brightest_half_percent_white():
    """The 1st percentile of 0 to 999 is 9.99 and 99.5 % is 994.005; a gray is 984.015 / 239 = 4.1 wide."""
    grays = apply_window(np.arange(1000, dtype=np.float32).reshape(25, 40)).ravel()
    assert np.flatnonzero(grays == 0).tolist() == list(range(15))
    assert np.flatnonzero(grays == GRAYS - 1).tolist() == list(range(995, 1000))
    assert grays[502] == 119  # (502 - 9.99) / 984.015 * 239 = 119.5


@pytest.mark.parametrize(("count", "size"), [(1, "300x300"), (3, "150x150")])
def test_only_slices_of_a_volume_are_shown_as_small_previews(tmp_path, count, size):
    """A single picture without a tumor keeps its full size."""
    ramp = np.tile(np.linspace(0, 100, 300, dtype=np.float32), (count, 300, 1))
    np.save(tmp_path / "a.npy", ramp if count > 1 else ramp[0])
    predict_paths(cascade_of(), [tmp_path / "a.npy"], tmp_path / "out", RunOptions(report=False))
    for row in rows_of(tmp_path / "out"):
        with Image.open(io.BytesIO((tmp_path / "out" / row["overlay"]).read_bytes())) as overlay:
            assert overlay.info[SIZE] == size
