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

import h5py
import numpy as np
from numpy.typing import NDArray

from cascade.contract import CLASS_NAMES
from cascade.errors import CascadeError

SPACING_MM = (0.49, 0.49)
"""In-plane spacing of the 512 x 512 slices, from the data set's own README; that of the few 256 x 256 ones is not told."""


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
    try:
        with h5py.File(path, "r") as file:
            fields = file["cjdata"]
            pixels = np.asarray(fields["image"]).T.astype(np.float32)
            mask = np.asarray(fields["tumorMask"]).T.astype(bool)
            number = float(np.asarray(fields["label"]).item())
            patient = "".join(chr(int(code)) for code in np.asarray(fields["PID"]).ravel())
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix="check the path") from None
    except KeyError as error:
        raise CascadeError(
            f"{path}: has no field cjdata.{{PID,label,image,tumorMask}} ({error})", fix="give figshare's own N.mat files"
        ) from error
    except (OSError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CascadeError(
            f"{path}: cannot be read as a MATLAB v7.3 file ({error})", fix="download or unpack the file again"
        ) from error
    if pixels.ndim != 2 or mask.shape != pixels.shape:
        raise CascadeError(
            f"{path}: image {pixels.shape} and tumorMask {mask.shape} are not one 2-D grid", fix="download the file again"
        )
    if number not in range(1, len(CLASS_NAMES) + 1):
        raise CascadeError(f"{path}: label {number:g} is not 1, 2 or 3", fix="correct the label or leave the file out")
    spacing_mm = SPACING_MM if pixels.shape == (512, 512) else None
    return LabelledSlice(pixels, mask, CLASS_NAMES[int(number) - 1], patient.strip(), spacing_mm)


def person(patient: str) -> str:
    """The person behind a patient id: ids that start with MR and differ by one trailing letter count as one.

    Nobody documents whether MR040240 and MR040240B are one person; joined, no person can be on two sides of a split.
    """
    match = re.fullmatch(r"(MR\d+)[A-Z]", patient)
    return match[1] if match else patient
