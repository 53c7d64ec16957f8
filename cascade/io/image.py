"""Read PNG, JPEG, TIFF, BMP, WebP and .mat files of one slice each, and write their masks as PNG."""

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
from cascade.io.color16 import LUMA, read_color16
from cascade.io.silence import silence_decoders
from cascade.io.slices import MAX_PIXELS, Slice, check_pixels

MIN_COLOR_SPREAD = 1 / 8
"""A pixel is colored if its channels differ by more than this fraction of the maximum of the image: JPEG noise in gray
images is several times smaller."""

MAX_COLORED_FRACTION = 0.1
"""Maximum fraction of colored pixels: 5% for marks, and as much for their JPEG artifacts. A photo has more."""

WHITE_IS_ZERO = 0
"""A value of PhotometricInterpretation in TIFF."""


@dataclass(frozen=True)
class ImageSource:
    """An image or .mat file; a `Source` of one slice.

    Attributes:
        path: Absolute path of the file.
    """

    name: str
    path: Path
    count: int = 1
    mask_suffix: str = ".png"
    notes: tuple[str, ...] = ()

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

    def close(self) -> None:
        """Do nothing: no pixels are held in memory."""


def read_slice(path: Path) -> Slice:
    """Read the slice of an image or .mat file.

    Raises:
        CascadeError: If the file does not contain one valid slice.
    """
    if path.suffix.lower() == ".mat":
        pixels, spacing_mm = mat.read_image(path)
        return Slice(check_pixels(pixels, str(path)), spacing_mm)
    return Slice(check_pixels(read_gray(path), str(path)))


def read_gray(path: Path) -> FloatArray:
    """Read a PNG, JPEG, TIFF, BMP or WebP file of 8, 16 or 32 bits as gray values.

    Colored marks are converted to luma (ITU-R BT.601). Transparent pixels become black.

    Returns:
        (H, W) float32 on the stored pixel grid, which may contain infinity.

    Raises:
        CascadeError: If the file cannot be read, or more than `MAX_COLORED_FRACTION` of the pixels are colored: the
            luma of a photo or color map is not an MRI intensity.
    """

    def damaged(error: Exception) -> CascadeError:
        if isinstance(error, Image.DecompressionBombError):
            return CascadeError(
                f"{path}: is far larger than an MRI slice", fix=f"give slices of at most {MAX_PIXELS:,} pixels"
            )
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"  # that error repeats the path
        return CascadeError(
            f"{path}: cannot be read as an image{reason}",
            fix="export the slice again as PNG; the file is truncated, damaged or not an image",
        )

    with read_errors(path, damaged), silence_decoders(), Image.open(path) as image:
        _check_header(image, path)
        if _is_color16(image):
            channels = read_color16(path)
            _check_color(channels, path)
            return np.asarray(channels @ LUMA)
        stored = np.asarray(_to_gray(image, path))
        pixels = (stored.view(np.uint32) if _is_uint32(image) else stored).astype(np.float32)
        if _is_inverted(image):
            with np.errstate(over="ignore", invalid="ignore"):  # `check_pixels` rejects infinite pixels
                pixels = pixels.max() + pixels.min() - pixels
        return pixels


def _is_inverted(image: ImageFile.ImageFile) -> bool:
    """Return True for a TIFF whose lowest values are white. Pillow inverts 8-bit images, but no deeper ones."""
    return (
        isinstance(image, TiffImageFile)
        and image.mode[0] in "IF"
        and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
    )


def _is_uint32(image: ImageFile.ImageFile) -> bool:
    """Return True for a TIFF of unsigned 32-bit integers, which Pillow reads as signed ones."""
    return isinstance(image, TiffImageFile) and image.mode == "I" and image.tag_v2.get(SAMPLEFORMAT, (1,)) == (1,)


def _check_header(image: ImageFile.ImageFile, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise CascadeError(
            f"{path}: {image.width} x {image.height} pixels are too large for an MRI slice",
            fix=f"give slices of at most {MAX_PIXELS:,} pixels",
        )
    if (count := getattr(image, "n_frames", 1)) > 1:
        raise CascadeError(f"{path}: contains {count} images", fix="save one slice per file")


def _is_color16(image: ImageFile.ImageFile) -> bool:
    bits = image.tag_v2.get(BITSPERSAMPLE, ()) if isinstance(image, TiffImageFile) else ()
    return bits[1:2] == (16,) or (image.mode[0] not in "IF" and any(";16" in str(tile[3]) for tile in image.tile))


def _to_gray(image: Image.Image, path: Path) -> Image.Image:
    if image.mode[0] in "IF":  # I, I;16 and F keep their depth
        return image
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    if image.mode not in ("1", "L"):
        _check_color(np.asarray(image.convert("RGB")), path)
    return image.convert("L")


def _check_color(channels: NDArray[Any], path: Path) -> None:
    """Raise CascadeError if too many pixels are colored. `channels` is (H, W, 3), from 0 to any maximum."""
    spread = channels.max(axis=2) - channels.min(axis=2)
    fraction = float((spread > MIN_COLOR_SPREAD * channels.max()).mean())
    if fraction > MAX_COLORED_FRACTION:
        raise CascadeError(
            f"{path}: {fraction:.0%} of the pixels are in color, unlike in MRI",
            fix="export the slice in gray, without a color map",
        )


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask (H, W) as an 8-bit gray PNG: 255 in the tumor, 0 elsewhere."""
    content = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(content, "PNG", compress_level=1)
    return content.getvalue()
