"""Colour pictures of 16 bits a channel, of which Pillow would keep the upper 8."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LUMA = np.array([299, 587, 114], dtype=np.float32) / 1000
"""Shares of red, green and blue (ITU-R BT.601), as Pillow takes them."""


def read_deep_colour(path: Path) -> NDArray[np.float32]:
    """(H, W, 3) float32 of a PNG or TIFF, grey thrice; transparent is black. Raises what the decoders raise."""
    stored = _png(path) if path.suffix.lower() == ".png" else _tiff(path)
    height, width, channels = stored.shape
    values = stored.astype(np.float32)
    colours = values[..., : 3 if channels >= 3 else 1]
    if channels in (2, 4):  # the last tells how opaque a pixel is
        colours = colours * (values[..., -1:] / np.float32(np.iinfo(stored.dtype).max))
    return np.broadcast_to(colours, (height, width, 3))


def _png(path: Path) -> NDArray[np.uint16]:
    import png

    width, height, rows, description = png.Reader(filename=str(path)).asDirect()
    return np.vstack([np.asarray(row, dtype=np.uint16) for row in rows]).reshape(height, width, description["planes"])


def _tiff(path: Path) -> NDArray[np.uint16]:
    import tifffile

    pixels = tifffile.imread(path)
    return np.asarray(np.moveaxis(pixels, 0, -1) if pixels.shape[0] in (3, 4) else pixels)
