"""Convert images of any mode to gray values."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.io.exif import orientation_of, turn
from cascade.io.slices import MAX_PIXELS

LUMA = np.array([299, 587, 114], dtype=np.float32) / 1000
"""Weights of red, green and blue (ITU-R BT.601), as in Pillow."""

MIN_COLOR_SPREAD = 1 / 8
"""A pixel is colored if its channels differ by more than this fraction of the maximum of the image: JPEG noise in gray
images is several times smaller."""

MAX_COLORED_FRACTION = 0.1
"""Maximum fraction of colored pixels: 5% for marks, and as much for their JPEG artifacts. A photo has more."""

WHITE_IS_ZERO = 0
"""A value of PhotometricInterpretation in TIFF."""


def image_to_gray(image: Image.Image, name: str) -> tuple[FloatArray, int]:
    """Convert a Pillow image to gray values.

    Colored marks are converted to luma. Transparent pixels become black. The modes I and F keep their depth. Raises the
    exceptions of the decoder if the image is not loaded yet.

    Args:
        image: An image of one frame and any mode.
        name: The image, for error messages.

    Returns:
        (H, W) float32 as viewers show it, which may contain NaN and infinity; and the orientation in the header.

    Raises:
        CascadeError: If it is too large, has several frames, or is a photo or color map.
    """
    check_size(image.width, image.height, name)
    if (count := getattr(image, "n_frames", 1)) > 1:
        raise several_images(count, name)
    orientation = orientation_of(image)
    if not isinstance(image, TiffImageFile):
        return turn(np.asarray(_without_color(image, name), dtype=np.float32), orientation), orientation
    image.filename = ""  # from a named file, Pillow maps uncompressed pixels to memory with height and width swapped
    is_uint32, is_inverted = _is_uint32(image), _is_inverted(image)
    stored = np.asarray(_without_color(image, name))  # Pillow turns a TIFF when it decodes it
    pixels: FloatArray = (stored.view(np.uint32) if is_uint32 else stored).astype(np.float32)
    return invert(pixels) if is_inverted else pixels, orientation


def rgb_to_gray(channels: FloatArray, name: str) -> FloatArray:
    """Convert (H, W, 3), of 0 to any maximum, to luma (H, W).

    Raises:
        CascadeError: If more than `MAX_COLORED_FRACTION` of the pixels are colored: the luma of a photo or color map is
            not an MRI intensity.
    """
    _check_color(channels, name)
    return np.asarray(channels @ LUMA)


def invert(pixels: FloatArray) -> FloatArray:
    """Exchange low and high intensities (H, W), in the same range."""
    with np.errstate(over="ignore", invalid="ignore"):  # `check_pixels` rejects infinite pixels
        return np.asarray(np.fmax.reduce(pixels, axis=None) + np.fmin.reduce(pixels, axis=None) - pixels)


def check_size(width: int, height: int, name: str) -> None:
    """Raise CascadeError if an image is far larger than a slice; to be called before it is decoded."""
    if width * height > MAX_PIXELS:
        raise CascadeError(
            f"{name}: {width} x {height} pixels are too large for an MRI slice",
            fix=f"give slices of at most {MAX_PIXELS:,} pixels",
        )


def several_images(count: int, name: str) -> CascadeError:
    """Return the error for a file of more than one image."""
    return CascadeError(f"{name}: contains {count} images", fix="save one slice per file")


def has_deep_color(image: Image.Image) -> bool:
    """Return True for a color image, not loaded yet, of which Pillow would keep the upper 8 of 16 bits."""
    return image.mode[0] not in "IF" and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _is_inverted(image: TiffImageFile) -> bool:
    """Return True if the lowest values are white. Pillow inverts 8-bit images, but no deeper ones."""
    return image.mode[0] in "IF" and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO


def _is_uint32(image: TiffImageFile) -> bool:
    """Return True for unsigned 32-bit integers, which Pillow reads as signed ones."""
    return image.mode == "I" and image.tag_v2.get(SAMPLEFORMAT, (1,)) == (1,)


def _without_color(image: Image.Image, name: str) -> Image.Image:
    if image.mode[0] in "IF":  # I, I;16 and F keep their depth
        return image
    if image.mode in ("La", "RGBa"):  # Pillow converts these to nothing but LA and RGBA
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    if image.mode not in ("1", "L"):
        _check_color(np.asarray(image.convert("RGB")), name)
    return image.convert("L")


def _check_color(channels: FloatArray | NDArray[np.uint8], name: str) -> None:
    spread = channels.max(axis=2) - channels.min(axis=2)
    fraction = float((spread > MIN_COLOR_SPREAD * channels.max()).mean())
    if fraction > MAX_COLORED_FRACTION:
        raise CascadeError(
            f"{name}: {fraction:.0%} of the pixels are in color, unlike in MRI",
            fix="export the slice in gray, without a color map",
        )
