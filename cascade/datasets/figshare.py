"""The figshare brain tumor data set (Jun Cheng, doi 10.6084/m9.figshare.1512427), one MATLAB v7.3 file per slice.

Each N.mat contains a struct `cjdata`. MATLAB stores arrays in column-major order, so h5py returns them transposed:

    PID          (n, 1) uint16     patient id, one character code per row
    label        (1, 1) float64    1 meningioma, 2 glioma, 3 pituitary tumor
    image        (W, H) any type   the slice
    tumorMask    (W, H) uint8      1 on tumor
    tumorBorder  (1, 2k) float64   points on the border of the tumor; not read, since tumorMask is derived from it
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.contract import CLASS_NAMES
from cascade.errors import CascadeError
from cascade.io.mat import open_cjdata, read_array, spacing_of

PUBLISHED_SLICES = 3064
"""The data set consists of 1.mat to 3064.mat, in four zips."""


MAX_CHARACTER = 0xFFFF
"""Highest character code of a MATLAB text."""


@dataclass(frozen=True, eq=False)
class LabeledSlice:
    """A slice with an expert's annotation.

    Attributes:
        pixels: (H, W) float32, raw intensities.
        mask: (H, W) bool, True on tumor.
        label: One of CLASS_NAMES.
        patient: Patient id as stored.
        spacing_mm: (row, column) pixel spacing, None if unknown.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    label: str
    patient: str
    spacing_mm: tuple[float, float] | None


def read_mat(path: Path) -> LabeledSlice:
    """Read slice, mask, label and patient id from an N.mat.

    Raises:
        CascadeError: The file is missing, broken or has another layout.
    """
    with open_cjdata(path) as fields:
        pixels, mask = read_array(fields, "image").astype(np.float32), read_array(fields, "tumorMask") > 0
        label = read_array(fields, "label")
        if label.size != 1:
            raise CascadeError(f"{path}: label has {label.size} values", fix="store one number: 1, 2 or 3")
        number = float(label.item())
        patient = _patient(path, read_array(fields, "PID").ravel())
    if pixels.ndim != 2 or mask.shape != pixels.shape:
        raise CascadeError(
            f"{path}: image {pixels.shape} and tumorMask {mask.shape} are not 2-D arrays of the same shape",
            fix="download the file again",
        )
    if number not in range(1, len(CLASS_NAMES) + 1):
        raise CascadeError(f"{path}: label {number:g} is not 1, 2 or 3", fix="correct the label or remove the file")
    if not (patient and patient.isprintable()):
        raise CascadeError(
            f"{path}: has no patient id in PID", fix="store one; a split needs it to keep patients apart"
        )
    return LabeledSlice(pixels, mask, CLASS_NAMES[int(number) - 1], patient, spacing_of(pixels))


def _patient(path: Path, codes: NDArray[Any]) -> str:
    # MATLAB stores text as 16-bit character codes. A single value of another type is an id stored as a number.
    if codes.size == 1 and codes.dtype.itemsize != 2:
        return f"{float(codes.item()):.15g}"
    if not ((codes >= 0) & (codes <= MAX_CHARACTER)).all():
        raise CascadeError(f"{path}: PID contains numbers that are not characters", fix="save it as char")
    return "".join(chr(int(code)) for code in codes).strip(" \0")


def subject_id(patient: str) -> str:
    """Return the subject that a patient id belongs to.

    Patient ids that start with MR and differ only by one trailing letter, such as MR040240 and MR040240B, map to one
    subject. The data set does not document whether they are the same person; joining them excludes leakage in a split.
    """
    match = re.fullmatch(r"(MR\d+)[A-Za-z]", patient)
    return match[1] if match else patient
