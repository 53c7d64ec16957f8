"""Connected components of masks across the slices of a volume."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from cascade.contract import FloatArray
from cascade.volume.stack import BoolArray

NEIGHBORS = np.ones((3, 3, 3), dtype=bool)
"""Each pixel touches 26 others. The models see one slice at a time, so an outline shifts from slice to slice, the more
the wider the gap; and two tumors that touch at a corner are better one finding than a slice without support."""


@dataclass(frozen=True, eq=False)
class Components:
    """The components of a stack of masks.

    Attributes:
        shape: (N, H, W) of the masks.
        region: The box that contains all components.
        labels: Labels in that box: 0 outside of the components, which have the numbers 1 to K.
        areas: (N, K) int, pixels of each component in each slice.
    """

    shape: tuple[int, ...]
    region: tuple[slice, ...]
    labels: NDArray[np.int32]
    areas: NDArray[np.int64]

    def mask(self, selected: BoolArray) -> BoolArray:
        """Return the (N, H, W) mask of the selected (K,) components."""
        mask = np.zeros(self.shape, dtype=bool)
        mask[self.region] = np.append(False, selected)[self.labels]
        return mask

    def maxima(self, values: Sequence[FloatArray]) -> NDArray[np.float64]:
        """Return the (N, K) highest value of each component in each slice; 0 where it has no pixels.

        Args:
            values: For each slice, a value of at least 0 for each pixel of its mask, row by row.
        """
        highest = np.zeros(self.areas.shape)
        for index, plane in enumerate(self.labels, self.region[0].start):
            np.maximum.at(highest[index], plane[plane > 0] - 1, values[index])
        return highest


def find_components(masks: BoolArray) -> Components:
    """Label the components of masks (N, H, W), in the box that contains them all: most of a head is empty."""
    regions = find_objects(masks.view(np.uint8))
    region = regions[0] if regions else (slice(0, 0),) * 3
    labels, count = label(masks[region], NEIGHBORS)
    areas = np.zeros((len(masks), count), dtype=np.int64)
    for index, plane in enumerate(labels, region[0].start):
        areas[index] = np.bincount(plane.ravel(), minlength=count + 1)[1:]
    return Components(masks.shape, region, labels, areas)
