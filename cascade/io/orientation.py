"""View the stored array of a volume as slices in radiological orientation: one rule for NIfTI and DICOM."""

from dataclasses import dataclass
from typing import Any

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
        plane: 0 sagittal, 1 coronal, 2 axial; None if the orientation is unknown.
    """

    stored_shape: tuple[int, int, int]
    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]
    plane: int | None = None

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, int, int], axis: int | None) -> "Grid":
        """Create the grid of a volume.

        Args:
            affine: (4, 4), from voxel indices to millimeters in RAS+ orientation.
            shape: Shape of the stored array.
            axis: Slice axis in the stored array; None selects the thickest, see `open_nifti`.
        """
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        first, second, third = (float(side) for side in sides)
        return cls.along(affine[:3, :3] / sides, (first, second, third), shape, axis)

    @classmethod
    def along(
        cls,
        directions: NDArray[np.float64],
        spacing_mm: tuple[float, float, float],
        shape: tuple[int, int, int],
        axis: int | None,
    ) -> "Grid":
        """Create the grid of a volume from the directions of its axes.

        Args:
            directions: (3, 3); each column is the direction of a stored axis, of length 1, in RAS+ orientation.
            spacing_mm: Distance between voxels along each stored axis, in millimeters.
            shape: Shape of the stored array.
            axis: Slice axis in the stored array; None selects the thickest, see `open_nifti`.
        """
        if axis is None:
            axis = _thickest(spacing_mm, shape, axial=int(np.abs(directions[AXIAL]).argmax()))
        canonical = _nearest_axes(directions, axis)
        column, row = sorted({0, 1, 2} - {axis}, key=canonical.__getitem__)
        order = (axis, row, column)
        forward = [bool(directions[canonical[stored], stored] > 0) for stored in range(3)]
        # Seen from the feet, the face and the patient's left, rows and columns run against the canonical directions.
        flipped = (not forward[axis], forward[row], forward[column])
        return cls(shape, order, flipped, (spacing_mm[axis], spacing_mm[row], spacing_mm[column]), canonical[axis])

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


def _nearest_axes(directions: NDArray[np.float64], axis: int) -> list[int]:
    """Return the canonical axis of each stored axis: the nearest plane, and in it the nearest rows and columns.

    Depends on the position of the slices in the patient only, not on the way they are stored: `nibabel.io_orientation`
    assigns the stored axes one after the other, so that turned copies of an oblique slice may be displayed differently.
    """
    one, other = sorted({0, 1, 2} - {axis})
    normal = np.abs(np.cross(directions[:, one], directions[:, other])).round(6)
    plane = max(range(3), key=lambda canonical: (normal[canonical], canonical))  # halfway: axial before coronal
    horizontal, vertical = sorted({0, 1, 2} - {plane})

    def fit(across: int, down: int) -> tuple[float, bool]:
        cosines = abs(directions[horizontal, across]) + abs(directions[vertical, down])
        return round(float(cosines), 6), bool(directions[horizontal, across] * directions[vertical, across] > 0)

    if fit(one, other) < fit(other, one):  # at 45 degrees, the sign decides
        one, other = other, one
    canonical = [plane] * 3
    canonical[one], canonical[other] = horizontal, vertical
    return canonical


def _thickest(spacing: tuple[float, float, float], shape: tuple[int, int, int], *, axial: int) -> int:
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    thickest = max(range(3), key=spacing.__getitem__)
    others = [spacing[axis] for axis in range(3) if axis != thickest]
    return thickest if spacing[thickest] > SAME_WITHIN * max(others) else axial
