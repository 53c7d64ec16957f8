"""Replace padding: pixels with a value that the header declares to be no signal."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_padding(values: NDArray[Any], limits: tuple[float, float] | None) -> NDArray[np.bool_]:
    """Find the padding in the values of a frame.

    Args:
        values: (H, W), before any scale is applied.
        limits: PixelPaddingValue, and PixelPaddingRangeLimit or the same value again; None if the header has none.
            Integers count modulo the width of `values`: writers confuse -1 with 65535, since both are the same bits.

    Returns:
        (H, W) bool.
    """
    if limits is None:
        return np.zeros(values.shape, dtype=bool)
    if values.dtype.kind == "f":
        low, high = sorted(limits)
    else:
        unsigned = np.array([int(limit) % 256**values.dtype.itemsize for limit in limits], np.uint64)
        low, high = sorted(unsigned.astype(values.dtype).tolist())
    return np.asarray((low <= values) & (values <= high))


def fill_padding(intensities: NDArray[np.float64], padding: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replace padding by the lowest other intensity. If all pixels are padding, the header is wrong: none is replaced.

    Args:
        intensities: (H, W).
        padding: (H, W), from `is_padding`.
    """
    if padding.all() or not padding.any():
        return intensities
    return np.where(padding, np.nanmin(intensities[~padding]), intensities)
