"""The figshare brain tumor data set (Jun Cheng, doi 10.6084/m9.figshare.1512427): one MATLAB v7.3 file a slice.

Each N.mat holds a struct `cjdata`. MATLAB stores columns first, so h5py sees every array transposed:

    PID          (n, 1) uint16     patient id, one character code a row
    label        (1, 1) float64    1 meningioma, 2 glioma, 3 pituitary tumor
    image        (W, H) any type   the slice
    tumorMask    (W, H) uint8      1 on the tumor
    tumorBorder  (1, 2k) float64   points on the border of the tumor; the mask is drawn from it, so it is not read
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
"""1.mat to 3064.mat, in four zips."""


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
    with open_cjdata(path) as fields:
        pixels, mask = read_array(fields, "image").astype(np.float32), read_array(fields, "tumorMask") > 0
        number = float(read_array(fields, "label").item())
        patient = _patient(read_array(fields, "PID").ravel())
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
    return LabelledSlice(pixels, mask, CLASS_NAMES[int(number) - 1], patient, spacing_of(pixels))


def _patient(codes: NDArray[Any]) -> str:
    """MATLAB stores text as 16-bit character codes; one value of another type is an id that was stored as a number."""
    if codes.size == 1 and codes.dtype.itemsize != 2:
        return f"{float(codes.item()):.15g}"
    return "".join(chr(int(code)) for code in codes).strip(" \0")


def person(patient: str) -> str:
    """The person behind a patient id: ids that start with MR and differ by one trailing letter count as one.

    Nobody documents whether MR040240 and MR040240B are one person; joined, no person can be on two sides of a split.
    """
    match = re.fullmatch(r"(MR\d+)[A-Za-z]", patient)
    return match[1] if match else patient
