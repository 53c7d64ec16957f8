"""`Source`, which the readers of all formats implement: an input with its slices and its mask file."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cascade.io.checksums import FileStats
from cascade.io.probability import Uint16Array
from cascade.io.slices import Slice


class SliceReader(Protocol):
    """The slices of one volume, or a single slice. Opening it reads headers only."""

    @property
    def count(self) -> int:
        """Number of slices."""
        ...

    @property
    def slab_mm(self) -> tuple[float, ...] | None:
        """Millimeters along the normal that each slice stands for, see `slabs_mm`. None if unknown."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings for the user, for example that the header names no contrast agent."""
        ...

    def read(self, index: int) -> Slice:
        """Read a slice in radiological orientation. May be called from any thread.

        Raises:
            BlankSlice: If all pixels have the same value.
            CascadeError: If the slice cannot be read.
        """
        ...

    def close(self) -> None:
        """Free the pixels held in memory. `read` loads them again."""
        ...


class Source(SliceReader, Protocol):
    """One input with one mask file: an image, a stack or a volume."""

    @property
    def name(self) -> str:
        """Its name in the results: its path below the input folder, with "/" between folders."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Absolute paths of its files: one per slice, in the order of the slices; or first the one of its name."""
        ...

    @property
    def mask_suffix(self) -> str:
        """Suffix of the mask file: ".png", ".nii.gz", ".seg.dcm", ".tif" or ".npy"."""
        ...

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode the masks of all slices as the content of the mask file.

        Args:
            masks: (count, H, W) bool, in the order and orientation of `read`.
        """
        ...

    def probability_bytes(self, values: Uint16Array) -> bytes:
        """Encode the tumor probabilities of all pixels as a file of the format of the mask, on the same grid.

        Args:
            values: (count, H, W) from `to_uint16`, in the order and orientation of `read`.
        """
        ...


class HeaderSource:
    """Base of the sources that keep a header in memory, by which they read their pixels later.

    Attributes:
        files: See `Source.files`.
        file_stats: Size and modification time of its files, taken before the header was read, so that a run notices
            whether they were replaced since. None if `open_sources` did not open it.
        is_volume_file: True for formats of volumes, in which a single slice is a volume too.
    """

    files: tuple[Path, ...]
    is_volume_file: bool = False
    file_stats: FileStats | None = None


@runtime_checkable
class CapturedSource(Protocol):
    """A source of DICOM images, from which pictures can go back into the archive as secondary captures."""

    @property
    def missing_for_capture(self) -> list[str]:
        """Keywords of the attributes without which there are no captures; empty if nothing is missing."""
        ...

    def encode_captures(self, pictures: Iterable[tuple[int, NDArray[np.uint8]]]) -> Iterator[tuple[int, bytes]]:
        """Encode pictures of slices as DICOM files, one for each. All are of one new series.

        Args:
            pictures: Index of a slice and its picture, (H, W, 3), in the orientation of `read`.

        Yields:
            The index and the content of the file.
        """
        ...


def is_volume(source: Source) -> bool:
    """Return True for an input that gets a finding: one of several slices, or a file in a format of volumes."""
    return source.count > 1 or (isinstance(source, HeaderSource) and source.is_volume_file)


def slice_number(source: Source, index: int) -> str | None:
    """Return the number of a slice in the results, zero-padded to equal length; None for a single slice."""
    return f"{index:0{len(str(source.count - 1))}}" if source.count > 1 else None


def slice_name(source: Source, index: int) -> str:
    """Return the name of a slice in the results."""
    number = slice_number(source, index)
    return source.name if number is None else f"{source.name}/{number}"
