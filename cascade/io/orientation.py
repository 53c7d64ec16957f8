"""How a volume's stored array is seen as slices, the way radiologists hang them."""

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SAME_WITHIN = 1.01
"""Spacings of a lesser ratio count as equal."""

AXIAL = 2  # in canonical order: 0 from left to right, 1 from posterior to anterior, 2 from inferior to superior


@dataclass(frozen=True)
class Grid:
    """How a stored array is seen as (count, H, W) slices.

    Axial: rows from anterior to posterior, columns from right to left. Coronal: rows from superior to inferior, columns
    from right to left. Sagittal: rows from superior to inferior, columns from anterior to posterior. Slices follow each
    other from inferior to superior, posterior to anterior, left to right.

    stored_shape  of three axes.
    order         stored axes along which slices, rows and columns follow each other.
    flipped       which of the three run against the stored direction.
    spacing_mm    between slices, rows and columns.
    """

    stored_shape: tuple[int, int, int]
    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, int, int], axis: int | None) -> "Grid":
        """affine  (4, 4), voxel indices → mm to the right, to anterior, to superior."""
        spacing = [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)]
        # A row each stored axis: the canonical axis and the direction, 1 or -1.
        orientation = nib.io_orientation(affine)
        canonical = [int(row[0]) for row in orientation]
        forward = [bool(row[1] > 0) for row in orientation]
        if axis is None:
            axis = _thickest(spacing, shape, axial=canonical.index(AXIAL))
        column, row = sorted({0, 1, 2} - {axis}, key=lambda stored: canonical[stored])
        order = (axis, row, column)
        # Seen from the feet, the face and the patient's left, both canonical directions run against the picture's.
        flipped = (not forward[axis], forward[row], forward[column])
        return cls(shape, order, flipped, (spacing[axis], spacing[row], spacing[column]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, H, W)."""
        count, height, width = (self.stored_shape[axis] for axis in self.order)
        return count, height, width

    def shown(self, stored: NDArray[Any]) -> NDArray[Any]:
        """A view of the stored array as (count, H, W)."""
        return self._flip(stored.transpose(self.order))

    def stored(self, shown: NDArray[Any]) -> NDArray[Any]:
        """The way back from (count, H, W), also as a view."""
        return self._flip(shown).transpose(np.argsort(self.order))

    def _flip(self, shown: NDArray[Any]) -> NDArray[Any]:
        return shown[tuple(slice(None, None, -1 if flipped else 1) for flipped in self.flipped)]


def _thickest(spacing: list[float], shape: tuple[int, int, int], *, axial: int) -> int:
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    thickest = max(range(3), key=spacing.__getitem__)
    others = [spacing[axis] for axis in range(3) if axis != thickest]
    return thickest if spacing[thickest] > SAME_WITHIN * max(others) else axial
