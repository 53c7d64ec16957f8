"""Read NIfTI volumes (.nii and .nii.gz) as slices in radiological orientation, and write masks on their voxel grid.

Only the geometry of a header is used: its free texts (descrip, db_name, ...) may name a patient.
"""

import gzip
import itertools
import math
import struct
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
from cascade.io.orientation import Grid
from cascade.io.slices import Slice, Source, check_pixels, check_volume_size

Header = nib.Nifti1Header  # Nifti2Header is a subclass

HEADERS: dict[int, tuple[Callable[..., Header], bytes]] = {
    348: (nib.Nifti1Header, b"n+1\0"),
    540: (nib.Nifti2Header, b"n+2\0"),
}
"""Header length in bytes, which is the first field → header class, and the magic string of single-file NIfTI."""

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

MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""Unit code in the header → millimeters: meter and micrometer. All other codes are read as millimeters."""

MAX_XFORM_CODE = 5
"""Highest valid qform_code and sform_code. Higher ones are read as 0, unknown."""


def open_nifti(path: Path, name: str, axis: int | None = None) -> Source:
    """Open a NIfTI volume. Reads the header only.

    Args:
        path: The file.
        name: Its name in the results.
        axis: Slice axis in the stored array: 0, 1 or 2. None selects the only axis of one voxel; otherwise the one with
            the largest spacing; otherwise the one closest to inferior-superior.

    Raises:
        CascadeError: If the file does not contain one MRI volume.
    """
    if axis not in (None, 0, 1, 2):
        raise CascadeError(f"{path}: slice axis must be 0, 1 or 2, not {axis}", fix="give 0, 1 or 2")
    path = path.absolute()
    with read_errors(path, lambda _: _damaged_error(path, "its header cannot be read")):
        with _open(path) as file:
            header = _read_header(path, file)
        shape = _shape(path, header)
        grid = Grid.of(_affine(path, header), shape, axis)
        start, end = _extent(header)
        header.get_slope_inter()  # raises an exception if the scale is invalid
    check_volume_size(path, *grid.shape, grid.spacing_mm[1:])
    if start > MAX_VOXEL_OFFSET or (not _is_compressed(path) and path.stat().st_size < end):
        raise _damaged_error(path, "it is shorter than its header declares")
    return NiftiSource(path, name, header, grid)


class NiftiSource:
    """A NIfTI volume; a `Source`. The first `read` loads its voxels, and `close` frees them."""

    mask_suffix = ".nii.gz"

    def __init__(self, path: Path, name: str, header: Header, grid: Grid) -> None:
        self.name = name
        self.files = (path,)
        self.count = grid.shape[0]
        self._header = header
        self._grid = grid
        self._lock = threading.Lock()
        self._loaded: NDArray[Any] | CascadeError | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Source.notes`: whether the header lacks the orientation."""
        if int(self._header["qform_code"]) > 0 or int(self._header["sform_code"]) > 0:
            return ()
        return ("its header gives no orientation: left and right, or up and down, may be swapped",)

    def read(self, index: int) -> Slice:
        """Read a slice, see `Source.read`. Intensities are scaled by scl_slope and scl_inter only."""
        slope, intercept = self._header.get_slope_inter()
        with np.errstate(over="ignore", invalid="ignore"):  # `check_pixels` rejects infinite pixels
            pixels = self._grid.to_slices(self._stored())[index].astype(np.float64)
            if slope is not None:
                pixels = pixels * slope + intercept
            pixels = np.ascontiguousarray(pixels, dtype=np.float32)
        name = f"{self.files[0]}, slice {index + 1} of {self.count}"
        return Slice(check_pixels(pixels, name), self._grid.spacing_mm[1:])

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode masks (count, H, W) as .nii.gz of uint8: 1 in the tumor, with the geometry of the volume."""
        header = type(self._header)()
        for field in GEOMETRY_FIELDS:
            header[field] = self._header[field]
        header.set_data_dtype(np.uint8)
        stored = self._grid.to_stored(masks).astype(np.uint8).reshape(self._header.get_data_shape())
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
                    self._loaded = voxels.reshape(self._grid.stored_shape, order="F")
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


def _read_header(path: Path, file: BinaryIO) -> Header:
    """Read a header and correct invalid fields that nibabel would correct with a message on the terminal."""
    content = file.read(max(HEADERS))
    for size, endianness in itertools.product(HEADERS, "<>"):
        if content[:4] == struct.pack(f"{endianness}i", size):
            break
    else:
        raise _damaged_error(path, "it does not begin like a NIfTI file")
    if len(content) < size:
        raise _damaged_error(path, "it ends within its header")
    header_class, magic = HEADERS[size]
    header: Header = header_class(content[:size], endianness, check=False)
    if header["magic"].tobytes() != magic:
        raise CascadeError(
            f"{path}: is not single-file NIfTI", fix="convert .hdr and .img to one .nii.gz, for example with dcm2niix"
        )
    for code in ("qform_code", "sform_code"):
        if not 0 <= header[code] <= MAX_XFORM_CODE:
            header[code] = 0
    zooms = header["pixdim"]
    if zooms[0] not in (-1, 1):
        zooms[0] = 1  # as the standard defines for 0, which is common
    zooms[1:4] = np.abs(zooms[1:4])
    zooms[1 + max(int(header["dim"][0]), 0) :] = 1
    return header


def _shape(path: Path, header: Header) -> tuple[int, int, int]:
    """Return the 3-D shape of the volume: without trailing axes of one voxel, or with added ones."""
    axes = int(header["dim"][0])
    if not 2 <= axes <= 7:
        raise _damaged_error(path, f"its header declares {axes} axes")
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if min(sizes) < 1:
        raise _damaged_error(path, "its header declares an axis without voxels")
    if (volumes := math.prod(sizes[3:])) > 1:
        raise CascadeError(
            f"{path}: contains {volumes:,} volumes", fix="save the T1 volume with contrast agent as a separate file"
        )
    if header.get_data_dtype().fields is not None:
        raise CascadeError(f"{path}: contains color", fix="give the intensities that the scanner stored")
    if header.get_data_dtype().kind not in "iuf" or header.get_data_dtype().itemsize > 8:
        raise CascadeError(f"{path}: its voxels have an unsupported dtype", fix="save it as integers or float32")
    first, second, third = (*sizes, 1)[:3]
    return first, second, third


def _affine(path: Path, header: Header) -> NDArray[np.float64]:
    """Return the (4, 4) matrix from voxel indices to millimeters, by sform, else qform, else voxel size."""
    zooms = header["pixdim"][1:4]
    if not (np.isfinite(zooms).all() and (zooms > 0).all()):
        raise _damaged_error(path, "its header gives no valid voxel size")
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (sides > 0).all():
        raise _damaged_error(path, "its affine is not valid")
    if abs(np.linalg.det(affine[:3, :3] / sides)) < 0.1:  # 1 where the axes are perpendicular, 0 where two are one
        raise _damaged_error(path, "the axes of its affine lie in one plane")
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


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
        raise _damaged_error(path, "its voxels cannot be read") from None
    if len(content) < end - start:
        raise _damaged_error(path, "it is shorter than its header declares")
    return np.frombuffer(content, header.get_data_dtype())


def _damaged_error(path: Path, problem: str) -> CascadeError:
    return CascadeError(f"{path}: {problem}", fix="export it again; the file is truncated, damaged or not NIfTI")
