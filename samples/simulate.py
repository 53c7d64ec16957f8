"""Make the simulated T1c slices of this folder, their true masks and expected.json.

    pip install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 nibabel==5.4.2
    python samples/simulate.py TEMPLATES

TEMPLATES is the folder with ch2.nii.gz and ch2bet.nii.gz, the Colin27 head of MRIcron (see LICENSE-templates.txt).
The same versions and seeds give the same bytes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from head import Head, Points, load_head, smooth_noise
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from tumors import Tumor, grow, paint

SAMPLES = Path(__file__).parent
THICKNESS_MM = 6
FIELD_OF_VIEW_MM = 0.49 * 512
# Axes of a view in the template's space: to the right, downwards and through the slice, as radiologists look at it.
VIEWS = {
    "axial": np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1]], float),
    "coronal": np.array([[-1, 0, 0], [0, 0, -1], [0, 1, 0]], float),
    "sagittal": np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float),
}


@dataclass(frozen=True)
class Case:
    """One slice of the head.

    Attributes:
        view: A key of VIEWS.
        seed: Seed of all that is random.
        center_mm: The point of the template at the center of the slice.
        tumor: The tumor, if any.
        zoom: Size of the head; 1 is that of Colin27.
        tilt_deg: Tilt of the slice about its left-right line, and in its own plane.
        noise: Standard deviation of the noise, in gray levels of 8 bits.
        pixels: Rows and columns.
        bits: Bits of a pixel, 8 or 16.
    """

    view: str
    seed: int
    center_mm: tuple[float, float, float]
    tumor: Tumor | None
    zoom: float = 1.0
    tilt_deg: tuple[float, float] = (0.0, 0.0)
    noise: float = 2.2
    pixels: int = 512
    bits: int = 8

    @property
    def stem(self) -> str:
        return f"{self.view}_{self.tumor.name.replace(' ', '_') if self.tumor else 'no_tumor'}_1"


CASES = [
    Case("axial", 11, (0, -18, 34), Tumor("meningioma", (40, 28, 36), 19, 122), 1.06, (-6, 3)),
    Case("coronal", 12, (0, -22, 0), Tumor("meningioma", (12, -22, 63), 17, 128), 1.08, (4, -2), 2.8),
    Case("sagittal", 13, (30, -12, 2), Tumor("meningioma", (32, 44, 36), 20, 118), 1.0, (0, 5)),
    Case("axial", 421, (0, -18, 12), Tumor("glioma", (-33, -38, 14), 18, 112), 0.98, (-8, -4)),
    Case("coronal", 322, (0, 4, 2), Tumor("glioma", (-32, 6, 28), 17, 105), 1.02, (0, 3), 2.0, 512, 16),
    Case("sagittal", 423, (29, -10, 0), Tumor("glioma", (29, -34, 36), 17, 108), 1.02, (0, -4), 3.0, 256),
    Case("axial", 131, (0, -14, -28), Tumor("pituitary tumor", (0, 7, -27), 12, 108), 1.08, (2, 2), 2.5),
    Case("coronal", 32, (0, 4, -4), Tumor("pituitary tumor", (1, 5, -25), 12, 112), 1.1, (0, -1.5), 3.0),
    Case("sagittal", 133, (1, -8, -6), Tumor("pituitary tumor", (0, 6, -26), 11, 110), 1.08, (0, -3), 3.0),
    Case("coronal", 41, (0, -14, 2), None, 1.04, (6, 2), 2.4),
]


def main(templates: Path) -> None:
    head = load_head(templates)
    expected, masks = {}, {}
    for case in CASES:
        pixels, mask = simulate(case, head)
        Image.fromarray(pixels).save(SAMPLES / f"{case.stem}.png", optimize=True)
        masks[case.stem] = mask
        expected[f"{case.stem}.png"] = describe(case, mask)
    np.savez_compressed(SAMPLES / "masks.npz", **masks)
    (SAMPLES / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


def describe(case: Case, mask: NDArray[np.bool_]) -> dict[str, object]:
    """Describe the truth that a prediction is compared with; pixels count from 0 at the top left."""
    row, column = (round(float(mean), 1) for mean in np.argwhere(mask).mean(axis=0)) if case.tumor else (None, None)
    return {
        "class": case.tumor.name if case.tumor else None,
        "view": case.view,
        "center_row": row,
        "center_column": column,
        "area_pixels": int(mask.sum()),
        "seed": case.seed,
    }


def simulate(case: Case, head: Head) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], NDArray[np.bool_]]:
    """Simulate a slice and its true mask, both (pixels, pixels)."""
    random = np.random.default_rng(case.seed)
    points = individual_shape(slab(case), random)
    outside = np.ones(points.shape[1:], np.float32)
    source = points
    if case.tumor:
        growth = grow(case.tumor, head, points, random)
        outside, source = growth.outside, growth.came_from_mm
    signal = head.sample("signal", source, order=3)
    signal = add_small_vessels(signal, head.sample("depth_mm", source), source, random)
    if case.tumor:
        signal = paint(case.tumor, growth, head, points, signal, random)
    picture = acquire(signal.mean(axis=0), case, random)
    scale, kind = (1, np.uint8) if case.bits == 8 else (9, np.uint16)  # 16 bits: about 0 to 2000, as scanners write
    pixels = np.clip(np.round(picture * scale), 0, np.iinfo(kind).max).astype(kind)
    return pixels, (outside < 0).mean(axis=0) > 0.5


def slab(case: Case) -> Points:
    """Points of the slice (3, layers, pixels, pixels), mm: one layer a millimeter of its thickness."""
    spacing_mm = FIELD_OF_VIEW_MM / case.pixels
    across = (np.arange(case.pixels) - (case.pixels - 1) / 2) * spacing_mm
    through = np.arange(THICKNESS_MM) - (THICKNESS_MM - 1) / 2
    layer, row, column = np.meshgrid(through, across, across, indexing="ij")
    nod, turn = np.deg2rad(case.tilt_deg)
    column, row = np.cos(turn) * column - np.sin(turn) * row, np.sin(turn) * column + np.cos(turn) * row
    row, layer = np.cos(nod) * row - np.sin(nod) * layer, np.sin(nod) * row + np.cos(nod) * layer
    points = np.tensordot(VIEWS[case.view].T, np.stack([column, row, layer]) / case.zoom, 1)
    return (points.T + np.array(case.center_mm)).T.astype(np.float32)


def individual_shape(points: Points, random: np.random.Generator) -> Points:
    """Bend the template's space a little, so that no two slices show the same head."""
    stretch = random.uniform(0.96, 1.04, size=3).astype(np.float32)
    bend = np.stack([1.5 * smooth_noise(points, random, 90) for _ in range(3)])
    bend += np.stack([0.4 * smooth_noise(points, random, 40) for _ in range(3)])
    points = (points.T * stretch).T + bend
    points[0] *= 1 + 0.13 * np.clip((-25 - points[2]) / 50, 0, 1.2)  # Colin's jaw is wide
    return points


def add_small_vessels(signal: Points, depth_mm: Points, points: Points, random: np.random.Generator) -> Points:
    """Cortical veins, where two random surfaces meet in the sulci, and a dura that enhances in patches."""
    first, second = (smooth_noise(points, random, 26) for _ in range(2))
    tubes = np.clip(1.5 - np.hypot(first, second) / 0.2, 0, 1)
    near_surface = np.clip((26 - depth_mm) / 6, 0, 1) * np.clip((depth_mm + 1) / 2, 0, 1)
    sulcus = np.clip((63 - signal) / 8, 0, 1)
    signal = signal + tubes * near_surface * sulcus * np.clip(150 - signal, 0, None)
    dura = np.exp(-(((depth_mm - 0.3) / 0.9) ** 2)) * np.clip(0.5 + 0.5 * smooth_noise(points, random, 25), 0, 1)
    return signal + dura * np.clip(75 - signal, 0, None)


def acquire(picture: Points, case: Case, random: np.random.Generator) -> Points:
    """What the scanner adds: blur, uneven coil sensitivity that ends at the neck, and Rician noise."""
    picture = ndimage.gaussian_filter(picture, 0.8 * case.pixels / 512)
    row, column = np.indices(picture.shape, np.float32) * FIELD_OF_VIEW_MM / case.pixels
    plane = np.stack([row, column, np.zeros_like(row)])
    sensitivity = 1 + 0.09 * smooth_noise(plane, random, 220, waves=6)
    if case.view != "axial":
        sensitivity *= 1 / (1 + np.exp((row - 232) / 14))
    noise = random.normal(size=(2, *picture.shape))
    noise = ndimage.gaussian_filter(noise, (0, 0.6, 0.6))  # the matrix acquired is coarser than the picture
    real, imaginary = noise * (case.noise / noise.std())
    return np.hypot(picture * sensitivity + real, imaginary)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
