"""Read the header of a NIfTI volume, and treat impossible values in it as if they were absent."""

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from cascade.errors import CascadeError

Header = nib.Nifti1Header  # Nifti2Header is a subclass

HEADERS: dict[int, Callable[..., Header]] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
"""Header length in bytes, which is the first field → header class."""

MAX_SIDE = 2**15 - 1
"""Maximum number of voxels along an axis that the header of NIfTI-1 can hold; see `make_header`."""

MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""Unit code in the header → millimeters: meter and micrometer. All other codes are read as millimeters."""

NO_ORIENTATION = "its header gives no orientation: left and right, or up and down, may be swapped"
"""Note on a volume that nothing places in the patient."""

MILLIMETERS = 2
"""The unit code of millimeters."""

MAX_XFORM_CODE = 5
"""Highest valid qform_code and sform_code. Higher ones are read as 0, unknown."""


FORM_FIELDS = {
    "sform": ("srow_x", "srow_y", "srow_z"),
    "qform": ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
}
"""The header fields of the two affines."""

MIN_DETERMINANT = 0.1
"""Minimum determinant of the directions of the axes."""

MAX_QUATERNION = 1.0001
"""Length up to which a quaternion is one of length 1 that was rounded."""

SIZE_TOLERANCE = 0.01
"""Relative difference between the voxel sizes of sform and pixdim up to which it is one of rounding."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Position and size of the voxels.

    Attributes:
        affine: (4, 4), from voxel indices to millimeters: of the sform, else the qform, else the voxel size alone.
        unknown_axes: Stored axes, 0 to 2, along which the header gives no valid voxel size. The affine has 1 there, or
            anything if the header describes two axes only.
        notes: What was missing or ignored.
    """

    affine: NDArray[np.float64]
    unknown_axes: frozenset[int]
    notes: tuple[str, ...]


def read_header(path: Path, file: BinaryIO) -> Header:
    """Read a header as it is stored; nibabel would correct invalid fields with a message on the terminal.

    Raises:
        CascadeError: If it is not that of NIfTI, or of Analyze, its predecessor, which `storage_of` distinguishes.
    """
    content = file.read(max(HEADERS))
    for size, endianness in itertools.product(HEADERS, "<>"):
        if content[:4] == struct.pack(f"{endianness}i", size):
            break
    else:
        raise damaged_error(path, "it does not begin like a NIfTI file")
    if len(content) < size:
        raise damaged_error(path, "it ends within its header")
    header: Header = HEADERS[size](content[:size], endianness, check=False)
    return header


def storage_of(header: Header) -> Literal["single file", "pair", "analyze"]:
    """Return where the voxels are, by the magic string of a header. Analyze has none; it is always a pair."""
    magic = header["magic"].tobytes()[:3]
    if magic in (b"n+1", b"n+2"):
        return "single file"
    return "pair" if magic in (b"ni1", b"ni2") else "analyze"


def select_volume(path: Path, header: Header, volume: int | None) -> tuple[int, tuple[str, ...]]:
    """Check the shape and type of the voxels, and reduce a header of several volumes to one of them.

    Args:
        path: The file, for error messages.
        header: Describes the file. Axes of several volumes are removed from it.
        volume: Number of the volume, from 0. A file of one volume is read whatever it is.

    Returns:
        The number of volumes before the selected one, and the note that says which it is.

    Raises:
        CascadeError: If the header does not describe a volume of real numbers, or none is selected of several.
    """
    axes = int(header["dim"][0])
    if not 2 <= axes <= 7:
        raise damaged_error(path, f"its header declares {axes} axes")
    header["dim"][4:] = np.maximum(header["dim"][4:], 1)  # NIfTI's reference library reads sizes of 0 so
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if min(sizes) < 1:
        raise damaged_error(path, "its header declares an axis without voxels")
    dtype = header.get_data_dtype()
    if dtype.fields is not None:
        raise CascadeError(f"{path}: contains color", fix="give the intensities that the scanner stored")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise unsupported_dtype(path, dtype)
    count = math.prod(sizes[3:])
    if count == 1:
        return 0, ()
    if volume is None or not 0 <= volume < count:
        raise CascadeError(
            f"{path}: contains {count:,} volumes{'' if volume is None else f', but none of number {volume}'}",
            fix=f"choose the T1 volume with contrast agent by --volume 0 to {count - 1} (in Python: volume_number), "
            "or save it as a file",
        )
    header["dim"][0], header["dim"][4:] = 3, 1
    return volume, (f"volume {volume} of {count:,}, counted from 0",)


def make_header(
    path: Path,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    affine: NDArray[np.float64],
    unknown_axes: Sequence[int] = (),
) -> Header:
    """Describe a volume of another format by a NIfTI header.

    Args:
        path: The file, for error messages.
        shape: Number of voxels along 1 to 7 axes.
        dtype: Type of the voxels.
        affine: (4, 4), from voxel indices to millimeters in RAS+ orientation.
        unknown_axes: Axes, 0 to 2, of which the affine gives the direction, but not the voxel size.

    Raises:
        CascadeError: If NIfTI cannot describe it, since it is too large or has an unknown dtype.
    """
    if max(shape) > MAX_SIDE:
        raise CascadeError(
            f"{path}: an axis of {max(shape):,} voxels is too long for an MRI volume", fix="give one volume of a head"
        )
    header: Header = nib.Nifti1Header()
    try:
        header.set_data_dtype(dtype)
    except HeaderDataError:
        raise unsupported_dtype(path, dtype) from None
    header["dim"][:] = 1
    header["dim"][0], header["dim"][1 : len(shape) + 1] = len(shape), shape
    header["xyzt_units"] = MILLIMETERS
    if unknown_axes:
        header.set_qform(affine, 1)  # takes the voxel size from pixdim, where it can be absent
        header["pixdim"][[1 + axis for axis in unknown_axes]] = 0
        return header
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header["sform_code"] = 1
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    return header


def unsupported_dtype(path: Path, dtype: np.dtype[Any]) -> CascadeError:
    """Return the error for voxels that are no real numbers of at most 64 bits."""
    return CascadeError(f"{path}: its voxels have the unsupported dtype {dtype}", fix="save it as integers or float32")


def repair_geometry(header: Header) -> Geometry:
    """Remove impossible values from the geometry fields of a header, which a mask copies, and return the rest."""
    notes = []
    unknown_axes = _repair_voxel_size(header)
    _repair_quaternion(header)
    for form in ("sform", "qform"):
        if not 0 < header[f"{form}_code"] <= MAX_XFORM_CODE:
            header[f"{form}_code"] = 0
        elif not _has_valid_affine(header, form):
            notes.append(f"its {form} is not a valid affine and was ignored")
            header[f"{form}_code"] = 0
            for field in FORM_FIELDS[form]:
                header[field] = 0
    if int(header["sform_code"]) > 0:
        if not unknown_axes and _contradicts_voxel_size(header):
            notes.append("its sform and its voxel size (pixdim) differ: lengths and sides are those of the sform")
        if unknown_axes:
            notes.append("its voxel size (pixdim) is not valid and was ignored: its sform gives the size")
        unknown_axes = frozenset()
    elif unknown_axes:
        axes = " and ".join(str(axis) for axis in sorted(unknown_axes))
        notes.append(f"its header gives no valid voxel size along axis {axes}, where its mask has 1 mm")
    if absent_axes := frozenset(range(int(header["dim"][0]), 3)):
        notes.append("its header describes a slice of two axes: the thickness is unknown")
    if int(header["sform_code"]) == int(header["qform_code"]) == 0:
        notes.append(NO_ORIENTATION)
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return Geometry(affine, unknown_axes | absent_axes, tuple(notes))


def _contradicts_voxel_size(header: Header) -> bool:
    """Return True if the voxels of the sform are not as large as pixdim says, as after an affine registration."""
    axes = int(header["dim"][0])
    sizes = np.linalg.norm(np.asarray(header.get_sform(), np.float64)[:3, :3], axis=0)
    return not np.allclose(sizes[:axes], header["pixdim"][1:4][:axes], rtol=SIZE_TOLERANCE)


def _repair_voxel_size(header: Header) -> frozenset[int]:
    """Set missing and impossible sizes in pixdim to 1, and return the axes of the volume concerned."""
    zooms = header["pixdim"]
    if zooms[0] not in (-1, 1):
        zooms[0] = 1  # as the standard defines for 0, which is common
    zooms[1:4] = np.abs(zooms[1:4])
    zooms[1 + int(header["dim"][0]) :] = 1
    unknown = ~(np.isfinite(zooms[1:4]) & (zooms[1:4] > 0))
    zooms[1:4][unknown] = 1
    return frozenset(np.flatnonzero(unknown).tolist())


def _repair_quaternion(header: Header) -> None:
    """Shorten a quaternion that rounding made longer than 1, as public data have it: nibabel refuses it."""
    length = math.hypot(*(float(header[f"quatern_{name}"]) for name in "bcd"))
    if 1 < length <= MAX_QUATERNION:
        for name in "bcd":
            header[f"quatern_{name}"] = float(header[f"quatern_{name}"]) / length


def _has_valid_affine(header: Header, form: str) -> bool:
    """Return True if the axes of sform or qform have a length, and do not lie in one plane."""
    try:
        affine = np.asarray(header.get_sform() if form == "sform" else header.get_qform(), dtype=np.float64)
    except ValueError:  # a quaternion longer than 1
        return False
    if not np.isfinite(affine).all():
        return False
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    # The determinant is 1 where the axes are perpendicular, and 0 where two are one.
    return bool((sides > 0).all()) and abs(float(np.linalg.det(affine[:3, :3] / sides))) >= MIN_DETERMINANT


def repair_scale(header: Header) -> tuple[str, ...]:
    """Remove impossible values of scl_slope and scl_inter, and return a note if that changes the intensities.

    A slope of 0 or NaN without an intercept means that the intensities are stored as they are.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        header["scl_slope"], header["scl_inter"] = 0, 0
        unused = math.isinf(slope) or (intercept not in (0, 1) and not math.isnan(intercept))
        return ("its scl_slope is not valid: the intensities are not scaled",) if unused else ()
    if not math.isfinite(intercept):
        header["scl_inter"] = 0
        return ("its scl_inter is not valid and was ignored",)
    return ()


def damaged_error(path: Path, problem: str) -> CascadeError:
    """Return the error for a file that is no whole volume of the format that its name or content promises."""
    return CascadeError(f"{path}: {problem}", fix="export it again; the file is truncated, damaged or misnamed")
