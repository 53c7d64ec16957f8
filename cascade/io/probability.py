"""Tumor probabilities of pixels as integers of 16 bits, the form in which files store them."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cascade.contract import THRESHOLD, FloatArray

FULL = 65535
"""The integer that stands for a probability of 1."""

Uint16Array = NDArray[np.uint16]
"""Probabilities multiplied by FULL and rounded."""


def to_uint16(probability: FloatArray) -> Uint16Array:
    """Convert probabilities, 0 to 1, to integers.

    Halves round to even, so 0.5 becomes 32768: exactly the pixels of at least THRESHOLD stay above it, and the mask can
    be computed from the file.
    """
    values: Uint16Array = np.rint(probability * np.float32(FULL)).astype(np.uint16)
    return values


def to_float(values: Uint16Array) -> FloatArray:
    """Convert integers back to probabilities as float32."""
    return values.astype(np.float32) / np.float32(FULL)


def to_float16(values: Uint16Array) -> NDArray[np.float16]:
    """Convert integers to probabilities as float16; a number that would round up to THRESHOLD stays below it."""
    probability = to_float(values)
    below = np.nextafter(np.float16(THRESHOLD), np.float16(0))
    rounded = probability.astype(np.float16)
    return np.where(probability < THRESHOLD, np.minimum(rounded, below), rounded)


def probability_png(values: Uint16Array) -> bytes:
    """Encode the probabilities of a slice (H, W) as a gray PNG of 16 bits."""
    content = io.BytesIO()
    Image.fromarray(values).save(content, "PNG", compress_level=1)
    return content.getvalue()
