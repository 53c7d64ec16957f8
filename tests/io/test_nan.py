"""NaN outside the head is background; NaN in the head is missing signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.errors import CascadeError
from cascade.io.nan import MAX_FRACTION_OF_HEAD, replace_nan

SAMPLES = sorted((Path(__file__).parent.parent.parent / "samples").glob("*.png"))


def sample(name):
    return np.asarray(Image.open(next(path for path in SAMPLES if path.stem == name))).astype(np.float32)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_dark_background_and_dark_cavities_may_be_nan(path):
    pixels = np.asarray(Image.open(path)).astype(np.float32)
    low = pixels < 0.03 * pixels.max()
    replaced, notes = replace_nan(np.where(low, np.nan, pixels), "a")
    assert low.mean() > 0.2
    assert replaced[~low].tolist() == pixels[~low].tolist()
    assert set(replaced[low].tolist()) == {pixels[~low].min()}
    assert len(notes) == 1


def test_pixels_without_nan_are_returned_as_they_are_without_a_note():
    pixels = sample("axial_glioma_1")
    replaced, notes = replace_nan(pixels, "a")
    assert replaced is pixels
    assert notes == ()


@pytest.mark.parametrize("background", [True, False])
def test_a_region_cut_out_of_the_head_is_refused(background):
    pixels = sample("axial_meningioma_1")
    pixels[180:360, 150:360] = np.nan
    if background:
        pixels[pixels < 8] = np.nan
    with pytest.raises(CascadeError, match=r"^b\.nii: .*% of the head"):
        replace_nan(pixels, "b.nii")


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_nan_scattered_over_the_head_is_refused(fraction):
    pixels = sample("axial_meningioma_1")
    pixels[np.random.default_rng(0).random(pixels.shape) < fraction] = np.nan
    with pytest.raises(CascadeError, match="of the head"):
        replace_nan(pixels, "a")


def test_the_limit_is_a_tenth_of_the_head():
    head = np.full((64, 64), np.nan, np.float32)
    head[10:50, 10:50] = 3  # 1,600 pixels
    head[20:36, 20:30] = np.nan  # 160 of them
    assert MAX_FRACTION_OF_HEAD == 0.1
    assert replace_nan(head, "a")[0].tolist() == np.full((64, 64), 3).tolist()
    head[36, 20] = np.nan
    with pytest.raises(CascadeError):
        replace_nan(head, "a")


def test_infinity_is_not_replaced_and_nan_alone_becomes_blank():
    pixels = np.full((20, 20), np.nan, np.float32)
    assert replace_nan(pixels, "a")[0].tolist() == np.zeros((20, 20)).tolist()
    pixels[0, 0] = np.inf
    assert np.isinf(replace_nan(pixels, "a")[0][0, 0])
