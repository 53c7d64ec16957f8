"""Open arrays that NumPy saved: .npy of one slice or of a stack."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.image import mask_png
from cascade.io.lazy import LazyArray
from cascade.io.nifti_header import damaged_error, unsupported_dtype
from cascade.io.probability import Uint16Array, probability_png, to_float16
from cascade.io.silence import silence_decoders
from cascade.io.slices import Slice, UnopenedVolume, check_volume_size, slice_of
from cascade.io.source import HeaderSource
from cascade.io.volume import check_axis
from cascade.io.voxels import VoxelFile

MAX_HEADER_BYTES = 2**16
"""Bytes of a file that are searched for the header. That of an array of numbers has about 100."""

CHANNELS = (3, 4)
"""Lengths of a last axis that stands for red, green and blue, and opacity: no slice is that narrow."""


def open_npy(path: Path, name: str, axis: int | None = None) -> "ArraySource":
    """Open an array (H, W), which is a slice, or of three axes, which is a stack. Reads the header only.

    Args:
        path: The file.
        name: Its name in the results.
        axis: Slice axis of a stack: 0, 1 or 2. None selects the last one if it has one element, otherwise the first.

    Raises:
        CascadeError: If the file does not contain real numbers in two or three axes, or is too large. Python objects
            are not loaded. It is UnopenedVolume for an array of three axes or more.
    """
    check_axis(path, axis)
    path = path.absolute()
    with silence_decoders(), read_errors(path, lambda _: damaged_error(path, "its header cannot be read")):
        header = _read_header(path)
    try:
        return _source(path, name, axis, *header)
    except CascadeError as error:
        raise UnopenedVolume(error) if len(header[0]) > 2 else error from None


def _source(
    path: Path, name: str, axis: int | None, shape: tuple[int, ...], is_fortran: bool, dtype: np.dtype[Any], offset: int
) -> "ArraySource":
    if dtype.hasobject or dtype.kind not in "uif" or dtype.itemsize > 8:
        raise unsupported_dtype(path, dtype)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise CascadeError(
            f"{path}: an array of shape {shape} is neither a slice nor a stack",
            fix="save an array (height, width) or (slices, height, width)",
        )
    if len(shape) == 2:
        axis = None
    elif axis is None:
        axis = 2 if shape[2] == 1 else 0
    if axis in (0, 1) and shape[2] in CHANNELS:
        raise CascadeError(f"{path}: contains color channels", fix="save it as gray values (height, width)")
    count = 1 if axis is None else shape[axis]
    height, width = (size for index, size in enumerate(shape) if index != axis)
    check_volume_size(path, count, height, width, None)
    voxels = VoxelFile(path, dtype, shape if is_fortran else shape[::-1], offset)
    voxels.check()
    return ArraySource(path, name, voxels, axis, is_fortran=is_fortran)


def _read_header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether the first axis is the fastest, dtype, and the offset of the elements."""
    with path.open("rb") as file:
        header = io.BytesIO(file.read(MAX_HEADER_BYTES))
    version = npy_format.read_magic(header)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, is_fortran, dtype = read(header)
    return shape, is_fortran, dtype, header.tell()


class ArraySource(HeaderSource):
    """An array in a file; a `Source`. Its spacing is unknown."""

    notes: tuple[str, ...] = ()
    slab_mm: tuple[float, ...] | None = None

    def __init__(self, path: Path, name: str, voxels: VoxelFile, axis: int | None, *, is_fortran: bool) -> None:
        """Take an array.

        Args:
            path: Absolute path of its file.
            name: Its name in the results.
            voxels: Reads the array, with its axes in reverse order unless `is_fortran`.
            axis: Slice axis; None for an array (H, W).
            is_fortran: True if the first axis of the array is the fastest.
        """
        shape = voxels.shape if is_fortran else voxels.shape[::-1]
        self.name = name
        self.files = (path,)
        self.count = 1 if axis is None else shape[axis]
        self.mask_suffix = ".png" if axis is None else ".npy"
        self._axis = axis
        self._is_fortran = is_fortran
        self._array = LazyArray(voxels.read)

    def read(self, index: int) -> Slice:
        """Read a slice, see `Source.read`."""
        stored = self._array.get() if self._is_fortran else self._array.get().T
        pixels = stored if self._axis is None else stored.take(index, self._axis)
        with np.errstate(over="ignore", invalid="ignore"):  # `check_pixels` rejects infinite pixels
            pixels = np.ascontiguousarray(pixels, dtype=np.float32)
        name = f"{self.files[0]}, slice {index + 1} of {self.count}" if self.count > 1 else str(self.files[0])
        return slice_of(pixels, name)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode the mask of a slice as PNG, and that of a stack as .npy of its shape: uint8, 1 in the tumor."""
        if self._axis is None:
            return mask_png(masks[0])
        return self._encode(masks.astype(np.uint8), self._axis)

    def probability_bytes(self, values: Uint16Array) -> bytes:
        """Encode the probabilities of a slice as PNG, and those of a stack as .npy of its shape: float16, 0 to 1."""
        return probability_png(values[0]) if self._axis is None else self._encode(to_float16(values), self._axis)

    @staticmethod
    def _encode(slices: NDArray[Any], axis: int) -> bytes:
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(np.moveaxis(slices, 0, axis)))
        return content.getvalue()

    def close(self) -> None:
        """Free the array, see `Source.close`."""
        self._array.free()
