"""PNG, JPEG, TIFF, BMP and WebP pictures and .mat files: each is the source of one slice, and its mask is a PNG."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io import mat
from cascade.io.color16 import LUMA, read_deep_colour
from cascade.io.silence import silence_decoders
from cascade.io.slices import MAX_PIXELS, Slice, checked

COLOUR_FROM = 1 / 8
"""Share of a picture's highest value by which a coloured pixel's channels differ: several times JPEG's noise."""

MAX_COLOURED = 0.1
"""Share of a slice's pixels: room for marks on 5%, and as much that JPEG smears around them. A photo has more."""

WHITE_IS_ZERO = 0
"""A TIFF's PhotometricInterpretation."""


@dataclass(frozen=True)
class Picture:
    """A `Source` (cascade/io/slices.py) of one slice.

    path  absolute.
    """

    name: str
    path: Path
    count: int = 1
    mask_suffix: str = ".png"
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def read(self, index: int) -> Slice:
        return read_slice(self.path)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        return mask_png(masks[0])

    def close(self) -> None:
        """It holds nothing."""


def read_slice(path: Path) -> Slice:
    """Raises CascadeError, naming the file and the fix, for anything that is not one readable slice."""
    if path.suffix.lower() == ".mat":
        pixels, spacing_mm = mat.read_image(path)
        return Slice(checked(pixels, str(path)), spacing_mm)
    return Slice(checked(read_grey(path), str(path)))


def read_grey(path: Path) -> FloatArray:
    """(H, W) float32 of a PNG, JPEG, TIFF, BMP or WebP of 8, 16 or 32 bits, on the pixel grid as stored.

    Coloured marks are reduced to their luma (ITU-R BT.601), and what is transparent shows black. Raises CascadeError
    where more than MAX_COLOURED is coloured: the luma of a photo or a colour map is no intensity of an MRI.
    """

    def unreadable(error: Exception) -> CascadeError:
        if isinstance(error, Image.DecompressionBombError):
            return CascadeError(
                f"{path}: is far larger than any MRI slice", fix=f"give slices of at most {MAX_PIXELS:,} pixels"
            )
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"  # which names the path again
        return CascadeError(
            f"{path}: cannot be read as a picture{why}",
            fix="export the slice again as PNG; the file is cut short, damaged or not a picture",
        )

    with read_errors(path, unreadable), silence_decoders(), Image.open(path) as image:
        _check_header(image, path)
        if _is_deep_colour(image):
            channels = read_deep_colour(path)
            _check_colour(channels, path)
            return np.asarray(channels @ LUMA)
        stored = np.asarray(_grey(image, path))
        pixels = (stored.view(np.uint32) if _is_stored_unsigned(image) else stored).astype(np.float32)
        if _is_stored_inverted(image):
            with np.errstate(over="ignore", invalid="ignore"):  # what leaves float32 is refused as infinite
                pixels = pixels.max() + pixels.min() - pixels
        return pixels


def _is_stored_inverted(image: ImageFile.ImageFile) -> bool:
    """A TIFF whose lowest values are white; Pillow turns over those of 8 bits itself, and leaves the deeper ones."""
    return (
        isinstance(image, TiffImageFile)
        and image.mode[0] in "IF"
        and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
    )


def _is_stored_unsigned(image: ImageFile.ImageFile) -> bool:
    """A TIFF of 32 bits without a sign, which Pillow reads as if the highest were one."""
    return isinstance(image, TiffImageFile) and image.mode == "I" and image.tag_v2.get(SAMPLEFORMAT, (1,)) == (1,)


def _check_header(image: ImageFile.ImageFile, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise CascadeError(
            f"{path}: {image.width} x {image.height} pixels is no MRI slice",
            fix=f"give slices of at most {MAX_PIXELS:,} pixels",
        )
    if (pictures := getattr(image, "n_frames", 1)) > 1:
        raise CascadeError(f"{path}: holds {pictures} pictures", fix="save one slice a file")


def _is_deep_colour(image: ImageFile.ImageFile) -> bool:
    bits = image.tag_v2.get(BITSPERSAMPLE, ()) if isinstance(image, TiffImageFile) else ()
    return bits[1:2] == (16,) or (image.mode[0] not in "IF" and any(";16" in str(tile[3]) for tile in image.tile))


def _grey(image: Image.Image, path: Path) -> Image.Image:
    if image.mode[0] in "IF":  # I, I;16 and F keep their depth
        return image
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    if image.mode not in ("1", "L"):
        _check_colour(np.asarray(image.convert("RGB")), path)
    return image.convert("L")


def _check_colour(channels: NDArray[Any], path: Path) -> None:
    """channels  (H, W, 3) of any range from 0."""
    spread = channels.max(axis=2) - channels.min(axis=2)
    coloured = float((spread > COLOUR_FROM * channels.max()).mean())
    if coloured > MAX_COLOURED:
        raise CascadeError(
            f"{path}: is in colour over {coloured:.0%} of its pixels, as no MRI is",
            fix="export the slice in grey, without a colour map",
        )


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """(H, W) → one channel of 8 bits: 255 on tumor, 0 elsewhere."""
    content = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(content, "PNG", compress_level=1)
    return content.getvalue()
