"""Read NIfTI volumes (.nii and .nii.gz) as slices in radiological orientation, and write masks on their voxel grid.

Only the geometry of a header is used: its free texts (descrip, db_name, ...) may name a patient.
"""

import gzip
import math
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.nifti_header import Header, damaged_error, read_header, repair_geometry, repair_scale, shape_of
from cascade.io.orientation import Grid, nearest_axis
from cascade.io.slices import Slice, check_volume_size, slice_of

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

MAX_VOXEL_OFFSET = 64 * 1024**2
"""Maximum number of bytes before the voxels."""


def open_nifti(path: Path, name: str, axis: int | None = None, plane: int | None = None) -> "NiftiSource":
    """Open a NIfTI volume. Reads the header only.

    Args:
        path: The file.
        name: Its name in the results.
        axis: Slice axis in the stored array: 0, 1 or 2. None selects the only axis of one voxel; otherwise the one with
            the largest spacing; otherwise the one closest to inferior-superior.
        plane: Plane of the slices, see `Grid.plane`. If the selected axis gives another one, the axis nearest to its
            normal takes its place.

    Raises:
        CascadeError: If the file does not contain one MRI volume.
    """
    if axis not in (None, 0, 1, 2):
        raise CascadeError(f"{path}: slice axis must be 0, 1 or 2, not {axis}", fix="give 0, 1 or 2")
    path = path.absolute()
    with read_errors(path, lambda _: damaged_error(path, "its header cannot be read")):
        with _open(path) as file:
            header = read_header(path, file)
        shape = shape_of(path, header)
        geometry = repair_geometry(header)
        grid = Grid.of(geometry.affine, shape, axis)
        if plane is not None and plane != grid.plane:
            grid = Grid.of(geometry.affine, shape, nearest_axis(geometry.affine, plane))
        spacing_mm = None if geometry.unknown_axes.intersection(grid.order[1:]) else grid.spacing_mm[1:]
        start, end = _extent(header)
        scale_notes = repair_scale(header)
    check_volume_size(path, *grid.shape, spacing_mm)
    if start > MAX_VOXEL_OFFSET or (not _is_compressed(path) and path.stat().st_size < end):
        raise damaged_error(path, "it is shorter than its header declares")
    return NiftiSource(path, name, header, grid, geometry.affine, spacing_mm, (*geometry.notes, *scale_notes))


class NiftiSource:
    """A NIfTI volume; a `Source`. The first `read` loads its voxels, and `close` frees them.

    Attributes:
        grid: From the stored array to the slices.
        affine: (4, 4), from voxel indices of the stored array to millimeters in RAS+ orientation.
    """

    mask_suffix = ".nii.gz"

    def __init__(
        self,
        path: Path,
        name: str,
        header: Header,
        grid: Grid,
        affine: NDArray[np.float64],
        spacing_mm: tuple[float, float] | None,
        notes: tuple[str, ...],
    ) -> None:
        self.name = name
        self.files = (path,)
        self.count = grid.shape[0]
        self.notes = notes
        self.slab_mm = grid.spacing_mm[:1] * self.count if spacing_mm else None
        self._header = header
        self.grid = grid
        self.affine = affine
        self._spacing_mm = spacing_mm
        self._lock = threading.Lock()
        self._loaded: NDArray[Any] | CascadeError | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the volume without the voxels and the lock."""
        return NiftiSource, (
            self.files[0],
            self.name,
            self._header,
            self.grid,
            self.affine,
            self._spacing_mm,
            self.notes,
        )

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
            pixels = self.grid.to_slices(self._stored())[index].astype(np.float64)
            if slope is not None:
                pixels = pixels * slope + intercept
            return np.ascontiguousarray(pixels, dtype=np.float32)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode masks (count, H, W) as .nii.gz of uint8: 1 in the tumor, with the geometry of the volume."""
        header = type(self._header)()
        for field in GEOMETRY_FIELDS:
            header[field] = self._header[field]
        header.set_data_dtype(np.uint8)
        stored = self.grid.to_stored(masks).astype(np.uint8).reshape(self._header.get_data_shape())
        image: Callable[..., nib.Nifti1Image] = (
            nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        )
        content = image(stored, None, header).to_bytes()
        return gzip.compress(content, compresslevel=4, mtime=0)

    def close(self) -> None:
        """Free the volume, see `Source.close`."""
        with self._lock:
            self._loaded = None

    def _stored(self) -> NDArray[Any]:
        """Return the array as stored. After an error it is not loaded again for the next slice, but after `close`."""
        with self._lock:
            if self._loaded is None:
                try:
                    voxels = _read_voxels(self.files[0], self._header)
                    self._loaded = voxels.reshape(self.grid.stored_shape, order="F")
                except CascadeError as error:
                    self._loaded = error
            if isinstance(self._loaded, CascadeError):
                raise self._loaded
            return self._loaded


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _open(path: Path) -> BinaryIO:
    """Open a file, decompressed if its content is compressed, whatever its suffix."""
    return cast(BinaryIO, gzip.open(path) if _is_compressed(path) else path.open("rb"))


def _extent(header: Header) -> tuple[int, int]:
    """Return the offsets in the file where the voxels begin and end."""
    start = max(int(header["vox_offset"]), header.template_dtype.itemsize + 4)
    return start, start + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize


def _read_voxels(path: Path, header: Header) -> NDArray[Any]:
    """Read as many voxels as the header declares, however many the file would decompress to."""
    start, end = _extent(header)
    try:
        with _open(path) as file:
            file.seek(start)
            content = file.read(end - start)
            file.read(1)  # at the end of a compressed file, this verifies its checksum
    except (OSError, EOFError, zlib.error):
        raise damaged_error(path, "its voxels cannot be read") from None
    if len(content) < end - start:
        raise damaged_error(path, "it is shorter than its header declares")
    return np.frombuffer(content, header.get_data_dtype())
