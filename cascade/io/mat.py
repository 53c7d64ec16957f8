"""MATLAB v7.3 files of the figshare data set: the fields of their struct `cjdata`, and the image as a slice.

MATLAB stores columns first, so h5py sees every array transposed.
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

MOST_NUMBERS = 4096**2
"""Of one field: a few bytes of a file may tell of more than any memory holds."""

SPACING_MM = (PIXEL_MM, PIXEL_MM)
"""In-plane spacing of the 512 x 512 slices, from the data set's own README, which does not tell that of 256 x 256."""

OLD_FORMAT = b"MATLAB 5.0"
"""First bytes of files from before MATLAB v7.3, which are not HDF5."""


def read_image(path: Path) -> tuple[FloatArray, tuple[float, float] | None]:
    """Read pixels and spacing of an N.mat; its other fields may be missing. Raises CascadeError, naming the file."""
    with cjdata(path) as fields, np.errstate(over="ignore"):  # what leaves float32 is refused as infinite
        pixels = numbers(fields, "image").astype(np.float32)
    if pixels.ndim != 2:
        raise CascadeError(f"{path}: image {pixels.shape} is not one 2-D slice", fix="save one slice a file")
    return pixels, spacing_mm_of(pixels)


@contextmanager
def cjdata(path: Path) -> Iterator[h5py.Group]:
    """The struct of the open file; whatever fails while it is read becomes a CascadeError that names the file."""

    def unreadable(error: Exception) -> CascadeError:
        if isinstance(error, KeyError):
            return CascadeError(
                f"{path}: has no field cjdata.{{PID,label,image,tumorMask}} ({error})",
                fix="give figshare's own N.mat files",
            )
        if _has_old_format(path):
            return CascadeError(
                f"{path}: is in MATLAB's older format, not v7.3", fix="save it in MATLAB with save(..., '-v7.3')"
            )
        return CascadeError(
            f"{path}: cannot be read as a MATLAB v7.3 file ({error})", fix="download or unpack the file again"
        )

    with read_errors(path, unreadable), h5py.File(path, "r") as file:
        yield _own(file, "cjdata")


def _has_old_format(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(OLD_FORMAT)) == OLD_FORMAT


def _own(group: h5py.Group, name: str) -> Any:
    """The member, unless it lies in another file: that may be a pipe, or hold what nobody meant to give."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise TypeError(f"{name} lies in another file")
    return group[name]


def numbers(fields: h5py.Group, name: str) -> NDArray[Any]:
    """The field as MATLAB shows it, rows first."""
    field = _own(fields, name)
    if not isinstance(field, h5py.Dataset) or field.shape is None or field.dtype.kind not in "biuf":
        raise TypeError(f"{name} is no array of numbers")
    if field.external or field.is_virtual:
        raise TypeError(f"{name} lies in another file")
    if field.size > MOST_NUMBERS:
        raise ValueError(f"{name} tells of {field.size:,} numbers")
    return np.ascontiguousarray(field[()].T)


def spacing_mm_of(pixels: FloatArray) -> tuple[float, float] | None:
    return SPACING_MM if pixels.shape == (512, 512) else None
