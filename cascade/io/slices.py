"""`Slice`, and the checks that the readers of all formats share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.io.nan import replace_nan

BoolArray = NDArray[np.bool_]

MIN_SIDE = 16
"""Minimum height and width of a slice, in pixels."""

MAX_PIXELS = 4096**2
"""Maximum pixels of a slice. It exceeds any MRI matrix; a run keeps about 40 slices of up to 64 MB in memory."""

MIN_CONTRAST, MAX_CONTRAST = 1e-9, 1e15
"""Range of maximum minus minimum intensity. Outside, the variance that the graphs compute overflows float32."""

MAX_VOXELS = 640**3
"""Maximum voxels of a volume: 256 mm in all directions at 0.4 mm. They take 2.1 GB in the widest type that is read."""

MAX_SLICES = 4096
"""Maximum slices of a volume."""

MIN_FIELD_MM, MAX_FIELD_MM = 10.0, 2000.0
"""Range of the height and width of a slice, in millimeters. Outside, the length unit in the header is wrong."""


@dataclass(frozen=True, eq=False)  # eq=False: the comparison of arrays gives an array
class Slice:
    """One MRI slice, in the orientation in which radiologists look at it.

    Attributes:
        pixels: (H, W) float32, finite raw intensities of any range.
        spacing_mm: Distance between pixel centers in millimeters: (row, column). Any sequence or array of two numbers
            is accepted. None if unknown.
        notes: Remarks on how the pixels were read, for example that NaN was replaced.

    Raises:
        CascadeError: If the shape or dtype of `pixels` is wrong, or the spacing is not two positive numbers.
    """

    pixels: FloatArray
    spacing_mm: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, np.ndarray):
            raise CascadeError(
                f"pixels are of type {type(self.pixels).__name__}", fix="give a NumPy array (height, width) of float32"
            )
        if self.pixels.ndim != 2 or self.pixels.dtype != np.float32:
            raise CascadeError(
                f"pixels have shape {self.pixels.shape} and dtype {self.pixels.dtype}",
                fix="give an array (height, width) of float32",
            )
        if self.spacing_mm is not None:
            object.__setattr__(self, "spacing_mm", _checked_spacing(self.spacing_mm))


def _checked_spacing(spacing_mm: Any) -> tuple[float, float]:
    """Return the spacing as two floats."""
    try:
        if isinstance(spacing_mm, str | bytes) or any(isinstance(length, str | bytes) for length in spacing_mm):
            raise TypeError("text is not a number")
        row, column = map(float, spacing_mm)
    except (TypeError, ValueError, OverflowError):
        row = column = math.nan
    if not (0 < row < math.inf and 0 < column < math.inf):
        raise CascadeError(
            f"pixel spacing {spacing_mm!r} is not two positive numbers of millimeters",
            fix="give the spacing as (row, column), or None if it is unknown",
        )
    return row, column


def slice_of(
    pixels: FloatArray, name: str, spacing_mm: tuple[float, float] | None = None, notes: tuple[str, ...] = ()
) -> Slice:
    """Make a slice of pixels that a reader has decoded: replace NaN outside the head, and check the rest.

    Args:
        pixels: (H, W) float32, which may contain NaN and infinity.
        name: The slice, for error messages.
        spacing_mm: See `Slice`.
        notes: See `Slice`.

    Raises:
        CascadeError: See `replace_nan` and `check_pixels`.
    """
    pixels, nan_notes = replace_nan(pixels, name)
    return Slice(check_pixels(pixels, name), spacing_mm, (*notes, *nan_notes))


class UnopenedVolume(CascadeError):
    """A volume or series cannot be opened.

    Attributes:
        slices: Number of its slices; 0 if unknown.
    """

    def __init__(self, error: CascadeError, slices: int = 0) -> None:
        super().__init__(error.problem, fix=error.fix)
        self.slices = slices


class BlankSlice(CascadeError):
    """All pixels of a slice have the same value but for rounding, as is common at the ends of a volume.

    Attributes:
        shape: (H, W).
    """

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        super().__init__(f"{name}: every pixel has the same value", fix="remove blank slices from the inputs")
        self.shape = shape


def check_pixels(pixels: FloatArray, name: str) -> FloatArray:
    """Return the pixels of a slice if they are valid.

    Args:
        pixels: (H, W) float32.
        name: The slice, for error messages.

    Raises:
        BlankSlice: If all pixels have the same value, or differ by no more than resampling leaves of zeros.
        CascadeError: If the slice is too small, contains NaN or infinity, or has an implausible range.
    """
    if min(pixels.shape) < MIN_SIDE:
        height, width = pixels.shape
        raise CascadeError(
            f"{name}: {width} x {height} pixels are too small", fix=f"give at least {MIN_SIDE} x {MIN_SIDE} pixels"
        )
    if not np.isfinite(pixels).all():
        raise CascadeError(
            f"{name}: contains NaN or infinite pixels", fix="replace them by the intensity of the background"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if high - low < MIN_CONTRAST:
        raise BlankSlice(name, pixels.shape)
    if high - low > MAX_CONTRAST:
        raise CascadeError(
            f"{name}: the intensities {low:g} to {high:g} are not plausible for MRI",
            fix="replace fill values before the export",
        )
    return pixels


def is_same_spacing(first: tuple[float, float] | None, second: tuple[float, float] | None) -> bool:
    """Return True if both are unknown, or differ by less than a thousandth, as rounded numbers of a header do."""
    return first == second or (first is not None and second is not None and np.allclose(first, second, rtol=1e-3))


def slabs_mm(distances_mm: Sequence[float]) -> tuple[float, ...]:
    """Return how much of a volume each slice stands for: up to the middle of the gaps before and after it.

    The first and the last slice extend as far outwards as inwards.

    Args:
        distances_mm: Positions of at least two slices along their normal, in millimeters, ascending or descending.
    """
    return tuple(np.abs(np.gradient(distances_mm)).tolist())


def check_volume_size(path: Path, count: int, height: int, width: int, spacing_mm: tuple[float, float] | None) -> None:
    """Check the size of a volume before its pixels are read.

    Args:
        path: The file, for error messages.
        count: Number of slices.
        height: Height of a slice in pixels.
        width: Width of a slice in pixels.
        spacing_mm: Distance between pixel centers in millimeters: (row, column). None if unknown.

    Raises:
        CascadeError: If the slices are too small, or the volume is too large for the memory.
    """
    if min(height, width) < MIN_SIDE:
        raise CascadeError(
            f"{path}: slices of {width} x {height} pixels are too small",
            fix=f"give at least {MIN_SIDE} x {MIN_SIDE} pixels",
        )
    if count > MAX_SLICES or height * width > MAX_PIXELS or count * height * width > MAX_VOXELS:
        raise CascadeError(
            f"{path}: {count:,} slices of {width:,} x {height:,} pixels are too large for an MRI volume",
            fix=f"give at most {MAX_SLICES:,} slices, {MAX_PIXELS:,} pixels per slice and {MAX_VOXELS:,} voxels",
        )
    if spacing_mm:
        field = (height * spacing_mm[0], width * spacing_mm[1])
        if min(field) < MIN_FIELD_MM or max(field) > MAX_FIELD_MM:
            raise CascadeError(
                f"{path}: slices of {field[1]:.3g} x {field[0]:.3g} mm do not have the size of a head",
                fix="correct the voxel size in the header",
            )
