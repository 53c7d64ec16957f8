"""Give a slice the gray values of another scanner."""

import numpy as np
import torch
from torch.nn import functional as F

from train.heads import LEVELS, FloatPlane


def restyle(plane: FloatPlane, source: FloatPlane, target: FloatPlane, random: np.random.Generator) -> FloatPlane:
    """Give a slice the gray values of another scanner, at a random strength; 40 % also at half the resolution.

    Args:
        plane: (H, W) in 0 to 1.
        source: Its `gray_levels`.
        target: The `gray_levels` to approach.
        random: Draws strength and resolution.
    """
    strength = random.uniform(0.3, 1.0)
    mixed = strength * match_levels(plane, source, target) + (1 - strength) * plane
    return half_resolution(mixed) if random.random() < 0.4 else mixed


def match_levels(plane: FloatPlane, source: FloatPlane, target: FloatPlane) -> FloatPlane:
    """Map gray values so that quantiles of the tissue `source` become those of `target` (histogram matching)."""
    mapped: FloatPlane = np.interp(plane, source, target).astype(np.float32)
    return mapped


def match_quartiles(plane: FloatPlane, source: FloatPlane, target: FloatPlane) -> FloatPlane:
    """Map gray values linearly so that the quartiles of the tissue `source` become those of `target`."""
    first, third = 1 + LEVELS // 4, 1 + 3 * LEVELS // 4
    gain = float(target[third] - target[first]) / max(float(source[third] - source[first]), 1e-3)
    mapped: FloatPlane = ((plane - source[first]) * gain + target[first]).astype(np.float32)
    return mapped


def half_resolution(plane: FloatPlane) -> FloatPlane:
    """(H, W) averaged over 2 x 2 pixels and enlarged again."""
    small = F.avg_pool2d(torch.from_numpy(np.ascontiguousarray(plane))[None, None], 2)
    back: FloatPlane = F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)[0, 0].numpy()
    return back
