"""A slice and its prediction → a PNG to look at."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cascade.colors import CLASS_COLORS
from cascade.contract import CLASS_NAMES, Box, FloatArray
from cascade.io.png import encode_png
from cascade.io.slices import Slice
from cascade.result import Prediction

WINDOW = (1.0, 99.5)
"""Percentiles of the intensities that are drawn black and white."""

PIXELS_PER_LINE_WIDTH = 256
"""Contour and box are one pixel wide for every 256 pixels of the longer side of the slice."""

PREVIEW_SIDE = 256
"""Longest side of a preview in pixels."""

GRAYS = 240
BOX_COLOR = (240, 228, 66)

BOX_INDEX, FIRST_CLASS_INDEX = GRAYS, GRAYS + 1
PALETTE = bytes(round(255 * gray / (GRAYS - 1)) for gray in range(GRAYS) for _ in range(3)) + bytes(
    value for color in (BOX_COLOR, *CLASS_COLORS.values()) for value in color
)

NOTE = "research use only"

SIZE = "slice"
"""Key of the PNG text that contains the size of the slice as WIDTHxHEIGHT."""

IndexArray = NDArray[np.uint8]
"""(H, W) indices into the palette."""


def overlay_png(slice_: Slice, prediction: Prediction) -> bytes:
    """Draw contour, box, class and probability over a slice.

    The picture has the pixel grid of the slice, with a caption below it. It uses a palette, which takes a third of the
    space of RGB, and no compression, which would take longer than everything else here.

    Returns:
        A PNG file. Its text `SIZE` is the size of the slice, without the caption.
    """
    return _overlay(apply_window(slice_.pixels), prediction)


def overlay_rgb(slice_: Slice, prediction: Prediction) -> NDArray[np.uint8]:
    """Draw the same picture as an array (H, W, 3). The slice is at its top left, above the caption."""
    colors: NDArray[np.uint8] = np.frombuffer(PALETTE, np.uint8).reshape(-1, 3)
    return colors[_draw(apply_window(slice_.pixels), prediction)]


def preview_png(slice_: Slice, prediction: Prediction) -> bytes:
    """Draw a slice without a tumor, with a caption, at most PREVIEW_SIDE pixels high and wide. Returns as above."""
    grays = Image.fromarray(apply_window(slice_.pixels))
    return _overlay(np.array(grays.reduce(math.ceil(max(grays.size) / PREVIEW_SIDE))), prediction)


def _overlay(picture: IndexArray, prediction: Prediction) -> bytes:
    size = f"{picture.shape[1]}x{picture.shape[0]}"
    return encode_png(_draw(picture, prediction), level=0, palette=PALETTE, text={SIZE: size})


def _draw(picture: IndexArray, prediction: Prediction) -> IndexArray:
    line_width = max(1, round(max(picture.shape) / PIXELS_PER_LINE_WIDTH))
    if prediction.label is None:
        caption, color = "no tumor found", 0
    else:
        probability = prediction.probabilities[prediction.label]
        caption = f"{prediction.label} {probability:.2f}{', uncertain' if prediction.uncertain else ''}"
        color = FIRST_CLASS_INDEX + CLASS_NAMES.index(prediction.label)
        picture[contour(prediction.mask, line_width)] = color
    if prediction.box is not None:
        draw_box(picture, prediction.box, line_width)
    strip = caption_strip(caption, color, picture.shape[1])
    canvas = np.zeros((picture.shape[0] + strip.shape[0], strip.shape[1]), dtype=np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    canvas[picture.shape[0] :] = strip
    return canvas


def apply_window(pixels: FloatArray) -> IndexArray:
    """Map intensities (H, W) of any range to grays, 0 to GRAYS - 1; intensities outside of WINDOW are clipped."""
    step = max(1, max(pixels.shape) // 128)  # some 16,000 pixels estimate the percentiles well enough for a picture
    low, high = (float(value) for value in np.percentile(pixels[::step, ::step], WINDOW))
    if low >= high:
        low, high = float(pixels.min()), float(pixels.max())
    scaled = pixels - np.float32(low)
    scaled *= np.float32((GRAYS - 1) / (high - low))
    np.clip(scaled, 0, GRAYS - 1, out=scaled)
    return scaled.astype(np.uint8)


def contour(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the inner border of a non-empty mask (H, W), `width` pixels wide."""
    line = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inner = np.pad(mask[crop], 1)
    for _ in range(width):
        eroded = inner.copy()
        eroded[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        inner = eroded
    line[crop] = mask[crop] & ~inner[1:-1, 1:-1]
    return line


def draw_box(picture: IndexArray, box: Box, width: int) -> None:
    """Draw the outline of the box, inwards, into the picture."""
    left, top, right, bottom = (round(edge) for edge in box)
    frame = np.ones((max(bottom - top, 1), max(right - left, 1)), dtype=bool)
    frame[width:-width, width:-width] = False
    region = picture[top:bottom, left:right]
    region[frame[: region.shape[0], : region.shape[1]]] = BOX_INDEX


MAX_FONT_SIZE = 120
"""Pixels. A picture of 16 rows may have a million columns, and its caption need not fill them."""


@lru_cache(maxsize=64)
def caption_strip(caption: str, color: int, width: int) -> IndexArray:
    """Draw a square of the color of the class, the caption and NOTE; wider than `width` if they need more space."""
    font = _font(min(max(13, round(width / 34)), MAX_FONT_SIZE))
    margin = round(font.size / 3)
    height = round(font.size * 1.6)
    text_left = height if color else margin
    min_width = text_left + round(font.getlength(caption)) + 3 * margin + round(font.getlength(NOTE))
    image = Image.new("L", (max(width, min_width), height))
    draw = ImageDraw.Draw(image)
    if color:
        draw.rectangle((margin, margin, height - margin, height - margin), fill=color)
    draw.text((text_left, height / 2), caption, fill=GRAYS - 1, font=font, anchor="lm")
    draw.text((image.width - margin, height / 2), NOTE, fill=GRAYS // 2, font=font, anchor="rm")
    return np.asarray(image)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType")
    return font
