"""Constants and types shared by training and inference. After a change here, train and export both models again."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CLASS_NAMES = ("meningioma", "glioma", "pituitary tumor")
"""Class names in the order of the classifier's outputs; labels 1, 2, 3 of the figshare data set."""

SLICE_SIZE = 512
"""Height and width of the input slices of both graphs, in pixels."""

PIXEL_MM = 0.49
"""Pixel spacing of the training slices, in millimeters."""

THRESHOLD = 0.5
"""A pixel belongs to the tumor if its probability is at least this value."""

FloatArray = NDArray[np.float32]
"""Type of all inputs and outputs of the two graphs."""

# Names of the inputs and outputs of the two graphs. All are float32; N is the batch size, H = W = SLICE_SIZE.
SLICE = "slice"  # (N, 1, H, W), raw intensities of any range: the graphs normalize them
PROBABILITY = "probability"  # (N, 1, H, W), tumor probability of each pixel, 0 to 1
CLASS_PROBABILITY = "class_probability"  # (N, 3), each row sums to 1
BOX = "box"  # (N, 4), the region that the classifier used; zeros where no pixel reaches THRESHOLD

SHAPES = {
    SLICE: (1, SLICE_SIZE, SLICE_SIZE),
    PROBABILITY: (1, SLICE_SIZE, SLICE_SIZE),
    CLASS_PROBABILITY: (len(CLASS_NAMES),),
    BOX: (4,),
}
"""Shape of each input and output for one slice, without the batch axis."""


class Box(NamedTuple):
    """A rectangle in pixels. It covers the columns left <= x < right and the rows top <= y < bottom."""

    left: float
    top: float
    right: float
    bottom: float
