"""A slice → the square that the graphs take, and the way back to the slice's own grid."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cascade.contract import PIXEL_MM, SLICE_SIZE, Box, FloatArray
from cascade.io.slices import Slice


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
