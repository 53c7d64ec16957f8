"""Read the mask of a volume onto the slices of the volume."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cascade.errors import CascadeError
from cascade.io.open import open_affine
from cascade.io.orientation import Grid
from cascade.io.slices import BoolArray
from cascade.io.volume import AffineVolume

SPACING_TOLERANCE = 0.01
"""Maximum difference of the pixel spacings of volume and mask, as a fraction."""

SHIFT_TOLERANCE = 0.5
"""Maximum distance of the centers of volume and mask, as a fraction of the smallest distance between voxels."""


@runtime_checkable
class VolumeSource(Protocol):
    """A source with a place in the patient: an `AffineVolume` or a DICOM volume."""

    grid: Grid

    @property
    def center_mm(self) -> NDArray[np.float64] | None:
        """Center of the volume (x, y, z) in millimeters, in RAS+ orientation; None if unknown."""
        ...


def read_volume_mask(path: Path, volume: VolumeSource) -> BoolArray:
    """Read a binary mask that is drawn on the voxels of a volume.

    The stored axes of both may differ in order and direction: their headers say where the voxels are.

    Args:
        path: A file that `open_affine` opens.
        volume: The volume.

    Returns:
        (N, H, W) bool, True on tumor, in the order and orientation of the slices of the volume.

    Raises:
        CascadeError: The file cannot be read, lies on another grid, or has values other than 0 and one positive value.
            Maps of several tissues would otherwise count as tumor.
    """
    mask = _open_in_plane(path, volume.grid.plane)
    _check_grid(path, mask, volume)
    values = np.stack([mask.values(index) for index in range(mask.count)])
    highest = values.max()
    if not (np.isfinite(highest) and highest >= 0 and np.isin(values, (0, highest)).all()):
        raise CascadeError(
            f"{path}: the mask has values other than 0 and one positive value",
            fix="save 0 for background and 1 for tumor; of a map of tissues, choose those that are tumor",
        )
    return values > 0


def _open_in_plane(path: Path, plane: int | None) -> AffineVolume:
    """Open a mask with slices in a plane, see `Grid.plane`; if that is impossible, with the slices that it has."""
    masks: list[AffineVolume] = []
    problems: list[CascadeError] = []
    for axis in (None, 0, 1, 2):
        try:
            masks.append(open_affine(path, axis))
        except CascadeError as error:  # along another axis the slices may be too small
            problems.append(error)
        else:
            if plane in (None, masks[-1].grid.plane):
                return masks[-1]
    if not masks:
        raise problems[0]
    return masks[0]


def _check_grid(path: Path, mask: AffineVolume, volume: VolumeSource) -> None:
    if mask.grid.shape != volume.grid.shape:
        raise CascadeError(
            f"{path}: mask {mask.grid.shape} and volume {volume.grid.shape} differ in shape (slices, rows, columns)",
            fix="draw the mask on the voxels of the volume, or resample it to them",
        )
    spacings, center_mm = (mask.grid.spacing_mm[1:], volume.grid.spacing_mm[1:]), volume.center_mm
    shift_mm = 0.0 if center_mm is None else float(np.linalg.norm(mask.center_mm - center_mm))
    if not np.allclose(*spacings, rtol=SPACING_TOLERANCE) or shift_mm > SHIFT_TOLERANCE * min(mask.grid.spacing_mm):
        raise CascadeError(
            f"{path}: the mask lies elsewhere than the volume: pixels of {_mm(spacings[0])} and {_mm(spacings[1])} mm, "
            f"and centers {shift_mm:.3g} mm apart",
            fix="save the mask with the header of the volume",
        )


def _mm(spacing_mm: tuple[float, ...]) -> str:
    return " x ".join(f"{length:.3g}" for length in spacing_mm)
