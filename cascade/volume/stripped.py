"""Recognize skull-stripped volumes: brains alone, on a constant background, without skull and scalp.

A whole head whose background was set to 0 has a constant background too. Below its surface lie scalp, whose fat is
bright in T1, and skull, which is dark in every sequence. Below the surface of a brain lies gray matter.
"""

from collections.abc import Iterable

import numpy as np

from cascade.contract import PIXEL_MM, SLICE_SIZE, FloatArray

STRIPPED_NOTE = "skull-stripped: the models were trained on whole heads"

DEEP_MM = 20.0
"""The median intensity of what lies deeper than this is that of brain."""

MIN_DEEP_MM2 = 500.0
"""A slice with less of it shows too little brain to decide."""

SCALP_MM = 8.0
"""The scalp lies within this distance from the surface."""

FAT = 1.3
"""Fat is brighter than this many times the brain."""

SKULL_MM = (3.0, 15.0)
"""The skull lies between these distances from the surface."""

BONE = 0.3
"""Bone is darker than this fraction of the brain."""

MAX_FRACTION = 0.15
"""In a slice of a brain alone, fat and bone each take at most this fraction of the places where they would lie."""

GRID_MM = 0.9
"""Finer slices are thinned out to about this spacing, which is fine enough to see scalp and skull."""

MAX_SLICES = 16
"""At least as many slices of a volume are looked at, if it has them."""

MIN_SLICES, MIN_STRIPPED = 3, 0.8
"""A volume is skull-stripped if at least this fraction, of at least as many slices that can be decided, is."""


def is_looked_at(index: int, count: int) -> bool:
    """Return True for the slices of a volume that decide: up to twice `MAX_SLICES`, at equal distances."""
    return count > 1 and index % max(1, count // MAX_SLICES) == 0


def looks_stripped(pixels: FloatArray, spacing_mm: tuple[float, float] | None) -> bool | None:
    """Return True if a slice shows a brain alone, and None if it shows too little to decide.

    Args:
        pixels: (H, W) float32, intensities of any range.
        spacing_mm: Distance between pixel centers in millimeters: (row, column). None if unknown.
    """
    background = pixels[0, 0]
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    if not all((edge == background).all() for edge in edges):
        return False
    from scipy.ndimage import binary_fill_holes, distance_transform_edt  # loads slowly, and few slices need it

    unknown_mm = PIXEL_MM * SLICE_SIZE / max(pixels.shape)
    steps = [max(1, int(GRID_MM / length_mm)) for length_mm in spacing_mm or (unknown_mm, unknown_mm)]
    sampling_mm = np.multiply(spacing_mm or (unknown_mm, unknown_mm), steps)
    intensities = pixels[:: steps[0], :: steps[1]] - background
    depth_mm = distance_transform_edt(binary_fill_holes(intensities != 0), sampling=sampling_mm)
    deep = depth_mm > DEEP_MM
    if np.count_nonzero(deep) * sampling_mm.prod() < MIN_DEEP_MM2:
        return None
    brain = float(np.median(intensities[deep]))
    if brain <= 0:  # the background is not the darkest, so "dark" has no meaning
        return False
    scalp = intensities[(depth_mm > 0) & (depth_mm <= SCALP_MM)] > FAT * brain
    skull = intensities[(depth_mm > SKULL_MM[0]) & (depth_mm <= SKULL_MM[1])] < BONE * brain
    return bool(scalp.mean() <= MAX_FRACTION and skull.mean() <= MAX_FRACTION)


def is_stripped(slices: Iterable[bool | None]) -> bool:
    """Return True if a volume is skull-stripped.

    Args:
        slices: What `looks_stripped` returned for some of its slices.
    """
    decided = [stripped for stripped in slices if stripped is not None]
    return len(decided) >= MIN_SLICES and sum(decided) >= MIN_STRIPPED * len(decided)
