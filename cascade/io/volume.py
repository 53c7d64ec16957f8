"""A volume that an affine places in the patient: slices in radiological orientation, and a NIfTI mask on its grid.

A NIfTI header describes the volume, also one that is stored in another format. Only the geometry of a header is used:
its free texts (descrip, db_name, ...) may name a patient.
"""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cascade.errors import CascadeError
from cascade.io.lazy import LazyArray
from cascade.io.nifti_header import Header, repair_geometry, repair_scale
from cascade.io.orientation import Grid
from cascade.io.probability import FULL, Uint16Array
from cascade.io.slices import Slice, check_volume_size, slice_of
from cascade.io.source import HeaderSource

GEOMETRY_FIELDS = (
    "dim",
    "pixdim",
    "xyzt_units",
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
)
"""The header fields that a mask copies from its volume."""


def check_axis(path: Path, axis: int | None) -> None:
    """Raise CascadeError if `axis` is no slice axis."""
    if axis not in (None, 0, 1, 2):
        raise CascadeError(f"{path}: slice axis must be 0, 1 or 2, not {axis}", fix="give 0, 1 or 2")


class AffineVolume(HeaderSource):
    """A volume; a `Source`. The first `read` loads its voxels, and `close` frees them.

    Attributes:
        grid: From the stored array to the slices.
        affine: (4, 4), from voxel indices of the stored array to millimeters in RAS+ orientation.
    """

    mask_suffix = ".nii.gz"
    is_volume_file = True

    def __init__(
        self,
        name: str,
        files: tuple[Path, ...],
        header: Header,
        axis: int | None,
        read_voxels: Callable[[], NDArray[Any]],
        notes: tuple[str, ...] = (),
    ) -> None:
        """Take the description of a volume. Reads no voxels.

        Args:
            name: Its name in the results.
            files: Absolute paths of its files.
            header: Describes the voxels: shape of one volume, scale and affine. Impossible values are removed from it.
            axis: Slice axis in the stored array, see `open_nifti`.
            read_voxels: Reads the array, of the three axes of `header`; a CascadeError says why it cannot.
            notes: Warnings for the user.

        Raises:
            CascadeError: If the size of the volume is not that of a head.
        """
        shape = three_axes(header)
        geometry = repair_geometry(header)
        grid = Grid.of(geometry.affine, shape, axis)
        spacing_mm = None if geometry.unknown_axes.intersection(grid.order[1:]) else grid.spacing_mm[1:]
        check_volume_size(files[0], *grid.shape, spacing_mm)
        self.name = name
        self.files = files
        self.count = grid.shape[0]
        self.notes = (*geometry.notes, *repair_scale(header), *notes)
        self.slab_mm = None if geometry.unknown_axes else (_distance_mm(geometry.affine, grid),) * self.count
        self._header = header
        self.grid = grid
        self.affine = geometry.affine
        self._spacing_mm = spacing_mm
        self._voxels = LazyArray(read_voxels)

    @property
    def center_mm(self) -> NDArray[np.float64]:
        """Center of the volume (x, y, z) in millimeters, in RAS+ orientation."""
        middle = (np.array(self.grid.stored_shape) - 1) / 2
        center: NDArray[np.float64] = self.affine[:3, :3] @ middle + self.affine[:3, 3]
        return center

    def read(self, index: int) -> Slice:
        """Read a slice, see `Source.read`. Intensities are scaled by scl_slope and scl_inter only."""
        pixels = self.values(index)
        name = f"{self.files[0]}, slice {index + 1} of {self.count}"
        return slice_of(pixels, name, self._spacing_mm)

    def values(self, index: int) -> NDArray[np.float32]:
        """Read the values (H, W) of a slice unchecked. They may be equal, NaN or infinite, as in a mask or a map."""
        slope, intercept = self._header.get_slope_inter()
        with np.errstate(over="ignore", invalid="ignore"):
            pixels = self.grid.to_slices(self._voxels.get())[index].astype(np.float64)
            if slope is not None:
                pixels = pixels * slope + intercept
            return np.ascontiguousarray(pixels, dtype=np.float32)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode masks (count, H, W) as .nii.gz of uint8: 1 in the tumor, with the geometry of the volume."""
        return self._encode(masks.astype(np.uint8))

    def probability_bytes(self, values: Uint16Array) -> bytes:
        """Encode probabilities as .nii.gz of uint16, which readers scale to 0 to 1, see `Source.probability_bytes`.

        NIfTI has no float16, and float32 would take twice the space.
        """
        return self._encode(values, slope=1 / FULL)

    def _encode(self, slices: NDArray[Any], slope: float | None = None) -> bytes:
        """Encode integers (count, H, W) with the geometry of the volume. Readers multiply them by the slope."""
        header = type(self._header)()
        for field in GEOMETRY_FIELDS:
            header[field] = self._header[field]
        header.set_data_dtype(slices.dtype)
        stored = self.grid.to_stored(slices).reshape(self._header.get_data_shape())
        make: Callable[..., nib.Nifti1Image] = (
            nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        )
        image = make(stored, None, header)
        if slope is not None:
            image.header.set_slope_inter(slope, 0)  # now, since nibabel drops the slope of a header that it is given
        return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)

    def close(self) -> None:
        """Free the volume, see `Source.close`."""
        self._voxels.free()


def _distance_mm(affine: NDArray[np.float64], grid: Grid) -> float:
    """Return the distance of slices along their normal, which is less than that of their voxels in a sheared volume."""
    _, row_mm, column_mm = grid.spacing_mm
    return abs(float(np.linalg.det(affine[:3, :3]))) / (row_mm * column_mm)


def three_axes(header: Header) -> tuple[int, int, int]:
    """Return the shape of the one volume that a header describes, filled up to three axes."""
    first, second, third = (*(int(size) for size in header["dim"][1 : int(header["dim"][0]) + 1]), 1, 1)[:3]
    return first, second, third
