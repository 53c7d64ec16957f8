"""Read the voxels of a volume from a file, compressed or not."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from cascade.io.nifti_header import damaged_error

MAX_OFFSET = 64 * 1024**2
"""Maximum number of bytes between the beginning of a file and its first volume."""


@dataclass(frozen=True)
class VoxelFile:
    """Where a file stores the voxels of one volume, the first axis fastest.

    Attributes:
        path: The file, which may be compressed by gzip.
        dtype: Type of the voxels as stored.
        shape: Number of voxels along each axis.
        offset: Bytes before the first volume.
        volume: Number of volumes of the same shape before this one.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    volume: int = 0

    @property
    def _start(self) -> int:
        return self.offset + self.volume * self._size

    @property
    def _size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self) -> None:
        """Raise CascadeError if the file is shorter than declared. A compressed file shows that when it is read."""
        too_short = not is_compressed(self.path) and self.path.stat().st_size < self._start + self._size
        if self.offset > MAX_OFFSET or too_short:
            raise damaged_error(self.path, "it is shorter than its header declares")

    def read(self) -> NDArray[Any]:
        """Read as many voxels as declared, however many the file would decompress to.

        Returns:
            An array of `shape` and `dtype`.

        Raises:
            CascadeError: If the file is damaged or too short.
        """
        try:
            with open_decompressed(self.path) as file:
                file.seek(self._start)
                content = file.read(self._size)
                file.read(1)  # at the end of a compressed file, this verifies its checksum
        except (OSError, EOFError, zlib.error):
            raise damaged_error(self.path, "its voxels cannot be read") from None
        if len(content) < self._size:
            raise damaged_error(self.path, "it is shorter than its header declares")
        return np.frombuffer(content, self.dtype).reshape(self.shape, order="F")


def is_compressed(path: Path) -> bool:
    """Return True if the content of a file is compressed by gzip, whatever its suffix."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_decompressed(path: Path) -> BinaryIO:
    """Open a file, decompressed if its content is compressed."""
    return cast(BinaryIO, gzip.open(path) if is_compressed(path) else path.open("rb"))
