"""NIfTI volumes, .nii and .nii.gz: any stored orientation in, slices as radiologists see them, masks back to the voxel.

Nothing of a header but its geometry is kept: its free texts (descrip, db_name, ...) may name a patient.
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
from cascade.io.slices import Slice, Source, check_size, checked

Header = nib.Nifti1Header  # Nifti2Header is a subclass

HEADERS: dict[int, tuple[Callable[..., Header], bytes]] = {
    348: (nib.Nifti1Header, b"n+1\0"),
    540: (nib.Nifti2Header, b"n+2\0"),
}
"""By its length in bytes, which a header begins with: its kind, and the magic of voxels in the same file."""

GEOMETRY = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""What a mask's header takes over from its volume's."""

MAX_EXTENSION = 64 * 1024**2
"""Bytes before the voxels."""

MM = {1: 1000.0, 3: 0.001}
"""Of the header's unit of length, by its code: metre and micrometre; all else is taken as millimetre."""

LAST_CODE = 5
"""Of those that tell what space a qform or sform leads to; beyond, none was meant."""


def open_nifti(path: Path, name: str, axis: int | None = None) -> Source:
    """Reads the header only. Raises CascadeError, naming the file and the fix, for what is not one volume of MRI.

    axis  of the stored array (0, 1 or 2), along which slices follow each other. None takes the thickest: the only one
          of a single voxel, else the one of the largest voxel spacing, else the one closest to inferior-superior.
    """
    if axis not in (None, 0, 1, 2):
        raise CascadeError(f"{path}: has no axis {axis}", fix="give 0, 1 or 2")
    path = path.absolute()
    with read_errors(path, lambda _: _damaged(path, "its header cannot be read")):
        with _opened(path) as file:
            header = _read_header(path, file)
        shape = _shape(path, header)
        grid = Grid.of(_affine(path, header), shape, axis)
        start, end = _extent(header)
        header.get_slope_inter()  # raises on what no voxel can be scaled by
    check_size(path, *grid.shape, grid.spacing_mm[1:])
    if start > MAX_EXTENSION or (not _is_compressed(path) and path.stat().st_size < end):
        raise _damaged(path, "it is shorter than its header tells")
    return NiftiSource(path, name, header, grid)


class NiftiSource:
    """One NIfTI volume; a Source. Its voxels are loaded by the first `read` and stay until `close`."""

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
        unknown = ("its header tells no orientation: left and right, up and down may be mistaken",)
        coded = int(self._header["qform_code"]) > 0 or int(self._header["sform_code"]) > 0
        return () if coded else unknown

    def read(self, index: int) -> Slice:
        """scl_slope and scl_inter are applied, nothing else."""
        slope, intercept = self._header.get_slope_inter()
        with np.errstate(over="ignore", invalid="ignore"):  # what leaves float32 is refused as infinite
            pixels = self._grid.shown(self._stored())[index].astype(np.float64)
            if slope is not None:
                pixels = pixels * slope + intercept
            pixels = np.ascontiguousarray(pixels, dtype=np.float32)
        where = f"{self.files[0]}, slice {index + 1} of {self.count}"
        return Slice(checked(pixels, where), self._grid.spacing_mm[1:])

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """uint8, 1 on tumor, of the volume's shape, affine, qform, sform and zooms; the header's texts are empty."""
        header = type(self._header)()
        for field in GEOMETRY:
            header[field] = self._header[field]
        header.set_data_dtype(np.uint8)
        stored = self._grid.stored(masks).astype(np.uint8).reshape(self._header.get_data_shape())
        image: Callable[..., nib.Nifti1Image] = (
            nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        )
        content = image(stored, None, header).to_bytes()
        return gzip.compress(content, compresslevel=4, mtime=0)

    def close(self) -> None:
        with self._lock:
            self._loaded = None

    def _stored(self) -> NDArray[Any]:
        """As the file orders its axes. What cannot be loaded is not tried again for the next slice."""
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


def _opened(path: Path) -> BinaryIO:
    """The NIfTI bytes, whether or not they are compressed, whatever the file's name says."""
    return cast(BinaryIO, gzip.open(path) if _is_compressed(path) else path.open("rb"))


def _read_header(path: Path, file: BinaryIO) -> Header:
    """What nibabel would mend with a message on the terminal is mended here without one."""
    content = file.read(max(HEADERS))
    for size, endianness in itertools.product(HEADERS, "<>"):
        if content[:4] == struct.pack(f"{endianness}i", size):
            break
    else:
        raise _damaged(path, "it does not begin as NIfTI does")
    if len(content) < size:
        raise _damaged(path, "it ends within its header")
    header_class, magic = HEADERS[size]
    header: Header = header_class(content[:size], endianness, check=False)
    if header["magic"].tobytes() != magic:
        raise CascadeError(
            f"{path}: is not NIfTI in one file", fix="convert .hdr and .img to one .nii.gz, for example with dcm2niix"
        )
    for code in ("qform_code", "sform_code"):
        if not 0 <= header[code] <= LAST_CODE:
            header[code] = 0
    zooms = header["pixdim"]
    if zooms[0] not in (-1, 1):
        zooms[0] = 1  # the standard's reading of 0, which many files hold
    zooms[1:4] = np.abs(zooms[1:4])
    zooms[1 + max(int(header["dim"][0]), 0) :] = 1
    return header


def _shape(path: Path, header: Header) -> tuple[int, int, int]:
    """Of the one volume that the file holds; trailing axes of one voxel are dropped, missing ones added."""
    axes = int(header["dim"][0])
    if not 2 <= axes <= 7:
        raise _damaged(path, f"its header tells of {axes} axes")
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if min(sizes) < 1:
        raise _damaged(path, "its header tells of an axis without voxels")
    if (volumes := math.prod(sizes[3:])) > 1:
        raise CascadeError(
            f"{path}: holds {volumes:,} volumes", fix="save the T1 volume with contrast agent in a file of its own"
        )
    if header.get_data_dtype().fields is not None:
        raise CascadeError(f"{path}: holds colour", fix="give the intensities that the scanner stored")
    if header.get_data_dtype().kind not in "iuf" or header.get_data_dtype().itemsize > 8:
        raise CascadeError(
            f"{path}: holds numbers of a kind that no scanner stores", fix="save it as integers or float32"
        )
    first, second, third = (*sizes, 1)[:3]
    return first, second, third


def _affine(path: Path, header: Header) -> NDArray[np.float64]:
    """Voxel indices → mm: the sform, else the qform, else what the zooms alone tell."""
    zooms = header["pixdim"][1:4]
    if not (np.isfinite(zooms).all() and (zooms > 0).all()):
        raise _damaged(path, "its header tells no voxel size")
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (sides > 0).all():
        raise _damaged(path, "its header's place in space is no place")
    if abs(np.linalg.det(affine[:3, :3] / sides)) < 0.1:  # 1 where the axes are perpendicular, 0 where two are one
        raise _damaged(path, "its axes lie in one plane")
    affine[:3] *= MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def _extent(header: Header) -> tuple[int, int]:
    """Where the voxels begin in the file, and where they end."""
    start = max(int(header["vox_offset"]), header.template_dtype.itemsize + 4)
    return start, start + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize


def _read_voxels(path: Path, header: Header) -> NDArray[Any]:
    """As many bytes as the header promised and no more, however many the file would unpack to."""
    start, end = _extent(header)
    try:
        with _opened(path) as file:
            file.seek(start)
            content = file.read(end - start)
            file.read(1)  # a whole compressed file checks its sum here
    except (OSError, EOFError, zlib.error):
        raise _damaged(path, "its voxels cannot be read") from None
    if len(content) < end - start:
        raise _damaged(path, "it is shorter than its header tells")
    return np.frombuffer(content, header.get_data_dtype())


def _damaged(path: Path, what: str) -> CascadeError:
    return CascadeError(f"{path}: {what}", fix="export it again; the file is cut short, damaged or not NIfTI")
