"""Simulated tumors: a shape in the head, what it does to the tissue around it, and how bright it is.

A tumor is an implicit function `outside` of a point: negative inside, 0 on the border, in units of its radius.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from head import Head, Points, smooth_noise


@dataclass(frozen=True)
class Tumor:
    """What to simulate.

    Attributes:
        name: The class.
        center_mm: (x, y, z) in the space of the template.
        radius_mm: Radius of the ball that the shape is made of.
        level: Gray level of the enhancing part.
    """

    name: str
    center_mm: tuple[float, float, float]
    radius_mm: float
    level: float


@dataclass(frozen=True, eq=False)
class Growth:
    """A tumor at sampled points: `outside` as above, `came_from_mm` (3, ...) where the tissue now there was before."""

    outside: Points
    came_from_mm: Points


def grow(tumor: Tumor, head: Head, points: Points, random: np.random.Generator) -> Growth:
    """Shape the tumor at `points` (3, ...), mm, and push the brain away from it; bone and scalp stay."""
    outside = SHAPES[tumor.name](tumor, head, points, random)
    distance = np.maximum(outside + 1, 0.05)  # in radii from the center
    swelling = np.cbrt(np.maximum(distance**3 - PUSHED_SHARE[tumor.name], 0.02)) / distance  # as around a swelling ball
    yielding = np.clip(head.sample("depth_mm", points) / 8, 0, 1) * np.clip((3.5 - distance) / 2, 0, 1)
    shift = from_center(tumor, points) * (swelling - 1) * yielding * (distance > 0.9)
    return Growth(outside, points + shift)


def paint(
    tumor: Tumor, growth: Growth, head: Head, points: Points, signal: Points, random: np.random.Generator
) -> Points:
    """The T1c level at `points` with the tumor and its surroundings drawn over `signal`."""
    return PAINTERS[tumor.name](tumor, growth, head, points, signal, random)


def from_center(tumor: Tumor, points: Points) -> Points:
    return (points.T - np.array(tumor.center_mm, np.float32)).T


def _meningioma(tumor: Tumor, head: Head, points: Points, random: np.random.Generator) -> Points:
    """A lobulated ball cut off where it sits on the dura: the skull's or, near the midline, the falx."""
    ball = np.linalg.norm(from_center(tumor, points), axis=0) / tumor.radius_mm - 1
    ball += 0.07 * smooth_noise(points, random, 1.3 * tumor.radius_mm)
    falx_mm = np.sign(tumor.center_mm[0]) * points[0] + 1.5 * smooth_noise(points, random, 30)
    return np.logaddexp(8 * ball, -8 * np.minimum(head.sample("depth_mm", points), falx_mm) / tumor.radius_mm) / 8


def _glioma(tumor: Tumor, head: Head, points: Points, random: np.random.Generator) -> Points:
    """A ball with a coarse and a fine ragged border."""
    ball = np.linalg.norm(from_center(tumor, points), axis=0) / tumor.radius_mm - 1
    ball += 0.20 * smooth_noise(points, random, 1.5 * tumor.radius_mm)
    ball += 0.07 * smooth_noise(points, random, 0.45 * tumor.radius_mm)
    return np.maximum(ball, (2 - head.sample("depth_mm", points)) / tumor.radius_mm)


def _pituitary(tumor: Tumor, head: Head, points: Points, random: np.random.Generator) -> Points:
    """An hourglass: one ball in the sella, a wider one above the diaphragm, a waist between them."""
    radius = tumor.radius_mm
    x, y, z = from_center(tumor, points)
    lower = np.sqrt(x**2 + y**2 + (z + 0.65 * radius) ** 2)
    upper = np.sqrt(x**2 + y**2 + (z - 0.65 * radius) ** 2)
    ball = -np.logaddexp(-8 * lower / (0.80 * radius), -8 * upper / (0.92 * radius)) / 8 - 1
    return ball + 0.06 * smooth_noise(points, random, 1.2 * radius)


def _cover(outside: Points, radius_mm: float, edge_mm: float) -> Points:
    """1 inside, 0 outside, with a linear edge of `edge_mm`."""
    return np.clip(0.5 - outside * radius_mm / edge_mm, 0, 1)


def _paint_meningioma(
    tumor: Tumor, growth: Growth, head: Head, points: Points, signal: Points, random: np.random.Generator
) -> Points:
    depth = head.sample("depth_mm", points)
    distance = growth.outside * tumor.radius_mm
    cleft = np.exp(-(((distance - 1.2) / 1.0) ** 2)) * np.clip(depth / 4, 0, 1)
    signal = signal * (1 - 0.35 * cleft)
    tail = np.exp(-(((depth - 0.5) / 1.2) ** 2)) * np.clip(1.5 - distance / 8, 0, 1)
    signal = np.maximum(signal, 0.85 * tumor.level * tail * (distance > 0))
    level = tumor.level * (1 + 0.06 * smooth_noise(points, random, 14) + 0.03 * smooth_noise(points, random, 5))
    inside = _cover(growth.outside, tumor.radius_mm, 1.0)
    return signal * (1 - inside) + level * inside


def _paint_glioma(
    tumor: Tumor, growth: Growth, head: Head, points: Points, signal: Points, random: np.random.Generator
) -> Points:
    white = head.sample("white", growth.came_from_mm)
    spread = np.clip(1.5 - growth.outside + 0.35 * smooth_noise(points, random, 20), 0, 1)
    signal = signal * (1 - 0.36 * spread * white)
    thickness = np.clip(0.32 + 0.18 * smooth_noise(points, random, 12), 0.08, 0.9)
    ring_share = np.clip((thickness + growth.outside) / 0.15 + 0.5, 0, 1)  # 1 in the ring, 0 in the necrosis
    septa = 0.4 * np.exp(-((smooth_noise(points, random, 24) / 0.15) ** 2))
    ring_share = np.maximum(ring_share, septa)
    ring = tumor.level * np.clip(
        1 + 0.16 * smooth_noise(points, random, 5) + 0.12 * smooth_noise(points, random, 14), 0.5, 1.4
    )
    necrosis = 36 + 5 * smooth_noise(points, random, 7)
    inside = _cover(growth.outside, tumor.radius_mm, 1.8)
    return signal * (1 - inside) + (ring * ring_share + necrosis * (1 - ring_share)) * inside


def _paint_pituitary(
    tumor: Tumor, growth: Growth, head: Head, points: Points, signal: Points, random: np.random.Generator
) -> Points:
    level = tumor.level * (1 + 0.06 * smooth_noise(points, random, 11) + 0.03 * smooth_noise(points, random, 4))
    level *= np.clip(1 + 0.12 * growth.outside, 0.85, 1)
    inside = _cover(growth.outside, tumor.radius_mm, 1.2)
    return signal * (1 - inside) + level * inside


SHAPES = {"meningioma": _meningioma, "glioma": _glioma, "pituitary tumor": _pituitary}
PAINTERS = {"meningioma": _paint_meningioma, "glioma": _paint_glioma, "pituitary tumor": _paint_pituitary}
PUSHED_SHARE = {"meningioma": 0.75, "glioma": 0.35, "pituitary tumor": 0.7}  # of its volume; the rest it replaces
