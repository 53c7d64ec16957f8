"""Read color images with 16 bits per channel. Pillow would keep the upper 8 bits only."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LUMA = np.array([299, 587, 114], dtype=np.float32) / 1000
"""Weights of red, green and blue (ITU-R BT.601), as in Pillow."""


def read_color16(path: Path) -> NDArray[np.float32]:
    """Read a PNG or TIFF file. Raises the exceptions of the decoders.

    Returns:
        (H, W, 3) float32. Gray images have three equal channels; transparent pixels are black.
    """
    stored = _png(path) if path.suffix.lower() == ".png" else _tiff(path)
    height, width, channels = stored.shape
    values = stored.astype(np.float32)
    colors = values[..., : 3 if channels >= 3 else 1]
    if channels in (2, 4):  # the last channel is alpha
        colors = colors * (values[..., -1:] / np.float32(np.iinfo(stored.dtype).max))
    return np.broadcast_to(colors, (height, width, 3))


def _png(path: Path) -> NDArray[np.uint16]:
    import png

    width, height, rows, description = png.Reader(filename=str(path)).asDirect()
    return np.vstack([np.asarray(row, dtype=np.uint16) for row in rows]).reshape(height, width, description["planes"])


def _tiff(path: Path) -> NDArray[np.uint16]:
    import tifffile

    pixels = tifffile.imread(path)
    return np.asarray(np.moveaxis(pixels, 0, -1) if pixels.shape[0] in (3, 4) else pixels)
