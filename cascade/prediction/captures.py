"""Pictures of the slices with a tumor, for secondary captures."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from cascade.io.slices import BoolArray
from cascade.io.source import SliceReader
from cascade.prediction.overlay import overlay_rgb
from cascade.result import Prediction


def draw_captures(
    source: SliceReader, masks: BoolArray, probabilities: Mapping[str, float], *, uncertain: bool
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Draw the outline of the tumor, its class and probability over each slice that shows it.

    Reads the slices again, since the finding of a volume is known only after the last one.

    Args:
        source: The slices.
        masks: (N, H, W), True on the tumor.
        probabilities: Class name → probability.
        uncertain: Whether the class is uncertain.

    Yields:
        Index of a slice, and its picture (H, W, 3).
    """
    for index in np.flatnonzero(masks.any(axis=(1, 2))).tolist():
        prediction = Prediction(masks[index], probabilities=dict(probabilities), uncertain=uncertain)
        yield index, overlay_rgb(source.read(index), prediction)
