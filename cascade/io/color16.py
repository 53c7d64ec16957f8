"""Read color images with more than 8 bits per channel. Pillow would keep the upper 8 bits only."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.contract import FloatArray


def read_png16(path: Path) -> FloatArray:
    """Read a PNG file as `to_rgb` returns it. Raises the exceptions of the decoder."""
    import png

    width, height, rows, description = png.Reader(filename=str(path)).asDirect()
    stored = np.vstack([np.asarray(row, dtype=np.uint16) for row in rows]).reshape(height, width, description["planes"])
    return to_rgb(stored, has_alpha=description["alpha"])


def to_rgb(stored: NDArray[Any], *, has_alpha: bool) -> FloatArray:
    """Convert gray or RGB channels (H, W, C) to (H, W, 3) float32. Gray images get three equal channels.

    Args:
        stored: One gray or three color channels, and others after them.
        has_alpha: The last channel is the opacity. Transparent pixels become black.
    """
    height, width, channels = stored.shape
    values = stored.astype(np.float32)
    colors = values[..., : 3 if channels >= 3 else 1]
    if has_alpha:
        opaque = np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1
        colors = colors * (values[..., -1:] / np.float32(opaque))
    return np.broadcast_to(colors, (height, width, 3))
