"""What training and inference share: change a value here and both models must be trained and exported again."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CLASS_NAMES = ("meningioma", "glioma", "pituitary tumor")
"""In the order of the classifier's outputs; figshare's labels 1, 2, 3."""

SLICE_SIZE = 512
"""Height and width in pixels of the slices that both graphs take."""

PIXEL_MM = 0.49
"""Side of a pixel of the slices that the models were trained on, in millimetres."""

THRESHOLD = 0.5
"""A pixel is tumor where its probability is at least this."""

FloatArray = NDArray[np.float32]
"""Type of every input and output of the two graphs."""

# Inputs and outputs of the two graphs; all float32, N slices a batch, H = W = SLICE_SIZE.
SLICE = "slice"  # (N, 1, H, W), raw intensities of any range: the graphs normalise
PROBABILITY = "probability"  # (N, 1, H, W), of a pixel being tumor
CLASS_PROBABILITY = "class_probability"  # (N, 3), rows sum to 1
BOX = "box"  # (N, 4), where the classifier looked; all 0 when no pixel reaches THRESHOLD

SHAPES = {
    SLICE: (1, SLICE_SIZE, SLICE_SIZE),
    PROBABILITY: (1, SLICE_SIZE, SLICE_SIZE),
    CLASS_PROBABILITY: (len(CLASS_NAMES),),
    BOX: (4,),
}
"""Of one slice, behind the batch."""


class Box(NamedTuple):
    """A rectangle in pixels, edges between pixels: it covers columns left <= x < right and rows top <= y < bottom."""

    left: float
    top: float
    right: float
    bottom: float
