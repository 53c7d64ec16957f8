"""Volumes in, and masks out in the volume's own geometry: NIfTI files and DICOM series, slice by slice."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cascade.errors import CascadeError
from cascade.io.image import MAX_PIXELS, MIN_SIDE, Slice

MAX_VOXELS = 512**3
"""Of one volume: beyond any head at 7 tesla, and 1 GB in the widest type that is read."""

MAX_SLICES = 4096
"""Of one volume."""

FIELD_MM = (10.0, 2000.0)
"""Least and greatest side of a slice: beyond, the header's unit of length is wrong, and the models would see a dot."""


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
