"""Volumes in, and masks out in the volume's own geometry: NIfTI files and DICOM series, slice by slice."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cascade.errors import CascadeError
from cascade.slices import MIN_SIDE, FloatArray, Slice, checked

MAX_VOXELS = 512**3
"""Of one volume: beyond any head at 7 tesla, and 1 GB in the widest type that is read."""

MAX_SLICES = 4096
"""Of one volume."""

SQUARE_WITHIN = 1.2
"""A pixel is called square up to this ratio of its sides."""


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
        """Read for it, absolute."""
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


class BlankSlice(CascadeError):
    """Every pixel has the same value, as often at a volume's ends: nothing is wrong, and no tumor is there."""


def visible(pixels: FloatArray, where: str) -> FloatArray:
    """The pixels of `where`, once it is sure that a slice can be seen in them. Raises BlankSlice or CascadeError."""
    if np.isfinite(pixels[0, 0]) and (pixels == pixels[0, 0]).all():
        raise BlankSlice(f"{where}: every pixel has the same value", fix="nothing: it counts as a slice without tumor")
    return checked(pixels, Path(where))


def check_size(path: Path, count: int, height: int, width: int) -> None:
    """Raises CascadeError for a volume whose slices are too small to show anything, or that would fill the memory."""
    if min(height, width) < MIN_SIDE:
        raise CascadeError(
            f"{path}: slices of {width} x {height} pixels are too small", fix=f"give at least {MIN_SIDE} x {MIN_SIDE}"
        )
    if count > MAX_SLICES or count * height * width > MAX_VOXELS:
        raise CascadeError(
            f"{path}: {count:,} slices of {width:,} x {height:,} pixels are no MRI volume",
            fix=f"give at most {MAX_SLICES:,} slices and {MAX_VOXELS:,} voxels",
        )


def shape_notes(spacing_mm: tuple[float, float] | None) -> tuple[str, ...]:
    """What there is to say of pixels of this (row, column) spacing."""
    if spacing_mm is None or max(spacing_mm) <= SQUARE_WITHIN * min(spacing_mm):
        return ()
    down, across = spacing_mm
    return (f"its pixels are {across:.3g} mm wide and {down:.3g} mm high: the models know square ones only",)
