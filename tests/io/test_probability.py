"""Probabilities in 16 bits: the mask can be computed from each form in which they are stored."""

import io

import numpy as np
import pytest
from PIL import Image

from cascade.contract import THRESHOLD
from cascade.io.probability import probability_png, to_float, to_float16, to_uint16

HALF = np.float32(THRESHOLD)
AROUND_HALF = np.float32([np.nextafter(HALF, np.float32(0)), HALF, np.nextafter(HALF, np.float32(1)), 0.4999, 0.5001])
PROBABILITY = np.concatenate(
    [AROUND_HALF, np.linspace(0.49, 0.51, 20001), np.random.default_rng(0).random(100_000), [0.0, 1.0]]
).astype(np.float32)


@pytest.mark.parametrize(
    "stored",
    [
        to_uint16(PROBABILITY) / 65535,
        to_uint16(PROBABILITY) * np.float32(1 / 65535),  # as readers of NIfTI scale it
        to_float(to_uint16(PROBABILITY)),
        to_float16(to_uint16(PROBABILITY)),
        np.around(to_float(to_uint16(PROBABILITY)) * 255) / 255,  # as highdicom stores it
    ],
    ids=["integers", "scaled", "float32", "float16", "8 bits"],
)
def test_exactly_the_pixels_of_the_mask_reach_the_threshold_in_the_file(stored):
    """Rounded to the nearest float16, 0.4999 would become 0.5, and its pixel part of the tumor."""
    assert np.array_equal(stored >= THRESHOLD, PROBABILITY >= THRESHOLD)


def test_a_probability_changes_by_about_half_a_step_at_most():
    assert np.abs(to_uint16(PROBABILITY) / 65535 - PROBABILITY).max() <= 0.51 / 65535
    assert np.abs(to_float16(to_uint16(PROBABILITY)) - PROBABILITY).max() <= 2**-11
    assert to_uint16(np.float32([0, 1])).tolist() == [0, 65535]


def test_a_png_has_16_bits_of_gray():
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1394
    image = Image.open(io.BytesIO(probability_png(values)))
    assert image.mode == "I;16"
    assert np.array_equal(np.asarray(image), values)
