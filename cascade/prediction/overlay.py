"""A slice and what was found in it → a picture to look at."""

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cascade.colors import CLASS_COLORS, YELLOW
from cascade.contract import CLASS_NAMES, Box, FloatArray
from cascade.io.slices import Slice
from cascade.pipeline import Prediction

WINDOW = (1.0, 99.5)
"""Percentiles of the slice shown as black and as white."""

SIDE_OF_LINE = 256
"""Contour and box are a pixel wide for each so many pixels of the slice's longer side."""

GREYS = 240
BOX_COLOR = YELLOW

BOX_INDEX, FIRST_CLASS_INDEX = GREYS, GREYS + 1
PALETTE = bytes(round(255 * grey / (GREYS - 1)) for grey in range(GREYS) for _ in range(3)) + bytes(
    value for color in (BOX_COLOR, *CLASS_COLORS.values()) for value in color
)

NOTE = "research use only"
SIZE = "slice"

IndexArray = NDArray[np.uint8]


def overlay_png(slice_: Slice, found: Prediction) -> bytes:
    """The slice with contour, box, class and probability; pixel (x, y) of the slice is pixel (x, y) of the picture.

    Below it a caption. The text SIZE in the PNG tells how large the slice is without: WIDTHxHEIGHT.

    A palette of greys and a few colours: a third of the bytes of RGB. Stored without compression, which would take
    longer than all the rest here and save a third of the bytes.
    """
    picture = windowed(slice_.pixels)
    width = max(1, round(max(picture.shape) / SIDE_OF_LINE))
    if found.label is None:
        caption, colour = "no tumor found", 0
    else:
        caption = f"{found.label} {found.probabilities[found.label]:.2f}{', uncertain' if found.uncertain else ''}"
        colour = FIRST_CLASS_INDEX + CLASS_NAMES.index(found.label)
        picture[contour(found.mask, width)] = colour
    if found.box is not None:
        draw_box(picture, found.box, width)
    strip = caption_strip(caption, colour, picture.shape[1])
    canvas = np.zeros((picture.shape[0] + strip.shape[0], strip.shape[1]), dtype=np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    canvas[picture.shape[0] :] = strip
    image = Image.fromarray(canvas)
    image.putpalette(PALETTE)
    size = PngInfo()
    size.add_text(SIZE, f"{picture.shape[1]}x{picture.shape[0]}")
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=0, pnginfo=size)
    return content.getvalue()


def windowed(pixels: FloatArray) -> IndexArray:
    """(H, W) of any range → (H, W) palette indices of greys, 0 .. GREYS - 1."""
    step = max(1, max(pixels.shape) // 128)  # some 16,000 pixels tell the percentiles well enough to look at
    low, high = (float(value) for value in np.percentile(pixels[::step, ::step], WINDOW))
    if low >= high:
        low, high = float(pixels.min()), float(pixels.max())
    scaled = pixels - np.float32(low)
    scaled *= np.float32((GREYS - 1) / (high - low))
    np.clip(scaled, 0, GREYS - 1, out=scaled)
    return scaled.astype(np.uint8)


def contour(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """(H, W) bool → the pixels of it that are less than `width` steps (up, down, left, right) from its border."""
    line = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inner = np.pad(mask[part], 1)
    for _ in range(width):
        shrunk = inner.copy()
        shrunk[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        inner = shrunk
    line[part] = mask[part] & ~inner[1:-1, 1:-1]
    return line


def draw_box(picture: IndexArray, box: Box, width: int) -> None:
    """Draws the box's edge, inwards, into the picture."""
    left, top, right, bottom = (round(edge) for edge in box)
    frame = np.ones((max(bottom - top, 1), max(right - left, 1)), dtype=bool)
    frame[width:-width, width:-width] = False
    part = picture[top:bottom, left:right]
    part[frame[: part.shape[0], : part.shape[1]]] = BOX_INDEX


@lru_cache(maxsize=64)
def caption_strip(caption: str, colour: int, width: int) -> IndexArray:
    """Palette indices, at least `width` across: a square of the class's colour, the caption and the note."""
    font = _font(max(13, round(width / 34)))
    margin = round(font.size / 3)
    height = round(font.size * 1.6)
    text_left = height if colour else margin
    note_width = round(font.getlength(NOTE))
    needed = text_left + round(font.getlength(caption)) + 3 * margin + note_width
    image = Image.new("L", (max(width, needed), height))
    draw = ImageDraw.Draw(image)
    if colour:
        draw.rectangle((margin, margin, height - margin, height - margin), fill=colour)
    draw.text((text_left, height / 2), caption, fill=GREYS - 1, font=font, anchor="lm")
    draw.text((image.width - margin, height / 2), NOTE, fill=GREYS // 2, font=font, anchor="rm")
    return np.asarray(image)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType")
    return font
