"""Slices made by code, for a benchmark that needs no data: a head in the dark and a bright ring of a tumor in it.

They look to a network's arithmetic as real slices do: as large, as deep, a tumor in each. They are no test of its
masks.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from cascade.contract import SLICE_SIZE

SEED = 0
DIFFERENT = 16
"""More would only be more to make: no runtime here is faster on a slice that it has seen."""


def simulate_slices(folder: Path) -> None:
    """Writes DIFFERENT slices into the folder: PNG of 16 bits, SLICE_SIZE high and wide, the same each time."""
    random = np.random.default_rng(SEED)
    for number in range(DIFFERENT):
        Image.fromarray(simulated_slice(random)).save(folder / f"{number:05}.png")


def simulated_slice(random: np.random.Generator) -> NDArray[np.uint16]:
    """(SLICE_SIZE, SLICE_SIZE), 0 to about 4000, as MRI scanners store."""
    down, across = np.mgrid[-1 : 1 : SLICE_SIZE * 1j, -1 : 1 : SLICE_SIZE * 1j]
    texture = sum(
        gaussian_filter(random.normal(size=down.shape), width) * width * strength
        for width, strength in ((2, 120), (12, 420))
    )
    radius = np.hypot(down / random.uniform(0.80, 0.9), across / random.uniform(0.66, 0.76))
    pixels = np.where(radius < 0.86, 1000 + texture, 0)
    pixels = np.where((radius >= 0.86) & (radius < 0.91), 250, pixels)  # bone is dark
    pixels = np.where((radius >= 0.91) & (radius < 1), 1700, pixels)  # the fat below the skin is bright
    row, column = random.uniform(-0.35, 0.35, 2)
    size = random.uniform(0.12, 0.22)
    tumor = np.hypot(down - row, (across - column) / random.uniform(0.8, 1.25)) / size
    pixels = np.where(tumor < 1, 2600 + 0.5 * texture, pixels)  # contrast agent gathers in it,
    pixels = np.where(tumor < random.uniform(0.2, 0.5), 1500 + 0.5 * texture, pixels)  # less in its dead middle
    pixels = gaussian_filter(pixels, 1.0) + random.normal(0, 40, pixels.shape)
    clipped: NDArray[np.uint16] = np.clip(pixels, 0, 65535).astype(np.uint16)
    return clipped
