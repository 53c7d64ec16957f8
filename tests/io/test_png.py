"""What `encode_png` writes is what other programs read."""

import io

import numpy as np
import png
import pytest
from PIL import Image

from cascade.io.png import encode_png

PIXELS = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7) * 6


def opened(content):
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("level", [0, 2, 9])
def test_two_decoders_read_the_same_gray_values(level):
    content = encode_png(PIXELS, level=level)
    image = opened(content)
    assert (image.format, image.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(image), PIXELS)
    width, height, rows, info = png.Reader(bytes=content).read()  # also compares the checksum of each chunk
    assert (width, height, info["greyscale"], info["bitdepth"]) == (7, 6, True, 8)
    assert np.array_equal(np.vstack(list(rows)), PIXELS)


def test_indices_are_shown_in_the_colors_of_the_palette():
    colors = np.arange(3 * 256, dtype=np.uint16).reshape(256, 3).astype(np.uint8)
    image = opened(encode_png(PIXELS, level=0, palette=colors.tobytes()))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image.convert("RGB")), colors[PIXELS])


def test_text_is_read_back():
    assert opened(encode_png(PIXELS, level=0, text={"slice": "7x6", "of": "é"})).text == {"slice": "7x6", "of": "é"}


def test_pixels_need_not_be_contiguous():
    assert np.array_equal(np.asarray(opened(encode_png(PIXELS[::2, ::-1], level=2))), PIXELS[::2, ::-1])


def test_a_mask_takes_little_space():
    mask = np.zeros((512, 512), dtype=np.uint8)
    mask[200:300, 200:300] = 255
    assert len(encode_png(mask, level=2)) < 2000
