"""Read PNG, JPEG, TIFF, BMP, WebP and .mat files of one slice each, and write their masks as PNG."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.color16 import read_png16
from cascade.io.exif import orientation_notes, orientation_of, turn
from cascade.io.gray import check_size, has_deep_color, image_to_gray, rgb_to_gray
from cascade.io.png import encode_png
from cascade.io.probability import Uint16Array, probability_png
from cascade.io.silence import silence_decoders
from cascade.io.slices import MAX_PIXELS, Slice, UnopenedVolume, slice_of
from cascade.io.source import Source

TIFF_PREFIXES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, little and big endian."""

MASK_COMPRESSION = 2
"""Level 1 is hardly faster, and its files are three times as large."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image or .mat file; a `Source` of one slice. There may be millions of them, so it takes little memory.

    Attributes:
        path: Absolute path of the file.
    """

    name: str
    path: Path
    count: int = 1
    mask_suffix: str = ".png"
    notes: tuple[str, ...] = ()
    slab_mm: tuple[float, ...] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the fields; the default for a class with slots takes several times as long."""
        return ImageSource, (self.name, self.path, self.count, self.mask_suffix, self.notes, self.slab_mm)

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Source.files`: the one file."""
        return (self.path,)

    def read(self, index: int) -> Slice:
        """Read the file's only slice, see `Source.read`."""
        return read_slice(self.path)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode the mask as PNG, see `Source.mask_bytes`."""
        return mask_png(masks[0])

    def probability_bytes(self, values: Uint16Array) -> bytes:
        """Encode the probabilities as PNG, see `Source.probability_bytes`."""
        return probability_png(values[0])

    def close(self) -> None:
        """Do nothing: no pixels are held in memory."""


def open_image(path: Path, name: str) -> Source:
    """Open an image or .mat file, or a TIFF of several images, which is a stack.

    Raises:
        UnopenedVolume: If a TIFF contains several images that are no stack. What else is wrong shows when it is read.
    """
    try:
        if path.suffix.lower() != ".mat" and _is_tiff(path):
            from cascade.io.tiff_stack import open_stack

            with silence_decoders():
                return open_stack(path, name) or ImageSource(name, path)
    except CascadeError as error:
        raise UnopenedVolume(error) from None
    except Exception:  # on damaged files, tifffile raises nearly every type; `read` says why
        pass
    return ImageSource(name, path)


def read_slice(path: Path) -> Slice:
    """Read the slice of an image or .mat file. An image is turned as viewers show it.

    Raises:
        CascadeError: If the file does not contain one valid slice.
    """
    if path.suffix.lower() == ".mat":
        from cascade.io.mat import read_image  # loads h5py

        pixels, spacing_mm = read_image(path)
        return slice_of(pixels, str(path), spacing_mm)
    pixels, orientation, is_tiff = _read_picture(path)
    spacing_mm, notes = _scale(path, pixels.shape, orientation) if is_tiff else (None, ())
    return slice_of(pixels, str(path), spacing_mm, (*notes, *orientation_notes(orientation)))


def read_gray(path: Path) -> FloatArray:
    """Read a PNG, JPEG, TIFF, BMP or WebP file as gray values, see `image_to_gray`.

    Returns:
        (H, W) float32 on the pixel grid that viewers show, which may contain NaN and infinity.

    Raises:
        CascadeError: If the file cannot be read, or does not contain one gray image.
    """
    return _read_picture(path)[0]


def _read_picture(path: Path) -> tuple[FloatArray, int, bool]:
    """Return gray values and orientation, as `image_to_gray` does, and whether the file is a TIFF."""
    with silence_decoders(), read_errors(path, lambda error: _damaged_error(path, error)):
        if is_tiff := _is_tiff(path):
            from cascade.io.tiff import read_tiff

            if picture := read_tiff(path):
                return *picture, is_tiff
        with Image.open(path) as image:
            if not has_deep_color(image):
                return *image_to_gray(image, str(path)), is_tiff
            if image.format == "TIFF":
                from cascade.io.tiff import unsupported_type

                raise unsupported_type(path)
            check_size(image.width, image.height, str(path))
            orientation = orientation_of(image)
            return turn(rgb_to_gray(read_png16(path), str(path)), orientation), orientation, is_tiff


def _scale(path: Path, shape: tuple[int, int], orientation: int) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return the spacing that a TIFF states for its pixels as they are shown, and a note if it was ignored."""
    from tifffile import TiffFile

    from cascade.io.imagej import read_scale

    with silence_decoders(), read_errors(path, lambda error: _damaged_error(path, error)), TiffFile(path) as tiff:
        spacing_mm, _, notes = read_scale(tiff, shape, is_turned=orientation >= 5)
        return spacing_mm, notes


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in TIFF_PREFIXES


def _damaged_error(path: Path, error: Exception) -> CascadeError:
    if isinstance(error, Image.DecompressionBombError):
        return CascadeError(
            f"{path}: is far larger than an MRI slice", fix=f"give slices of at most {MAX_PIXELS:,} pixels"
        )
    if isinstance(error, UnidentifiedImageError) and _is_tiff(path):
        from cascade.io.tiff import unsupported_type

        with suppress(Exception):  # its header may be damaged
            return unsupported_type(path)
    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"  # that error repeats the path
    return CascadeError(
        f"{path}: cannot be read as an image{reason}",
        fix="export the slice again as PNG; the file is truncated, damaged or not an image",
    )


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask (H, W) as an 8-bit gray PNG: 255 in the tumor, 0 elsewhere."""
    return encode_png(mask.view(np.uint8) * np.uint8(255), level=MASK_COMPRESSION)
