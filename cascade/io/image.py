"""A file → `Slice`, whatever the format; and the square that the graphs see of it."""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from cascade import figshare
from cascade.contract import PIXEL_MM, SLICE_SIZE, Box
from cascade.errors import CascadeError
from cascade.files import reading
from cascade.io.color16 import LUMA, read_deep_colour

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

MIN_SIDE = 16
MAX_PIXELS = 4096**2
"""Far beyond any MRI matrix, and 64 MB as float32: a run holds some 40 slices at a time."""

CONTRASTS = (1e-9, 1e15)
"""Least and greatest contrast, highest less lowest pixel: beyond, the graphs' variance leaves float32."""

COLOUR_FROM = 1 / 8
"""Share of a picture's highest value by which a coloured pixel's channels differ: several times JPEG's noise."""

MAX_COLOURED = 0.1
"""Share of a slice's pixels: room for marks on 5%, and as much that JPEG smears around them. A photo has more."""

WHITE_IS_ZERO = 0
"""A TIFF's PhotometricInterpretation."""

# Pillow tells the terminal of damaged tags, and of sizes that MAX_PIXELS refuses anyway.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Slice:
    """One MRI slice as it was stored.

    pixels      (H, W) float32, raw intensities of any range, finite.
    spacing_mm  (row, column) distance between pixel centres; None where the file does not tell.
    """

    pixels: FloatArray
    spacing_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Raises CascadeError for pixels of another shape or type, and spacings that are none."""
        if self.pixels.ndim != 2 or self.pixels.dtype != np.float32:
            raise CascadeError(
                f"pixels of shape {self.pixels.shape} and type {self.pixels.dtype} are no slice",
                fix="give (height, width) float32",
            )
        if self.spacing_mm and not all(0 < spacing < np.inf for spacing in self.spacing_mm):
            raise CascadeError(f"a spacing of {self.spacing_mm} mm is none", fix="give positive numbers, or None")


def array_slice(pixels: ArrayLike) -> Slice:
    """An array (H, W) of any real numbers as a slice. Raises CascadeError where it is none."""
    array = np.asarray(pixels)
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise CascadeError(
            f"an array of shape {array.shape} and type {array.dtype} is no slice", fix="give (height, width) numbers"
        )
    return Slice(checked(array.astype(np.float32), "the array"))


def read_slice(path: Path) -> Slice:
    """Raises CascadeError, naming the file and the fix, for anything that is not one readable slice."""
    if path.suffix.lower() == ".mat":
        pixels, spacing_mm = figshare.read_image(path)
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

    with reading(path, unreadable), Image.open(path) as image:
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


class BlankSlice(CascadeError):
    """Every pixel has the same value, as often at a volume's ends.

    shape  (H, W)
    """

    def __init__(self, what: str, shape: tuple[int, ...]) -> None:
        super().__init__(f"{what}: every pixel has the same value", fix="leave blank slices out")
        self.shape = shape


def checked(pixels: FloatArray, what: str) -> FloatArray:
    """The pixels, once it is sure that a slice can be seen in them; `what` they are begins the errors."""
    if min(pixels.shape) < MIN_SIDE:
        height, width = pixels.shape
        raise CascadeError(
            f"{what}: {width} x {height} pixels is too small", fix=f"give at least {MIN_SIDE} x {MIN_SIDE}"
        )
    if not np.isfinite(pixels).all():
        raise CascadeError(f"{what}: holds NaN or infinite pixels", fix="replace them before export")
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        raise BlankSlice(what, pixels.shape)
    if not CONTRASTS[0] <= high - low <= CONTRASTS[1]:
        raise CascadeError(
            f"{what}: intensities from {low:g} to {high:g} are no MRI signal", fix="replace fill values before export"
        )
    return pixels


@dataclass(frozen=True)
class Letterbox:
    """How an (height, width) slice lies, centred, in the SLICE_SIZE square that the graphs take.

    spacing_mm  (row, column) distance between pixel centres, None where not known.

    Where the spacing is known, the slice is scaled to the PIXEL_MM that the models know, and further down if it would
    not fit; where it is not, as far as it fits. `scaled_height` x `scaled_width` pixels are put at (top, left).
    """

    height: int
    width: int
    spacing_mm: tuple[float, float] | None = None

    @classmethod
    def of(cls, slice_: Slice) -> "Letterbox":
        height, width = slice_.pixels.shape
        return cls(height, width, slice_.spacing_mm)

    @property
    def scales(self) -> tuple[float, float]:
        """Pixels of the square a pixel of the slice: down, across."""
        down, across = self.spacing_mm or (PIXEL_MM, PIXEL_MM)
        fits = SLICE_SIZE / max(self.height * down, self.width * across)
        scale = min(fits, 1 / PIXEL_MM) if self.spacing_mm else fits
        return down * scale, across * scale

    @property
    def scaled_height(self) -> int:
        return max(1, round(self.height * self.scales[0]))

    @property
    def scaled_width(self) -> int:
        return max(1, round(self.width * self.scales[1]))

    @property
    def top(self) -> int:
        return (SLICE_SIZE - self.scaled_height) // 2

    @property
    def left(self) -> int:
        return (SLICE_SIZE - self.scaled_width) // 2

    def square(self, pixels: FloatArray) -> FloatArray:
        """(height, width) → (SLICE_SIZE, SLICE_SIZE) float32; where the slice does not reach, its lowest intensity."""
        if pixels.shape == (SLICE_SIZE, SLICE_SIZE) == (self.scaled_height, self.scaled_width):
            return pixels
        square = np.full((SLICE_SIZE, SLICE_SIZE), pixels.min(), dtype=np.float32)
        square[self._covered] = resized(pixels, self.scaled_height, self.scaled_width)
        return square

    def original(self, probability: FloatArray) -> FloatArray:
        """(SLICE_SIZE, SLICE_SIZE) → (height, width) float32: the way back to the slice's own grid."""
        if (self.height, self.width) == (SLICE_SIZE, SLICE_SIZE) == (self.scaled_height, self.scaled_width):
            return probability
        return resized(np.ascontiguousarray(probability[self._covered]), self.height, self.width)

    def original_box(self, box: Box) -> Box:
        """A box in pixels of the square → the same box in pixels of the slice, cut at the slice's edges."""
        across, down = self.width / self.scaled_width, self.height / self.scaled_height
        width, height = float(self.width), float(self.height)
        return Box(
            left=min(max((box.left - self.left) * across, 0.0), width),
            top=min(max((box.top - self.top) * down, 0.0), height),
            right=min(max((box.right - self.left) * across, 0.0), width),
            bottom=min(max((box.bottom - self.top) * down, 0.0), height),
        )

    @property
    def _covered(self) -> tuple[slice, slice]:
        return (
            slice(self.top, self.top + self.scaled_height),
            slice(self.left, self.left + self.scaled_width),
        )


def resized(pixels: FloatArray, height: int, width: int) -> FloatArray:
    """Bilinear, with an area filter where it shrinks (Pillow's `reducing` resampling, so nothing aliases)."""
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)
