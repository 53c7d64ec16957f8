"""Slices are resampled to the square that the networks see, and masks and boxes back to the slice."""

import numpy as np
import pytest

from cascade.contract import SLICE_SIZE, Box
from cascade.io.preprocess import Letterbox


def test_a_slice_of_the_input_size_is_not_resampled():
    letterbox = Letterbox(SLICE_SIZE, SLICE_SIZE)
    pixels = np.zeros((SLICE_SIZE, SLICE_SIZE), np.float32)
    assert letterbox.square(pixels) is pixels
    assert letterbox.original(pixels) is pixels
    assert letterbox.original_box(Box(1, 2, 3, 4)) == Box(1, 2, 3, 4)


def test_a_slice_of_256_x_256_is_doubled():
    letterbox = Letterbox(256, 256)
    pixels = np.full((256, 256), 7, np.float32)
    pixels[64:128, 32:64] = 9
    square = letterbox.square(pixels)
    assert square.shape == (512, 512)
    assert square[130:254, 66:126].tolist() == np.full((124, 60), 9).tolist()
    assert square[:126].max() == square[258:].max() == 7
    assert letterbox.original_box(Box(64, 128, 128, 256)) == Box(32, 64, 64, 128)


def test_a_wide_slice_is_centered_and_padded_with_its_lowest_intensity():
    pixels = np.full((256, 1024), 50, np.float32)
    pixels[0, 0] = 5
    square = Letterbox(256, 1024).square(pixels)  # halved to 128 x 512, between rows 192 and 320
    assert square[:192].tolist() == np.full((192, 512), 5).tolist()
    assert square[320:].tolist() == np.full((192, 512), 5).tolist()
    assert square[194:320].tolist() == np.full((126, 512), 50).tolist()


@pytest.mark.parametrize(
    ("height", "width"), [(512, 512), (256, 256), (320, 240), (240, 320), (1000, 700), (511, 513), (16, 16), (64, 2000)]
)
def test_a_mask_is_resampled_to_the_square_and_back_within_a_pixel(height, width):
    mask = np.zeros((height, width), np.float32)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    letterbox = Letterbox(height, width)
    back = letterbox.original(letterbox.square(mask)) >= 0.5
    assert back.shape == (height, width)
    rows, columns = np.nonzero(back)
    step = max(1, max(height, width) // SLICE_SIZE + 1)  # pixels of the slice under one of the square
    assert abs(rows.min() - height // 4) <= step
    assert abs(rows.max() + 1 - height // 2) <= step
    assert abs(columns.min() - width // 4) <= step
    assert abs(columns.max() + 1 - width // 2) <= step


@pytest.mark.parametrize(("height", "width"), [(512, 512), (256, 256), (320, 240), (1000, 700), (20, 2000), (2000, 20)])
def test_a_box_around_the_whole_square_covers_the_whole_slice(height, width):
    assert Letterbox(height, width).original_box(Box(0, 0, 512, 512)) == Box(0, 0, width, height)


def test_a_box_is_clipped_at_the_edges_of_the_slice_and_has_float_edges():
    box = Letterbox(256, 512).original_box(Box(-5, 100, 600, 256))  # the slice lies between rows 128 and 384
    assert box == Box(0, 0, 512, 128)
    assert {type(edge) for edge in box} == {float}


@pytest.mark.parametrize(("height", "width"), [(20, 2000), (2000, 20), (16, 20_000), (1, 1), (1, 4000)])
def test_extreme_shapes_fit_and_are_resampled_back_to_their_shape(height, width):
    letterbox = Letterbox(height, width)
    pixels = np.arange(height * width, dtype=np.float32).reshape(height, width)
    square = letterbox.square(pixels)
    assert square.shape == (512, 512)
    assert pixels.min() <= square.min() <= square.max() <= pixels.max()
    assert letterbox.original(np.ones((512, 512), np.float32)).tolist() == np.ones((height, width)).tolist()


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.tile(np.float32([0, 100]), (2048, 1024))  # every other column; skipping would give one flat value
    square = Letterbox(2048, 2048).square(stripes)
    assert np.abs(square[:, 8:-8] - 50).max() < 1


def test_with_a_known_spacing_a_pixel_of_the_square_is_0_49_mm():
    box = Letterbox(100, 200, (0.98, 0.49))
    assert (box.scaled_height, box.scaled_width, box.top, box.left) == (200, 200, 156, 156)
    square = box.square(np.full((100, 200), 7, dtype=np.float32))
    assert np.array_equal(square, np.full((SLICE_SIZE, SLICE_SIZE), 7))
    assert box.original_box(Box(156, 156, 356, 356)) == Box(0, 0, 200, 100)


def test_a_field_of_view_that_would_not_fit_is_shrunk_and_keeps_its_proportions():
    box = Letterbox(512, 256, (1.0, 1.0))  # 512 mm high: the square shows 250.88
    assert (box.scaled_height, box.scaled_width) == (512, 256)


def test_slices_of_the_figshare_data_set_are_not_resampled():
    pixels = np.random.default_rng(0).random((512, 512), dtype=np.float32)
    assert Letterbox(512, 512, (0.49, 0.49)).square(pixels) is pixels


def test_a_slice_of_the_input_size_with_other_pixels_is_resampled():
    """Half as wide as those of the networks: 256 x 256 pixels in the middle of the square."""
    letterbox = Letterbox(512, 512, (0.245, 0.245))
    pixels = np.full((512, 512), 7, np.float32)
    pixels[0, 0] = 3
    square = letterbox.square(pixels)
    assert (square[:128] == 3).all()
    assert (square[130:380, 130:380] == 7).all()
    probability = np.zeros((512, 512), np.float32)
    probability[128:256, 128:256] = 1
    back = letterbox.original(probability)
    assert back[:252, :252].min() == 1
    assert back[260:, 260:].max() == 0
