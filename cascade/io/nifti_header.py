"""Read the header of a NIfTI volume, and treat impossible values in it as if they were absent."""

import itertools
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cascade.errors import CascadeError

Header = nib.Nifti1Header  # Nifti2Header is a subclass

HEADERS: dict[int, tuple[Callable[..., Header], bytes]] = {
    348: (nib.Nifti1Header, b"n+1\0"),
    540: (nib.Nifti2Header, b"n+2\0"),
}
"""Header length in bytes, which is the first field → header class, and the magic string of single-file NIfTI."""

MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""Unit code in the header → millimeters: meter and micrometer. All other codes are read as millimeters."""

MAX_XFORM_CODE = 5
"""Highest valid qform_code and sform_code. Higher ones are read as 0, unknown."""


FORM_FIELDS = {
    "sform": ("srow_x", "srow_y", "srow_z"),
    "qform": ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
}
"""The header fields of the two affines."""

MIN_DETERMINANT = 0.1
"""Minimum determinant of the directions of the axes."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Position and size of the voxels.

    Attributes:
        affine: (4, 4), from voxel indices to millimeters: of the sform, else the qform, else the voxel size alone.
        unknown_axes: Stored axes, 0 to 2, along which the header gives no valid voxel size. The affine has 1 there.
        notes: What was missing or ignored.
    """

    affine: NDArray[np.float64]
    unknown_axes: frozenset[int]
    notes: tuple[str, ...]


def read_header(path: Path, file: BinaryIO) -> Header:
    """Read a header as it is stored; nibabel would correct invalid fields with a message on the terminal."""
    content = file.read(max(HEADERS))
    for size, endianness in itertools.product(HEADERS, "<>"):
        if content[:4] == struct.pack(f"{endianness}i", size):
            break
    else:
        raise damaged_error(path, "it does not begin like a NIfTI file")
    if len(content) < size:
        raise damaged_error(path, "it ends within its header")
    header_class, magic = HEADERS[size]
    header: Header = header_class(content[:size], endianness, check=False)
    if header["magic"].tobytes() != magic:
        raise CascadeError(
            f"{path}: is not single-file NIfTI", fix="convert .hdr and .img to one .nii.gz, for example with dcm2niix"
        )
    return header


def shape_of(path: Path, header: Header) -> tuple[int, int, int]:
    """Return the 3-D shape of the volume: without trailing axes of one voxel, or with added ones."""
    axes = int(header["dim"][0])
    if not 2 <= axes <= 7:
        raise damaged_error(path, f"its header declares {axes} axes")
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if min(sizes) < 1:
        raise damaged_error(path, "its header declares an axis without voxels")
    if (volumes := math.prod(sizes[3:])) > 1:
        raise CascadeError(
            f"{path}: contains {volumes:,} volumes", fix="save the T1 volume with contrast agent as a separate file"
        )
    dtype = header.get_data_dtype()
    if dtype.fields is not None:
        raise CascadeError(f"{path}: contains color", fix="give the intensities that the scanner stored")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise CascadeError(
            f"{path}: its voxels have the unsupported dtype {dtype.name}", fix="save it as integers or float32"
        )
    first, second, third = (*sizes, 1)[:3]
    return first, second, third


def repair_geometry(header: Header) -> Geometry:
    """Remove impossible values from the geometry fields of a header, which a mask copies, and return the rest."""
    notes = []
    unknown_axes = _repair_voxel_size(header)
    for form in ("sform", "qform"):
        if not 0 < header[f"{form}_code"] <= MAX_XFORM_CODE:
            header[f"{form}_code"] = 0
        elif not _has_valid_affine(header, form):
            notes.append(f"its {form} is not a valid affine and was ignored")
            header[f"{form}_code"] = 0
            for field in FORM_FIELDS[form]:
                header[field] = 0
    if int(header["sform_code"]) > 0:
        if unknown_axes:
            notes.append("its voxel size (pixdim) is not valid and was ignored: its sform gives the size")
        unknown_axes = frozenset()
    elif unknown_axes:
        axes = " and ".join(str(axis) for axis in sorted(unknown_axes))
        notes.append(f"its header gives no valid voxel size along axis {axes}, where its mask has 1 mm")
    if int(header["sform_code"]) == int(header["qform_code"]) == 0:
        notes.append("its header gives no orientation: left and right, or up and down, may be swapped")
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return Geometry(affine, unknown_axes, tuple(notes))


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
    """Return the error for a file that is no whole NIfTI volume."""
    return CascadeError(f"{path}: {problem}", fix="export it again; the file is truncated, damaged or not NIfTI")
