"""The two diameters of a lesion in a slice."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.volume.diameters import diameters, largest_diameters


def mask_of(shape, *blocks):
    mask = np.zeros(shape, dtype=bool)
    for rows, columns in blocks:
        mask[slice(*rows), slice(*columns)] = True
    return mask


def test_a_row_of_five_pixels_is_five_pixels_long_and_one_wide():
    assert diameters(mask_of((9, 9), ((3, 4), (2, 7))), (1.0, 1.0)) == pytest.approx((5.0, 1.0))


def test_spacing_of_rows_and_columns_is_not_mixed_up():
    row, column = mask_of((9, 9), ((3, 4), (2, 7))), mask_of((9, 9), ((2, 7), (3, 4)))
    assert diameters(row, (0.5, 2.0)) == pytest.approx((10.0, 0.5))
    assert diameters(column, (2.0, 0.5)) == pytest.approx((10.0, 0.5))


def test_a_single_pixel_measures_one_pixel():
    assert diameters(mask_of((5, 5), ((2, 3), (2, 3))), (1.0, 1.0)) == pytest.approx((1.0, 1.0))


def test_a_tilted_ellipse_has_its_two_axes():
    """Pixels make the border uneven: within one pixel of axes of 100 and 40."""
    rows, columns = np.mgrid[-60:61, -60:61]
    along, across = 0.8 * rows + 0.6 * columns, 0.6 * rows - 0.8 * columns
    found = diameters((along / 50) ** 2 + (across / 20) ** 2 <= 1, (1.0, 1.0))
    assert found.longest_mm == pytest.approx(100, abs=1)
    assert found.perpendicular_mm == pytest.approx(40, abs=1)


def test_the_perpendicular_is_a_line_through_the_lesion_and_not_the_width_of_its_shadow():
    """A rhomboid from (-50, 0) to (50, 0) with corners at (-30, 20) and (30, -20): its shadow is 40 high.

    Below the upper corner the other side is at -5: the line is 25 long.
    """
    rows, columns = np.mgrid[-30:31, -60:61]
    upper = np.interp(columns, [-50, -30, 50], [0, 20, 0], left=-1, right=-1)
    lower = np.interp(columns, [-50, 30, 50], [0, -20, 0], left=1, right=1)
    found = diameters((lower <= rows) & (rows <= upper), (1.0, 1.0))
    assert found.longest_mm == pytest.approx(100, abs=1)
    assert found.perpendicular_mm == pytest.approx(25, abs=1)


def test_two_lesions_of_a_slice_are_measured_apart():
    mask = mask_of((40, 40), ((2, 8), (2, 8)), ((20, 21), (20, 35)))
    square = diameters(mask_of((40, 40), ((2, 8), (2, 8))), (1.0, 1.0))
    assert largest_diameters(mask, (1.0, 1.0)) == pytest.approx(square)


def test_pixels_that_touch_at_a_corner_are_one_lesion():
    mask = np.eye(5, dtype=bool)
    assert largest_diameters(mask, (1.0, 1.0)).longest_mm == pytest.approx(np.hypot(5, 4))


def test_the_lesion_with_the_largest_product_counts_not_the_largest_area():
    mask = mask_of((12, 12), ((0, 1), (0, 12)), ((0, 12), (0, 1)))  # a corner: long and wide, 23 pixels
    corner = largest_diameters(mask, (1.0, 1.0))
    mask[6:11, 6:11] = True  # 25 pixels
    assert largest_diameters(mask, (1.0, 1.0)) == pytest.approx(corner)
