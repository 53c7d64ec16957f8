"""The two diameters of a lesion in a slice, as RANO measures them.

RANO takes the longest diameter in the plane of the slice, and the longest diameter perpendicular to it in the same
slice: Wen PY, et al. (2010). Updated response assessment criteria for high-grade gliomas. J Clin Oncol 28, 1963-1972,
doi 10.1200/JCO.2009.26.3541; the same in RANO 2.0, Wen PY, et al. (2023). J Clin Oncol 41, 5187-5199,
doi 10.1200/JCO.23.01059.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

EIGHT_NEIGHBORS = np.ones((3, 3), dtype=bool)

EDGE_CENTERS = np.array([(0.0, -0.5), (0.0, 0.5), (-0.5, 0.0), (0.5, 0.0)])
"""(row, column) from the center of a pixel to the centers of its edges: a row of 5 pixels is 5 pixels long."""


class Diameters(NamedTuple):
    """Diameters of a lesion in one slice, in millimeters.

    Attributes:
        longest_mm: Longest diameter.
        perpendicular_mm: Longest diameter at right angles to it.
    """

    longest_mm: float
    perpendicular_mm: float

    @property
    def product_mm2(self) -> float:
        """Product of both, in square millimeters."""
        return self.longest_mm * self.perpendicular_mm


def largest_diameters(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Diameters:
    """Measure the lesion with the largest product of its diameters in a slice.

    Args:
        mask: (H, W) bool, with at least one pixel. Pixels that touch at an edge or a corner are one lesion.
        spacing_mm: Distance between pixel centers in millimeters: (row, column).
    """
    lesions, _ = label(mask, EIGHT_NEIGHBORS)
    crops = (lesions[region] == number for number, region in enumerate(find_objects(lesions), 1))
    return max((diameters(crop, spacing_mm) for crop in crops), key=lambda found: found.product_mm2)


def diameters(lesion: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Diameters:
    """Measure the convex hull of a lesion (H, W), so that a diameter may cross a notch in its outline."""
    rows = np.flatnonzero(lesion.any(axis=1))
    first, last = lesion[rows].argmax(axis=1), lesion.shape[1] - 1 - lesion[rows, ::-1].argmax(axis=1)
    pixels = np.column_stack([np.tile(rows, 2), np.concatenate([first, last])])  # the hull touches no others
    points = (pixels[:, None, :] + EDGE_CENTERS).reshape(-1, 2) * spacing_mm
    hull = points[ConvexHull(points).vertices]  # counterclockwise
    distances = squareform(pdist(hull))
    start, end = divmod(int(distances.argmax()), len(hull))  # start < end
    hull, end = np.roll(hull, -start, axis=0), end - start
    longest = hull[end] - hull[0]
    longest_mm = float(np.hypot(*longest))
    along, across = hull @ longest / longest_mm, hull @ (-longest[1], longest[0]) / longest_mm
    there, back = np.arange(end + 1), np.append(0, np.arange(len(hull) - 1, end - 1, -1))
    # The width of a convex shape changes linearly between its corners, so its maximum lies at one of them.
    borders = [np.interp(along, along[corners], across[corners]) for corners in (there, back)]
    return Diameters(longest_mm, float(np.abs(borders[0] - borders[1]).max()))
