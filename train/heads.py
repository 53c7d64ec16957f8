"""The head on a slice: where it lies, how it looks, and its gray values."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

FloatPlane = NDArray[np.float32]
BoolPlane = NDArray[np.bool_]

HEAD_SIZE = 256
"""Height and width at which heads are described; boxes and other lengths are in these pixels."""

LEVELS = 33
"""Quantiles of the tissue that describe a slice's gray values."""

DESCRIPTOR = 48
"""Height and width at which the heads of two slices are compared."""

MIN_HEAD = 100
"""Least height and width in pixels of a host's head."""

MAX_AIR = 0.08
"""Highest level of the air around a host's head. Skull-stripped slices on gray ground are no hosts."""

MAX_HEAD_GRADIENT = 0.15
"""Largest upper quartile of a host's gradient over the head, per pixel and over the median of the slice's tissue.
Slices through the face are no hosts."""

BORDER = 4
"""Width in pixels of the head's border: scalp and skull."""


@dataclass(frozen=True, eq=False)
class Heads:
    """What pasting needs to know of each slice's head; see `find_heads`.

    Attributes:
        boxes: (S, 4) float32, left, top, right and bottom of each head in pixels.
        descriptors: (S, DESCRIPTOR ** 2) float32, the heads' pixels, mean 0 and length 1.
        levels: (S, LEVELS + 1) float32, the least value of each slice, then the quantiles of its tissue.
        air: (S,) float32, median of each slice's outermost pixels.
        interiors: (S, H, W) bool, the heads without their border.
        gradients: (S, H, W) float16, magnitude of the gradient per pixel over the median of the slice's tissue.
    """

    boxes: FloatPlane
    descriptors: FloatPlane
    levels: FloatPlane
    air: FloatPlane
    interiors: BoolPlane
    gradients: NDArray[np.float16]

    def head(self, index: int, slices: Tensor) -> "Head":
        """The head on slice `index` of `slices`, (S, 1, k H, k W), which may be finer than those described here."""
        return Head(
            plane_of(slices, index), self.boxes[index], self.levels[index], self.interiors[index], self.gradients[index]
        )

    def can_host(self) -> BoolPlane:
        """(S,) bool: heads that are large enough, surrounded by dark air, and not cut through the face."""
        left, top, right, bottom = self.boxes.T
        rough = [
            np.quantile(gradient[interior], 0.75) if interior.any() else np.inf
            for gradient, interior in zip(self.gradients, self.interiors, strict=True)
        ]
        large = np.minimum(right - left, bottom - top) >= MIN_HEAD
        able: BoolPlane = large & (self.air <= MAX_AIR) & (np.array(rough) <= MAX_HEAD_GRADIENT)
        return able


@dataclass(frozen=True, eq=False)
class Head:
    """One slice of `Heads` with its pixels, which may be several times as fine.

    Attributes:
        plane: (k H, k W) float32 in 0 to 1.
        box, levels, interior, gradient: As in `Heads`.
    """

    plane: FloatPlane
    box: FloatPlane
    levels: FloatPlane
    interior: BoolPlane
    gradient: NDArray[np.float16]

    @property
    def scale(self) -> int:
        """Pixels of `plane` along one of `interior`: k."""
        return len(self.plane) // len(self.interior)


def find_heads(slices: Tensor) -> Heads:
    """Describe the heads on (S, 1, H, W) slices in 0 to 1."""
    boxes, levels, air, interiors, gradients = [], [], [], [], []
    for slice_ in slices:
        plane = slice_[0].float().numpy()
        mask = head_mask(plane)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        levels.append(gray_levels(plane))
        gradient = ndimage.gaussian_gradient_magnitude(plane, 1) / max(float(levels[-1][1 + LEVELS // 2]), 1e-3)
        gradients.append(gradient.astype(np.float16))
        air.append(air_level(plane))
        interiors.append(ndimage.binary_erosion(mask, iterations=BORDER))
    corners = np.array(boxes, dtype=np.float32)
    return Heads(
        corners,
        _descriptors(slices, corners),
        np.stack(levels),
        np.array(air, dtype=np.float32),
        np.stack(interiors),
        np.stack(gradients),
    )


def head_mask(plane: FloatPlane) -> BoolPlane:
    """Find the head: the largest bright area, with its holes filled.

    Args:
        plane: (H, W) in 0 to 1.
    """
    smooth = ndimage.gaussian_filter(plane, 1.5)
    air = air_level(plane)
    bright = np.abs(smooth - air) > 0.12 * (float(np.percentile(smooth, 99)) - air)
    areas, count = ndimage.label(bright)
    if count == 0:
        return np.ones_like(bright)
    largest = areas == 1 + int(np.argmax(np.bincount(areas.ravel())[1:]))
    filled: BoolPlane = ndimage.binary_fill_holes(largest)
    return filled


def air_level(plane: FloatPlane) -> float:
    """Median of the outermost pixels of a slice (H, W)."""
    return float(np.median(np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])))


def gray_levels(plane: FloatPlane) -> FloatPlane:
    """(LEVELS + 1,) float32, increasing: the least value, then quantiles of the tissue (brighter than the mean)."""
    tissue = plane[plane > plane.mean()]
    quantiles = np.quantile(tissue if tissue.size else plane, np.linspace(0, 1, LEVELS))
    levels = np.concatenate([[plane.min()], quantiles])
    increasing: FloatPlane = (np.maximum.accumulate(levels) + np.arange(LEVELS + 1) * 1e-6).astype(np.float32)
    return increasing


def _descriptors(slices: Tensor, boxes: FloatPlane) -> FloatPlane:
    side = slices.shape[-1]
    left, top, right, bottom = (torch.from_numpy(column) for column in boxes.T)
    theta = torch.zeros(len(slices), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = (right - left) / side, (left + right) / side - 1
    theta[:, 1, 1], theta[:, 1, 2] = (bottom - top) / side, (top + bottom) / side - 1
    pieces = []
    for planes, matrices in zip(slices.split(64), theta.split(64), strict=True):
        grid = F.affine_grid(matrices, [len(planes), 1, 2 * DESCRIPTOR, 2 * DESCRIPTOR], align_corners=False)
        pieces.append(F.avg_pool2d(F.grid_sample(planes.float(), grid, align_corners=False), 2).flatten(1))
    flat = torch.cat(pieces)
    found: FloatPlane = F.normalize(flat - flat.mean(1, keepdim=True), dim=1).numpy()
    return found


def plane_of(planes: Tensor, index: int) -> FloatPlane:
    """Slice `index` of (S, 1, H, W) as (H, W) float32."""
    plane: FloatPlane = planes[index, 0].float().numpy()
    return plane


def small(slices: Tensor) -> Tensor:
    """(S, 1, H, W) averaged down to HEAD_SIZE."""
    factor = max(1, slices.shape[-1] // HEAD_SIZE)
    return torch.cat([F.avg_pool2d(piece.float(), factor).half() for piece in slices.split(64)])
