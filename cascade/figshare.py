"""The figshare brain tumor data set (Jun Cheng, doi 10.6084/m9.figshare.1512427): one MATLAB v7.3 file a slice.

Each N.mat holds a struct `cjdata`. MATLAB stores columns first, so h5py sees every array transposed:

    PID          (n, 1) uint16     patient id, one character code a row
    label        (1, 1) float64    1 meningioma, 2 glioma, 3 pituitary tumor
    image        (W, H) any type   the slice
    tumorMask    (W, H) uint8      1 on the tumor
    tumorBorder  (1, 2k) float64   points on the border of the tumor; the mask is drawn from it, so it is not read
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cascade.contract import CLASS_NAMES, PIXEL_MM
from cascade.errors import CascadeError
from cascade.files import reading

PUBLISHED_SLICES = 3064
"""1.mat to 3064.mat, in four zips."""

MOST_NUMBERS = 4096**2
"""Of one field: a few bytes of a file may tell of more than any memory holds."""

SPACING_MM = (PIXEL_MM, PIXEL_MM)
"""In-plane spacing of the 512 x 512 slices, from the data set's own README, which does not tell that of 256 x 256."""


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """A slice with what an expert says of it.

    pixels      (H, W) float32, raw intensities.
    mask        (H, W) bool, True on tumor.
    label       one of CLASS_NAMES.
    patient     the patient's id as it is stored.
    spacing_mm  (row, column), None where not known.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    label: str
    patient: str
    spacing_mm: tuple[float, float] | None


def read_mat(path: Path) -> LabelledSlice:
    """Raises CascadeError, naming the file, where it is missing, broken or laid out otherwise."""
    with _cjdata(path) as fields:
        pixels, mask = _numbers(fields, "image").astype(np.float32), _numbers(fields, "tumorMask") > 0
        number = float(_numbers(fields, "label").item())
        patient = _patient(_numbers(fields, "PID").ravel())
    if pixels.ndim != 2 or mask.shape != pixels.shape:
        raise CascadeError(
            f"{path}: image {pixels.shape} and tumorMask {mask.shape} are not one 2-D grid",
            fix="download the file again",
        )
    if number not in range(1, len(CLASS_NAMES) + 1):
        raise CascadeError(f"{path}: label {number:g} is not 1, 2 or 3", fix="correct the label or leave the file out")
    if not (patient and patient.isprintable()):
        raise CascadeError(
            f"{path}: has no patient id in PID", fix="store one: without it no split can keep people apart"
        )
    return LabelledSlice(pixels, mask, CLASS_NAMES[int(number) - 1], patient, _spacing_mm(pixels))


def read_image(path: Path) -> tuple[NDArray[np.float32], tuple[float, float] | None]:
    """Pixels and spacing of an N.mat of which nothing else need be there; raises CascadeError as `read_mat` does."""
    with _cjdata(path) as fields, np.errstate(over="ignore"):  # what leaves float32 is refused as infinite
        pixels = _numbers(fields, "image").astype(np.float32)
    if pixels.ndim != 2:
        raise CascadeError(f"{path}: image {pixels.shape} is not one 2-D slice", fix="save one slice a file")
    return pixels, _spacing_mm(pixels)


@contextmanager
def _cjdata(path: Path) -> Iterator[h5py.Group]:
    """The struct of the open file; whatever fails while it is read becomes a CascadeError that names the file."""

    def unreadable(error: Exception) -> CascadeError:
        if isinstance(error, KeyError):
            return CascadeError(
                f"{path}: has no field cjdata.{{PID,label,image,tumorMask}} ({error})",
                fix="give figshare's own N.mat files",
            )
        if path.is_file() and path.open("rb").read(10) == b"MATLAB 5.0":
            return CascadeError(
                f"{path}: is in MATLAB's older format, not v7.3", fix="save it in MATLAB with save(..., '-v7.3')"
            )
        return CascadeError(
            f"{path}: cannot be read as a MATLAB v7.3 file ({error})", fix="download or unpack the file again"
        )

    with reading(path, unreadable), h5py.File(path, "r") as file:
        yield _own(file, "cjdata")


def _own(group: h5py.Group, name: str) -> Any:
    """The member, unless it lies in another file: that may be a pipe, or hold what nobody meant to give."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise TypeError(f"{name} lies in another file")
    return group[name]


def _numbers(fields: h5py.Group, name: str) -> NDArray[Any]:
    """The field as MATLAB shows it, rows first."""
    field = _own(fields, name)
    if not isinstance(field, h5py.Dataset) or field.shape is None or field.dtype.kind not in "biuf":
        raise TypeError(f"{name} is no array of numbers")
    if field.external or field.is_virtual:
        raise TypeError(f"{name} lies in another file")
    if field.size > MOST_NUMBERS:
        raise ValueError(f"{name} tells of {field.size:,} numbers")
    return np.ascontiguousarray(field[()].T)


def _patient(codes: NDArray[Any]) -> str:
    """MATLAB stores text as 16-bit character codes; one value of another type is an id that was stored as a number."""
    if codes.size == 1 and codes.dtype.itemsize != 2:
        return f"{float(codes.item()):.15g}"
    return "".join(chr(int(code)) for code in codes).strip(" \0")


def _spacing_mm(pixels: NDArray[np.float32]) -> tuple[float, float] | None:
    return SPACING_MM if pixels.shape == (512, 512) else None


def person(patient: str) -> str:
    """The person behind a patient id: ids that start with MR and differ by one trailing letter count as one.

    Nobody documents whether MR040240 and MR040240B are one person; joined, no person can be on two sides of a split.
    """
    match = re.fullmatch(r"(MR\d+)[A-Za-z]", patient)
    return match[1] if match else patient
