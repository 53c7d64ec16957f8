"""Replace NaN outside the head: programs that register or mask volumes (SPM, ANTs) store it there."""

import numpy as np
from numpy.typing import NDArray

from cascade.contract import FloatArray
from cascade.errors import CascadeError

MAX_FRACTION_OF_HEAD = 0.1
"""Maximum fraction of the head that may be NaN. If all intensities below 3% of the highest are NaN, these are up to 3%
of the head, in its dark cavities. A region that someone has cut out of a brain is larger."""

ENCLOSING_FRACTION = 1 / 32
"""Fraction of the width and height that must be finite on each side of a pixel of the head. Noise outside the head has
fewer finite pixels in a row."""

NAN_NOTE = "contained NaN, which was replaced by the lowest intensity of the slice"


def replace_nan(pixels: FloatArray, name: str) -> tuple[FloatArray, tuple[str, ...]]:
    """Replace NaN by the lowest finite value of a slice.

    Args:
        pixels: (H, W) float32.
        name: The slice, for error messages.

    Returns:
        The pixels, and a note if there was NaN. Pixels that are all NaN become 0: the slice is blank.

    Raises:
        CascadeError: If more than `MAX_FRACTION_OF_HEAD` of the head is NaN. A pixel lies in the head if finite ones
            enclose it: to the left, to the right, above and below.
    """
    missing = np.isnan(pixels)
    if not missing.any():
        return pixels, ()
    finite = np.isfinite(pixels)
    holes, values = np.count_nonzero(missing & _enclosed_by(finite)), np.count_nonzero(finite)
    if values == 0:
        return np.where(missing, np.float32(0), pixels), (NAN_NOTE,)
    if (fraction := holes / (holes + values)) > MAX_FRACTION_OF_HEAD:
        raise CascadeError(
            f"{name}: {fraction:.0%} of the head contains NaN instead of intensities",
            fix="export it again with intensities in the whole head; only the background may contain NaN",
        )
    return np.where(missing, pixels[finite].min(), pixels), (NAN_NOTE,)


def _enclosed_by(finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    enclosed = np.ones_like(finite)
    for axis in (0, 1):
        needed = max(1, round(finite.shape[axis] * ENCLOSING_FRACTION))
        before = np.cumsum(finite, axis=axis)
        after = finite.sum(axis=axis, keepdims=True) - before
        enclosed &= (before >= needed) & (after >= needed)
    return enclosed
