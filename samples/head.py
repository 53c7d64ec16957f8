"""A whole head in T1c contrast, made from the Colin27 T1 template, on its 1 mm grid.

Coordinates are millimeters in the template's space: x to the patient's left is negative, y forward, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

Volume = NDArray[np.float32]
Points = NDArray[np.float32]

TEMPLATE_ORIGIN_MM = np.array([-90.0, -125.0, -71.0])
# The template ends at the cheeks, the nose and the upper jaw; a slice of 250 mm sees further.
MARGIN_MM = ((14, 14), (10, 14), (95, 8))
ORIGIN_MM = TEMPLATE_ORIGIN_MM - [before for before, _ in MARGIN_MM]

# T1 template → 8-bit T1c level: gray and white matter nearly alike, fat far above both.
BRAIN_LEVELS = ([0, 30, 50, 80, 112, 130], [6, 17, 35, 64, 72, 76])
OTHER_LEVELS = ([0, 15, 40, 80, 110, 150, 254], [1, 5, 20, 58, 105, 185, 228])

# Enhancing vessels: center line in mm, radius in mm, level. Those with x > 0 have a twin at -x.
MIDLINE_VESSELS = [
    ([(0, 72, 5), (0, 69, 25), (0, 59, 45), (0, 40, 63), (0, 15, 76)], 1.5, 135),
    ([(0, 15, 76), (0, -20, 84), (0, -50, 78), (0, -76, 57), (0, -93, 35), (0, -104, 5), (0, -101, -18)], 2.3, 142),
    ([(0, -34, 6), (0, -42, 21), (0, -55, 9), (0, -80, -13), (0, -101, -18)], 1.2, 125),
    ([(0, 3, -17), (0, 6, -27)], 1.3, 120),
]
PAIRED_VESSELS = [
    ([(0, -101, -18), (25, -97, -21), (45, -86, -23), (60, -66, -25), (63, -52, -31)], 2.5, 125),
    ([(63, -52, -31), (58, -48, -40), (46, -48, -50), (36, -42, -58)], 2.6, 125),
    ([(9, -2, 18), (13, -20, 20), (17, -33, 14), (26, -40, 8), (32, -41, 3)], 1.6, 125),
    ([(15, -8, -31), (14, 4, -31), (13, 14, -30)], 3.6, 98),
    ([(13, -6, -33), (12, 6, -31), (13, 12, -29)], 1.6, 8),  # carotid: fast blood gives no signal
    ([(15, 4, -15), (30, 6, -14), (42, 2, -8), (47, -8, 4)], 0.9, 105),
]


@dataclass(frozen=True, eq=False)
class Head:
    """A head on the grid of the template.

    Attributes:
        signal: T1c level, about 0 to 200.
        depth_mm: Distance inside the dura; negative outside.
        white: Share of white matter, 0 to 1.
    """

    signal: Volume
    depth_mm: Volume
    white: Volume

    def sample(self, name: str, points: Points, order: int = 1) -> Points:
        """Values of one volume at `points` (3, ...), mm; 0 outside (`depth_mm`: the nearest value)."""
        index = points - ORIGIN_MM.reshape(3, *[1] * (points.ndim - 1))
        mode = "nearest" if name == "depth_mm" else "constant"
        return ndimage.map_coordinates(getattr(self, name), index, order=order, mode=mode).astype(np.float32)


def smooth_noise(points: Points, random: np.random.Generator, wavelength_mm: float, waves: int = 14) -> Points:
    """A smooth random field of mean 0 and variance 1 at `points` (3, ...), mm: a sum of plane waves."""
    total = np.zeros(points.shape[1:], np.float32)
    for _ in range(waves):
        direction = random.normal(size=3)
        direction *= 2 * np.pi / wavelength_mm / np.linalg.norm(direction) * random.uniform(0.6, 1.4)
        phase = random.uniform(0, 2 * np.pi)
        total += np.sin(np.tensordot(direction.astype(np.float32), points, 1) + np.float32(phase))
    return total * np.float32(np.sqrt(2 / waves))


def load_head(templates: Path) -> Head:
    """Read ch2.nii.gz (whole head) and ch2bet.nii.gz (brain alone) and make them one T1c head."""
    t1 = _read(templates / "ch2.nii.gz")
    brain = ndimage.binary_closing(np.pad(_read(templates / "ch2bet.nii.gz") > 0, 8), iterations=6)[8:-8, 8:-8, 8:-8]
    soft_brain = ndimage.gaussian_filter(brain.astype(np.float32), 0.7)
    signal = soft_brain * np.interp(t1, *BRAIN_LEVELS) + (1 - soft_brain) * np.interp(t1, *OTHER_LEVELS)
    signal = _add_neck(_add_cheeks(signal.astype(np.float32)))
    brain = np.pad(brain, MARGIN_MM)
    depth = ndimage.distance_transform_edt(brain) - ndimage.distance_transform_edt(~brain) + 2.5
    white = np.pad(soft_brain * np.clip((t1 - 85) / 20, 0, 1), MARGIN_MM)
    _enhance_mucosa(signal, depth)
    for path, radius, level in MIDLINE_VESSELS:
        _paint_tube(signal, np.array(path, float), radius, level)
    for path, radius, level in PAIRED_VESSELS:
        for side in (1, -1):
            _paint_tube(signal, np.array(path, float) * [side, 1, 1], radius, level)
    return Head(signal, depth.astype(np.float32), white.astype(np.float32))


def _read(path: Path) -> Volume:
    return np.asarray(nibabel.load(path).dataobj, dtype=np.float32)


def _grid(shape: tuple[int, ...]) -> Points:
    return (np.indices(shape, np.float32).T + ORIGIN_MM.astype(np.float32)).T


def _add_cheeks(signal: Volume) -> Volume:
    """Round off cheeks, ears and nose where the template's field of view cuts them."""
    padded = np.pad(signal, (*MARGIN_MM[:2], (0, MARGIN_MM[2][1])))
    for axis, face, step in ((0, 14, -1), (0, -15, 1), (1, -15, 1)):
        planes = np.moveaxis(padded, axis, 0)
        edge = planes[face].copy()
        bulge = 1.6 * np.sqrt(ndimage.distance_transform_edt(edge > 20))
        for distance in range(1, 10):
            planes[face + step * distance] += edge * np.clip(bulge - distance, 0, 1)
    return padded


def _add_neck(signal: Volume) -> Volume:
    """Continue the lowest planes downwards as jaw, tongue, spine and neck, which nearly keep their outline."""
    depth = MARGIN_MM[2][0]
    floor = signal[:, :, :4].mean(axis=2)
    volume = np.concatenate([np.zeros((*floor.shape, depth), np.float32), signal], axis=2)
    x, y, z = points = _grid((*floor.shape, depth))
    below = TEMPLATE_ORIGIN_MM[2] - z
    random = np.random.default_rng(27)
    sway = np.minimum(below / 25, 1) * 5
    from_x = x * (1 + 0.18 * (below / depth) ** 1.5) + sway * smooth_noise(points, random, 45)
    from_y = y + 0.12 * (y + 50) * (below / depth) ** 2 + sway * smooth_noise(points, random, 45)
    neck = ndimage.map_coordinates(floor, [from_x - ORIGIN_MM[0], from_y - ORIGIN_MM[1]], order=1)
    neck = _add_muscles(neck, points, np.minimum(below / 10, 1), random)
    flesh = np.clip((below - 6) / 6, 0, 1) * np.clip((y - 14) / 5, 0, 1) * np.clip((45 - abs(x)) / 8, 0, 1)
    neck += flesh * np.clip(50 - neck, 0, None) * (1 + 0.3 * smooth_noise(points, random, 9))
    _add_tongue_and_spine(neck, points, random)
    outline = (x / (103 - 0.35 * below)) ** 2 + ((y + 20) / (98 + np.clip(22 - 2 * below, 0, None) - 0.15 * below)) ** 2
    neck *= np.clip((1 - outline) * 25, 0, 1)
    volume[:, :, :depth] = np.clip(neck, 0, 200)
    return volume


def _add_muscles(neck: Volume, points: Points, share: Points, random: np.random.Generator) -> Volume:
    """Muscles running down, parted by thin sheets of fat: the zeros of a random field."""
    along = points * np.array([1, 1, 0.35], np.float32).reshape(3, 1, 1, 1)
    fat = np.exp(-((smooth_noise(along, random, 26) / 0.16) ** 2)) * np.clip(
        0.6 + smooth_noise(along, random, 30), 0, 1
    )
    muscle = (neck > 25) & (neck < 120)
    streaks = (1 + 0.10 * smooth_noise(along, random, 5)) * (1 + 0.18 * smooth_noise(points, random, 40))
    return neck * (1 + share * (streaks - 1)) + share * muscle * fat * 80


def _add_tongue_and_spine(neck: Volume, points: Points, random: np.random.Generator) -> None:
    x, y, z = points
    tongue = 0.06 * smooth_noise(points, random, 25) + np.sqrt(
        (x / 25) ** 2 + ((y - 34) / 33) ** 2 + ((z + 103) / 23) ** 2
    )
    fibers = 62 + 9 * smooth_noise(points * np.array([1, 0.4, 1], np.float32).reshape(3, 1, 1, 1), random, 6)
    inside = np.clip((1 - tongue) * 12, 0, 1)
    rim = np.exp(-(((tongue - 1.04) / 0.05) ** 2))  # air and teeth around the tongue
    neck[:] = neck * (1 - inside) * (1 - 0.5 * rim) + inside * fibers
    wander = 1.2 * smooth_noise(points, random, 22)
    spine = np.clip((11 - abs(x) + wander) / 3, 0, 1) * np.clip((8 - abs(y + 22) + wander) / 3, 0, 1)
    disc = np.clip((3 - abs((z + wander + 80) % 17 - 8.5)) / 2, 0, 1)
    neck[:] = neck * (1 - spine) + spine * (70 - 30 * disc + 4 * smooth_noise(points, random, 5))


def _enhance_mucosa(signal: Volume, depth_mm: NDArray[np.float64]) -> None:
    """The lining of nose and throat takes up contrast agent strongly."""
    x, y, z = _grid(signal.shape)
    nose = (abs(x) < 19) & (y > 12) & (y < 78) & (z < -34) & (z > -82) & (depth_mm < -4)
    lining = nose & (signal > 24) & (signal < 80)
    signal += 0.7 * signal * ndimage.gaussian_filter(lining.astype(np.float32), 0.8)
    np.clip(signal, 0, 205, out=signal)


def _paint_tube(signal: Volume, path: NDArray[np.float64], radius_mm: float, level: float) -> None:
    """Overwrite a tube of slightly varying width along a curve through `path` (N, 3), mm, with a soft edge of 1 mm."""
    reach = int(np.ceil(1.2 * radius_mm)) + 1
    offsets = np.indices([2 * reach + 1] * 3) - reach
    length_mm = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    steps = np.linspace(0, len(path) - 1, int(1.5 * length_mm))
    for step, center in zip(steps, CubicSpline(np.arange(len(path)), path)(steps) - ORIGIN_MM, strict=True):
        corner = np.round(center).astype(int)
        distance = np.linalg.norm(offsets + (corner - center)[:, None, None, None], axis=0)
        width = radius_mm * (1 + 0.2 * np.sin(3.7 * step))
        weight = np.clip(width + 0.5 - distance, 0, 1)
        block = signal[tuple(slice(c - reach, c + reach + 1) for c in corner)]
        block += weight * (level - block)
