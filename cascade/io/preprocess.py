"""Resample a slice to the input size of the graphs, and their outputs back to the grid of the slice."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cascade.contract import PIXEL_MM, SLICE_SIZE, Box, FloatArray
from cascade.io.slices import Slice


@dataclass(frozen=True)
class Letterbox:
    """Places a slice in the center of the SLICE_SIZE x SLICE_SIZE input of the graphs, the square.

    If its spacing is known, the slice is scaled to the PIXEL_MM of the training data, or less if it would not fit.
    Otherwise it is scaled to fit. It covers `scaled_height` x `scaled_width` pixels at (`top`, `left`).

    Attributes:
        height: Height of the slice in pixels.
        width: Width of the slice in pixels.
        spacing_mm: Distance between pixel centers in millimeters: (row, column). None if unknown.
    """

    height: int
    width: int
    spacing_mm: tuple[float, float] | None = None

    @classmethod
    def of(cls, slice_: Slice) -> "Letterbox":
        """Return the letterbox for the size and pixel spacing of a slice."""
        height, width = slice_.pixels.shape
        return cls(height, width, slice_.spacing_mm)

    @property
    def scales(self) -> tuple[float, float]:
        """Pixels of the square per pixel of the slice: (vertical, horizontal)."""
        row_mm, column_mm = self.spacing_mm or (PIXEL_MM, PIXEL_MM)
        fit = SLICE_SIZE / max(self.height * row_mm, self.width * column_mm)
        scale = min(fit, 1 / PIXEL_MM) if self.spacing_mm else fit
        return row_mm * scale, column_mm * scale

    @property
    def scaled_height(self) -> int:
        """Height of the slice in pixels of the square."""
        return max(1, round(self.height * self.scales[0]))

    @property
    def scaled_width(self) -> int:
        """Width of the slice in pixels of the square."""
        return max(1, round(self.width * self.scales[1]))

    @property
    def top(self) -> int:
        """First row of the square that the slice covers."""
        return (SLICE_SIZE - self.scaled_height) // 2

    @property
    def left(self) -> int:
        """First column of the square that the slice covers."""
        return (SLICE_SIZE - self.scaled_width) // 2

    def square(self, pixels: FloatArray) -> FloatArray:
        """Resample pixels (height, width) to (SLICE_SIZE, SLICE_SIZE) float32, padded with their minimum."""
        if pixels.shape == (SLICE_SIZE, SLICE_SIZE) == (self.scaled_height, self.scaled_width):
            return pixels
        square = np.full((SLICE_SIZE, SLICE_SIZE), pixels.min(), dtype=np.float32)
        square[self._covered] = resize(pixels, self.scaled_height, self.scaled_width)
        return square

    def original(self, probability: FloatArray) -> FloatArray:
        """Resample probabilities (SLICE_SIZE, SLICE_SIZE) to the grid of the slice, (height, width) float32."""
        if (self.height, self.width) == (SLICE_SIZE, SLICE_SIZE) == (self.scaled_height, self.scaled_width):
            return probability
        return resize(np.ascontiguousarray(probability[self._covered]), self.height, self.width)

    def original_box(self, box: Box) -> Box:
        """Convert a box from pixels of the square to pixels of the slice, and clip it at the edges of the slice."""
        horizontal, vertical = self.width / self.scaled_width, self.height / self.scaled_height
        width, height = float(self.width), float(self.height)
        return Box(
            left=min(max((box.left - self.left) * horizontal, 0.0), width),
            top=min(max((box.top - self.top) * vertical, 0.0), height),
            right=min(max((box.right - self.left) * horizontal, 0.0), width),
            bottom=min(max((box.bottom - self.top) * vertical, 0.0), height),
        )

    @property
    def _covered(self) -> tuple[slice, slice]:
        return (
            slice(self.top, self.top + self.scaled_height),
            slice(self.left, self.left + self.scaled_width),
        )


def resize(pixels: FloatArray, height: int, width: int) -> FloatArray:
    """Resize an image (H, W) with bilinear interpolation. Pillow widens the filter to avoid aliasing if it shrinks."""
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)
