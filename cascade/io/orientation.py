"""View the stored array of a volume as slices in radiological orientation."""

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SAME_WITHIN = 1.01
"""Spacings with a smaller ratio count as equal."""

AXIAL = 2  # canonical axes: 0 from left to right, 1 from posterior to anterior, 2 from inferior to superior


@dataclass(frozen=True)
class Grid:
    """The mapping between a stored 3-D array and its slices (count, H, W).

    | orientation | slices                | rows                  | columns               |
    | ----------- | --------------------- | --------------------- | --------------------- |
    | axial       | inferior to superior  | anterior to posterior | right to left         |
    | coronal     | posterior to anterior | superior to inferior  | right to left         |
    | sagittal    | left to right         | superior to inferior  | anterior to posterior |

    Attributes:
        stored_shape: Shape of the stored array.
        order: The stored axes of slices, rows and columns.
        flipped: True for each of them that runs against the stored direction.
        spacing_mm: Distance between slices, rows and columns, in millimeters.
    """

    stored_shape: tuple[int, int, int]
    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, int, int], axis: int | None) -> "Grid":
        """Create the grid of a volume.

        Args:
            affine: (4, 4), from voxel indices to millimeters in RAS+ orientation.
            shape: Shape of the stored array.
            axis: Slice axis in the stored array; None selects the thickest, see `open_nifti`.
        """
        spacing = [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)]
        # One row per stored axis: the canonical axis and the direction, 1 or -1.
        orientation = nib.io_orientation(affine)
        canonical = [int(row[0]) for row in orientation]
        forward = [bool(row[1] > 0) for row in orientation]
        if axis is None:
            axis = _thickest(spacing, shape, axial=canonical.index(AXIAL))
        column, row = sorted({0, 1, 2} - {axis}, key=lambda stored: canonical[stored])
        order = (axis, row, column)
        # Seen from the feet, the face and the patient's left, rows and columns run against the canonical directions.
        flipped = (not forward[axis], forward[row], forward[column])
        return cls(shape, order, flipped, (spacing[axis], spacing[row], spacing[column]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, H, W)."""
        count, height, width = (self.stored_shape[axis] for axis in self.order)
        return count, height, width

    def to_slices(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return a view (count, H, W) of the stored array."""
        return self._flip(stored.transpose(self.order))

    def to_stored(self, slices: NDArray[Any]) -> NDArray[Any]:
        """Return a view of slices (count, H, W) in the order of the stored array."""
        return self._flip(slices).transpose(np.argsort(self.order))

    def _flip(self, slices: NDArray[Any]) -> NDArray[Any]:
        return slices[tuple(slice(None, None, -1 if flipped else 1) for flipped in self.flipped)]


def _thickest(spacing: list[float], shape: tuple[int, int, int], *, axial: int) -> int:
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    thickest = max(range(3), key=spacing.__getitem__)
    others = [spacing[axis] for axis in range(3) if axis != thickest]
    return thickest if spacing[thickest] > SAME_WITHIN * max(others) else axial
