"""Read MATLAB v7.3 files of the figshare data set: the fields of their struct `cjdata`, and the image as a slice.

MATLAB stores arrays in column-major order, so h5py returns each one transposed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cascade.contract import PIXEL_MM, FloatArray
from cascade.errors import CascadeError
from cascade.files import read_errors

MAX_ELEMENTS = 4096**2
"""Maximum size of an array: a header of a few bytes may declare an array larger than the memory."""

SPACING_MM = (PIXEL_MM, PIXEL_MM)
"""Spacing of the 512 x 512 slices, from the README of the data set, which does not give that of the 256 x 256 ones."""

OLD_FORMAT = b"MATLAB 5.0"
"""First bytes of files from before MATLAB v7.3, which are not HDF5."""


TEXT_FIELD = "PID"
"""The only field that contains text."""

NUMERIC_CLASSES = frozenset(
    {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
)
"""Values of the attribute MATLAB_class of arrays of numbers."""

OBJECT_MARK = 0xDD000000
"""First number of the reference that MATLAB stores in place of an object."""

MAX_REFERENCE = 64
"""Maximum length of such a reference."""


def read_image(path: Path) -> tuple[FloatArray, tuple[float, float] | None]:
    """Read the image of a .mat file. The fields for mask and label may be missing.

    Returns:
        Pixels (H, W) float32, and their spacing in millimeters (row, column), None if unknown.

    Raises:
        CascadeError: If the file cannot be read or contains no 2-D image.
    """
    with open_cjdata(path) as cjdata, np.errstate(over="ignore"):  # `check_pixels` rejects infinite pixels
        pixels = read_array(cjdata, "image").astype(np.float32)
    if pixels.ndim != 2:
        raise CascadeError(f"{path}: image of shape {pixels.shape} is not 2-D", fix="save one slice per file")
    return pixels, spacing_of(pixels)


@contextmanager
def open_cjdata(path: Path) -> Iterator[h5py.Group]:
    """Open the struct `cjdata` of a .mat file.

    Raises:
        CascadeError: If anything in the block fails.
    """

    def unreadable(error: Exception) -> CascadeError:
        if isinstance(error, KeyError):
            return CascadeError(
                f"{path}: has no field cjdata.{{PID,label,image,tumorMask}} ({error})",
                fix="give the N.mat files of the figshare data set",
            )
        if _has_old_format(path):
            return CascadeError(
                f"{path}: is in the MATLAB format before v7.3",
                fix="give the N.mat files of the figshare data set, or save yours like them with save(..., '-v7.3')",
            )
        return CascadeError(
            f"{path}: cannot be read as a MATLAB v7.3 file ({error})",
            fix="download or unpack the file again"
            if isinstance(error, OSError)
            else "store the fields as the figshare data set does",
        )

    with read_errors(path, unreadable), h5py.File(path, "r") as file:
        yield _member(file, "cjdata")


def _has_old_format(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(OLD_FORMAT)) == OLD_FORMAT


def _member(group: h5py.Group, name: str) -> Any:
    """Return a member of a group, unless it is a link to another file, which the user may not have meant to share."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise TypeError(f"{name} is stored in another file")
    return group[name]


def read_array(group: h5py.Group, name: str) -> NDArray[Any]:
    """Read an array of numbers, rows first as in MATLAB.

    Raises:
        CascadeError: If MATLAB stored something else in the field, such as a string object or a cell array.
    """
    array = _member(group, name)
    if isinstance(array, h5py.Dataset) and (array.external or array.is_virtual):
        raise TypeError(f"{name} is stored in another file")
    if kind := _other_kind(array, is_text=name == TEXT_FIELD):
        needed = "char" if name == TEXT_FIELD else "a full array of real numbers"
        raise CascadeError(
            f"{group.file.filename}: {name} is a MATLAB {kind}", fix=f"save it as {needed}, with save(..., '-v7.3')"
        )
    if not isinstance(array, h5py.Dataset) or array.shape is None or array.dtype.kind not in "biuf":
        raise TypeError(f"{name} is not an array of numbers")
    if array.size > MAX_ELEMENTS:
        raise ValueError(f"{name} has {array.size:,} elements")
    return np.ascontiguousarray(array[()].T)


def _other_kind(member: Any, *, is_text: bool) -> str | None:
    """Return the kind of a field in MATLAB's words, if it is neither an array of numbers nor, where fitting, text."""
    matlab_class = str(np.bytes_(member.attrs.get("MATLAB_class", b"")), "ascii", "replace")
    if "MATLAB_sparse" in member.attrs:
        return "sparse matrix"
    if "MATLAB_empty" in member.attrs:
        return f"{matlab_class} without elements"
    if isinstance(member, h5py.Dataset) and {"real", "imag"} == set(member.dtype.names or ()):
        return "complex array"
    if matlab_class in ("cell", "struct"):
        return matlab_class
    if matlab_class == "char":
        return None if is_text else "char"
    if matlab_class and matlab_class not in NUMERIC_CLASSES:
        return f"{matlab_class} object"
    return ("string object" if is_text else "object") if _is_object(member) else None


def _is_object(member: Any) -> bool:
    """Return True for a string, table or other object, of which MATLAB stores a reference that only MATLAB resolves."""
    is_short = isinstance(member, h5py.Dataset) and member.dtype == np.uint32 and 0 < member.size <= MAX_REFERENCE
    return is_short and int(member[()].flat[0]) == OBJECT_MARK


def spacing_of(pixels: FloatArray) -> tuple[float, float] | None:
    """Return the pixel spacing in millimeters (row, column) of a slice of the data set; None if unknown."""
    return SPACING_MM if pixels.shape == (512, 512) else None
