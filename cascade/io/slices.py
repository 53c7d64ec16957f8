"""What the readers of all formats share: a `Slice`, the `Source` that it comes from, and what both must fulfil."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cascade.contract import FloatArray
from cascade.errors import CascadeError

BoolArray = NDArray[np.bool_]

MIN_SIDE = 16
MAX_PIXELS = 4096**2
"""Far beyond any MRI matrix, and 64 MB as float32: a run holds some 40 slices at a time."""

CONTRASTS = (1e-9, 1e15)
"""Least and greatest contrast, highest less lowest pixel: beyond, the graphs' variance leaves float32."""

MAX_VOXELS = 512**3
"""Of one volume: beyond any head at 7 tesla, and 1 GB in the widest type that is read."""

MAX_SLICES = 4096
"""Of one volume."""

FIELD_MM = (10.0, 2000.0)
"""Least and greatest side of a slice: beyond, the header's unit of length is wrong, and the models would see a dot."""


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Slice:
    """One MRI slice as it was stored.

    pixels      (H, W) float32, raw intensities of any range, finite.
    spacing_mm  (row, column) distance between pixel centres; None where the file does not tell.
    """

    pixels: FloatArray
    spacing_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Raises CascadeError for pixels of another shape or type, and spacings that are none."""
        if self.pixels.ndim != 2 or self.pixels.dtype != np.float32:
            raise CascadeError(
                f"pixels of shape {self.pixels.shape} and type {self.pixels.dtype} are no slice",
                fix="give (height, width) float32",
            )
        if self.spacing_mm and not all(0 < spacing < np.inf for spacing in self.spacing_mm):
            raise CascadeError(f"a spacing of {self.spacing_mm} mm is none", fix="give positive numbers, or None")


def array_slice(pixels: ArrayLike) -> Slice:
    """An array (H, W) of any real numbers as a slice. Raises CascadeError where it is none."""
    array = np.asarray(pixels)
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise CascadeError(
            f"an array of shape {array.shape} and type {array.dtype} is no slice", fix="give (height, width) numbers"
        )
    return Slice(checked(array.astype(np.float32), "the array"))


class BlankSlice(CascadeError):
    """Every pixel has the same value, as often at a volume's ends.

    shape  (H, W)
    """

    def __init__(self, what: str, shape: tuple[int, ...]) -> None:
        super().__init__(f"{what}: every pixel has the same value", fix="leave blank slices out")
        self.shape = shape


def checked(pixels: FloatArray, what: str) -> FloatArray:
    """The pixels, once it is sure that a slice can be seen in them; `what` they are begins the errors."""
    if min(pixels.shape) < MIN_SIDE:
        height, width = pixels.shape
        raise CascadeError(
            f"{what}: {width} x {height} pixels is too small", fix=f"give at least {MIN_SIDE} x {MIN_SIDE}"
        )
    if not np.isfinite(pixels).all():
        raise CascadeError(f"{what}: holds NaN or infinite pixels", fix="replace them before export")
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        raise BlankSlice(what, pixels.shape)
    if not CONTRASTS[0] <= high - low <= CONTRASTS[1]:
        raise CascadeError(
            f"{what}: intensities from {low:g} to {high:g} are no MRI signal", fix="replace fill values before export"
        )
    return pixels


class Source(Protocol):
    """What was given as one thing and gets one mask file: a picture, a NIfTI volume, a DICOM series.

    Opening one reads headers only.
    """

    @property
    def name(self) -> str:
        """What its results go by: a path below the run's input folder, "/" between folders."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Read for it, absolute. Where a series has one for each slice, in the order of these."""
        ...

    @property
    def count(self) -> int:
        """How many slices it has."""
        ...

    @property
    def mask_suffix(self) -> str:
        """ ".png", ".nii.gz" or ".seg.dcm"."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it, such as that its sequence is not T1 with contrast agent; often empty."""
        ...

    def read(self, index: int) -> Slice:
        """The slice as radiologists look at it, raw intensities, `spacing_mm` set where the file tells it.

        From any thread. Raises BlankSlice where every pixel has one value, CascadeError for what else cannot be done.
        """
        ...

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """(count, H, W) in the order and orientation of `read` → the mask file's whole content."""
        ...

    def close(self) -> None:
        """Lets go of pixels held in memory; `read` would load them again."""
        ...


def slice_number(source: Source, index: int) -> str | None:
    """Of a slice, as its results go by: as many digits as the last one's; None for the only one."""
    return f"{index:0{len(str(source.count - 1))}}" if source.count > 1 else None


def slice_name(source: Source, index: int) -> str:
    """What the slice's results go by."""
    number = slice_number(source, index)
    return source.name if number is None else f"{source.name}/{number}"


def check_size(path: Path, count: int, height: int, width: int, spacing_mm: tuple[float, float] | None) -> None:
    """Raises CascadeError for a volume whose slices are too small to show anything, or that would fill the memory.

    spacing_mm  (row, column), None where not known.
    """
    if min(height, width) < MIN_SIDE:
        raise CascadeError(
            f"{path}: slices of {width} x {height} pixels are too small", fix=f"give at least {MIN_SIDE} x {MIN_SIDE}"
        )
    if count > MAX_SLICES or height * width > MAX_PIXELS or count * height * width > MAX_VOXELS:
        raise CascadeError(
            f"{path}: {count:,} slices of {width:,} x {height:,} pixels are no MRI volume",
            fix=f"give at most {MAX_SLICES:,} slices of {MAX_PIXELS:,} pixels, and {MAX_VOXELS:,} voxels",
        )
    if spacing_mm:
        field = (height * spacing_mm[0], width * spacing_mm[1])
        if min(field) < FIELD_MM[0] or max(field) > FIELD_MM[1]:
            raise CascadeError(
                f"{path}: slices of {field[1]:.3g} x {field[0]:.3g} mm show no head",
                fix="correct the voxel size in its header",
            )
