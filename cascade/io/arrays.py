"""Convert what a Python program holds to slices: paths, arrays, tensors, Pillow images, and volumes of these."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.io.exif import orientation_notes
from cascade.io.gray import has_deep_color, image_to_gray
from cascade.io.silence import silence_decoders
from cascade.io.slices import Slice, check_pixels, is_same_spacing, slice_of
from cascade.io.source import SliceReader, Source

SliceLike = Slice | Image.Image | ArrayLike | os.PathLike[str]
"""What `to_slice` converts."""

VolumeLike = SliceLike | Sequence[SliceLike]
"""What `open_volume` accepts."""

NOT_ROWS = (Slice, Image.Image, np.ma.MaskedArray)
"""Types of which NumPy would convert a list, but lose a part: orientation, palette or mask."""

FIX = "give a path, a Slice, a Pillow image, or an array (height, width) of real numbers"


def to_slice(source: SliceLike, name: str, spacing_mm: tuple[float, float] | None = None) -> Slice:
    """Convert anything that holds one slice.

    Args:
        source: A `Slice`; the path of a file with one slice; a Pillow image of any mode, which is turned as its header
            says; or an array (H, W), (1, H, W) or (H, W, 1) of real numbers, or what NumPy converts to one, such as a
            torch tensor in main memory. Masked elements of an array count as NaN.
        name: The slice, for error messages.
        spacing_mm: Spacing of the pixels of an array or Pillow image; see `Slice`.

    Raises:
        CascadeError: If it is of another kind, cannot be read, or has invalid pixels, see `slice_of`.
    """
    if isinstance(source, Slice):
        check_pixels(source.pixels, name)
        return source
    if isinstance(source, str | os.PathLike):
        return _read_file(source)
    if isinstance(source, Image.Image):
        pixels, orientation = _decode(source, name)
        return slice_of(pixels, name, spacing_mm, orientation_notes(orientation))
    array = _to_array(source, name)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    elif array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        fix = "use predict_volume for a volume, and predict_batch for several slices" if array.ndim == 3 else FIX
        raise CascadeError(f"{name}: an array of shape {array.shape} is not one slice", fix=fix)
    return slice_of(array, name, spacing_mm)


class ArrayVolume:
    """A volume in memory.

    Attributes:
        count: Number of slices.
        notes: Remarks on the volume: none.
        slab_mm: See `SliceReader.slab_mm`. None unless the spacing of all axes is given.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, source: VolumeLike, axis: int | None = None, spacing_mm: Sequence[float] | None = None) -> None:
        """Take an array, or a list of slices.

        Args:
            source: An array of two or three axes, or what NumPy converts to one; a Pillow image; or a list of what
                `to_slice` converts.
            axis: Slice axis of an array (0, 1 or 2). None selects the last one if it has one element, otherwise the
                first.
            spacing_mm: Spacing of the pixels in millimeters: (row, column), or one number for each axis of an array.
                Slices and files that give their own must agree with it.

        Raises:
            CascadeError: If the source is no volume, or the axis or the spacing is invalid.
        """
        _check_axis(axis)
        self._slices: Sequence[SliceLike] | NDArray[Any]
        if isinstance(source, list | tuple):
            if axis:
                raise CascadeError("a list of slices has no slice axis", fix="leave out axis, or give a NumPy array")
            self._slices = source
        elif isinstance(source, Slice | Image.Image):
            self._slices = [source]
        else:
            self._slices, axis = _split(_to_array(source, "the volume"), axis)
        self._spacing_mm = _in_plane(spacing_mm, axis or 0)
        self.count = len(self._slices)
        if self.count == 0:
            raise CascadeError("the volume has no slices", fix="give at least one")
        self.slab_mm = _slabs(spacing_mm, axis or 0, self.count)

    def read(self, index: int) -> Slice:
        """Return a slice.

        Raises:
            CascadeError: See `to_slice`; or the slice has another spacing than that given for the volume.
        """
        slice_ = to_slice(self._slices[index], f"slice {index}", self._spacing_mm)
        if self._spacing_mm is None:
            return slice_
        expected = replace(slice_, spacing_mm=self._spacing_mm)
        if slice_.spacing_mm is not None and not is_same_spacing(slice_.spacing_mm, expected.spacing_mm):
            raise CascadeError(
                f"slice {index}: its pixel spacing is {slice_.spacing_mm}, and by spacing_mm {expected.spacing_mm}",
                fix="correct one of them",
            )
        return expected

    def close(self) -> None:
        """Do nothing: the caller owns the pixels."""


def _check_axis(axis: object) -> None:
    """Raise CascadeError unless the axis is None or one of the integers 0, 1 and 2, which 1.0 is not."""
    if axis is not None and not (isinstance(axis, int | np.integer) and axis in (0, 1, 2)):
        raise CascadeError(f"slice axis must be one of the integers 0, 1 and 2, not {axis!r}", fix="give 0, 1 or 2")


def _split(array: NDArray[Any], axis: int | None) -> tuple[NDArray[Any], int]:
    """Return the slices (count, H, W) of an array, and their axis in it."""
    if array.ndim == 2:
        return array[np.newaxis], 0
    if array.ndim != 3:
        raise CascadeError(
            f"an array of shape {array.shape} is not one volume", fix="give an array of three axes, one of them slices"
        )
    if axis is None:
        axis = 2 if array.shape[2] == 1 else 0
    return np.moveaxis(array, axis, 0), axis


def _in_plane(spacing_mm: Any, axis: int) -> Any:
    """Return the spacing without that of the slice axis; `Slice` checks it."""
    if _has_three(spacing_mm):
        return tuple(length for index, length in enumerate(spacing_mm) if index != axis)
    return spacing_mm


def _slabs(spacing_mm: Any, axis: int, count: int) -> tuple[float, ...] | None:
    """Return the distance of slices, once for each; None if the spacing is unknown or that of pixels alone."""
    if not _has_three(spacing_mm):
        return None
    try:
        distance_mm = float(spacing_mm[axis])
    except (TypeError, ValueError):
        distance_mm = 0.0
    if not 0 < distance_mm < np.inf:
        raise CascadeError(
            f"the distance of slices must be a positive number of millimeters, not {spacing_mm[axis]!r}",
            fix="give one number for each axis, or (row, column)",
        )
    return (distance_mm,) * count


def _has_three(spacing_mm: Any) -> bool:
    is_sequence = isinstance(spacing_mm, list | tuple) or (isinstance(spacing_mm, np.ndarray) and spacing_mm.ndim == 1)
    return is_sequence and len(spacing_mm) == 3


def open_volume(
    volume: VolumeLike,
    axis: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    volume_number: int | None = None,
) -> SliceReader:
    """Open a file or folder, or take what `ArrayVolume` accepts.

    Args:
        volume: The volume.
        axis: Slice axis (0, 1 or 2) of an array, or of the stored NIfTI array.
        spacing_mm: Spacing of an array, see `ArrayVolume`. A file gives its own.
        volume_number: Number of the volume in a file of several, from 0. None refuses such files.

    Raises:
        CascadeError: If the volume cannot be opened, or the axis, the spacing or the number is invalid.
    """
    if not isinstance(volume, str | os.PathLike):
        if volume_number is not None:
            raise CascadeError(
                "volume_number selects a volume of a file, and this is not a file",
                fix="give one volume, such as array[0]",
            )
        return ArrayVolume(volume, axis, spacing_mm)
    if spacing_mm is not None:
        raise CascadeError(f"{volume}: the spacing of a file is read from its header", fix="leave out spacing_mm")
    _check_axis(axis)
    if volume_number is not None and not isinstance(volume_number, int | np.integer):
        raise CascadeError(f"volume_number must be an integer, not {volume_number!r}", fix="count volumes from 0")
    return open_path(volume, axis, volume_number)


def open_path(path: str | os.PathLike[str], axis: int | None = None, volume: int | None = None) -> Source:
    """Open a file or folder that a caller gave, see `open_source`."""
    from cascade.io.open import open_source  # not at the top, since it loads the file walker

    if "\0" in os.fspath(path):
        raise CascadeError(f"{path!r}: contains a NUL character", fix="check the path")
    return open_source(Path(path), axis, volume)


def _read_file(path: str | os.PathLike[str]) -> Slice:
    with closing(open_path(path)) as source:
        if source.count > 1:
            raise CascadeError(f"{path}: contains {source.count} slices", fix="use predict_volume")
        slice_ = source.read(0)
        return replace(slice_, notes=(*source.notes, *slice_.notes))


def _decode(image: Image.Image, name: str) -> tuple[FloatArray, int]:
    if has_deep_color(image):
        raise CascadeError(
            f"{name}: Pillow keeps only 8 of the 16 bits of this image", fix="give the path of its file instead"
        )
    try:
        with silence_decoders():
            return image_to_gray(image, name)
    except CascadeError:
        raise
    except Exception as error:  # on damaged or closed files, Pillow raises nearly every type
        raise CascadeError(
            f"{name}: the Pillow image cannot be read as gray ({error})", fix="open its file again, or convert it to L"
        ) from None


def _to_array(source: object, name: str) -> NDArray[Any]:
    """Return an array of real numbers, in which NaN stands for masked elements."""
    kind = type(source).__name__
    if isinstance(source, list | tuple) and any(isinstance(item, NOT_ROWS) for item in source):
        raise CascadeError(f"{name}: is a {kind} of images", fix="use predict_batch for several slices")
    try:
        array = source if isinstance(source, np.ma.MaskedArray) else np.asarray(source)
    except Exception as error:  # any class may define __array__
        raise CascadeError(
            f"{name}: NumPy cannot convert a {kind} to an array ({error})",
            fix="convert it to a NumPy array; a torch tensor with tensor.detach().cpu().float().numpy()",
        ) from None
    if array.dtype.kind not in "uif":
        raise CascadeError(f"{name}: a {kind} of dtype {array.dtype} does not contain real numbers", fix=FIX)
    with np.errstate(over="ignore"):  # `check_pixels` rejects infinite pixels
        values = array.astype(np.float32)
    return values.filled(np.nan) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
