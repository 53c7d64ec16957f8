"""Synthetic slices for measurements without data: a head on a dark background with a bright ring-shaped tumor.

They cost the networks as much as real slices: they have the same size and depth, and each shows a tumor. They do not
test the accuracy of masks.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from cascade.contract import SLICE_SIZE

SEED = 0
SIMULATED_SLICES = 16
"""More would not change the results: no runtime is faster on a slice that it has seen before."""


def simulate_slices(folder: Path) -> None:
    """Write SIMULATED_SLICES slices to a folder as 16-bit PNG, the same each time."""
    random = np.random.default_rng(SEED)
    for number in range(SIMULATED_SLICES):
        Image.fromarray(simulated_slice(random)).save(folder / f"{number:05}.png")


def simulated_slice(random: np.random.Generator, contrast: float = 1.0) -> NDArray[np.uint16]:
    """Generate a slice (SLICE_SIZE, SLICE_SIZE) of intensities from 0 to about 4000, as MRI scanners store them.

    Args:
        random: Source of all differences between slices.
        contrast: Of the tumor to the tissue around it, from 0 (none) to 1.
    """
    down, across = np.mgrid[-1 : 1 : SLICE_SIZE * 1j, -1 : 1 : SLICE_SIZE * 1j]
    texture = sum(
        gaussian_filter(random.normal(size=down.shape), width) * width * strength
        for width, strength in ((2, 120), (12, 420))
    )
    radius = np.hypot(down / random.uniform(0.80, 0.9), across / random.uniform(0.66, 0.76))
    pixels = np.where(radius < 0.86, 1000 + texture, 0)
    pixels = np.where((radius >= 0.86) & (radius < 0.91), 250, pixels)  # bone is dark
    pixels = np.where((radius >= 0.91) & (radius < 1), 1700, pixels)  # subcutaneous fat is bright
    row, column = random.uniform(-0.35, 0.35, 2)
    size = random.uniform(0.12, 0.22)
    tumor = np.hypot(down - row, (across - column) / random.uniform(0.8, 1.25)) / size
    healthy = pixels
    pixels = np.where(tumor < 1, 2600 + 0.5 * texture, pixels)  # contrast agent accumulates in the tumor,
    pixels = np.where(tumor < random.uniform(0.2, 0.5), 1500 + 0.5 * texture, pixels)  # less in its necrotic center
    if contrast < 1:
        pixels = healthy + contrast * (pixels - healthy)
    pixels = gaussian_filter(pixels, 1.0) + random.normal(0, 40, pixels.shape)
    clipped: NDArray[np.uint16] = np.clip(pixels, 0, 65535).astype(np.uint16)
    return clipped
