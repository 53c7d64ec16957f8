"""Slices that the accuracy gate compares on: those of a folder, or a few drawn by code where none is given."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cascade.contract import SLICE_SIZE
from cascade.discovery.inputs import find_slices
from cascade.io.image import read_slice
from cascade.io.preprocess import Letterbox

FloatArray = NDArray[np.float32]

MOST = 64
"""Slices of a folder that are compared, evenly taken: the gate then takes less than a minute on two cores."""

DRAWN = 12


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class CheckSlices:
    """squares (N, 1, SLICE_SIZE, SLICE_SIZE) float32 as both graphs take them.  source  where they are from."""

    squares: FloatArray
    source: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.squares.tobytes()).hexdigest()


def read_check_slices(paths: Sequence[Path]) -> CheckSlices:
    """At most MOST slices of files, folders and patterns. Raises CascadeError for one that cannot be read."""
    found = find_slices(paths)
    for problem in found.problems.values():
        raise problem
    names = found.names[:: -(-len(found.names) // MOST)]
    pixels = [read_slice(found.folder / name).pixels for name in names]
    squares = np.stack([Letterbox(*item.shape).square(item) for item in pixels])[:, None]
    return CheckSlices(squares, f"{len(names)} of {len(found.names)} slices given by --verify-slices")


def drawn_check_slices() -> CheckSlices:
    """DRAWN slices: an oval head of noise and soft tissue, bright skull, and in it a tumor, even or a dark-cored ring.

    Nobody would take them for MRI, but the models find their tumors, which is all that the comparison needs.
    """
    random = np.random.default_rng(0)
    squares = np.stack([_draw(random, index) for index in range(DRAWN)])[:, None]
    return CheckSlices(squares, f"{DRAWN} slices drawn by code")


def _draw(random: np.random.Generator, index: int) -> FloatArray:
    """(SLICE_SIZE, SLICE_SIZE) float32, about 0 to 255."""
    down, across = np.mgrid[-1 : 1 : SLICE_SIZE * 1j, -1 : 1 : SLICE_SIZE * 1j]
    head = np.hypot(across / random.uniform(0.65, 0.75), down / random.uniform(0.8, 0.9))
    texture = ndimage.gaussian_filter(random.normal(size=head.shape), 12)
    picture = np.where(head < 1, 70 + 12 * texture / texture.std(), 0)
    picture = np.where(np.abs(head - 0.97) < 0.04, 150, picture)  # scalp and skull's fat
    angle, distance = random.uniform(0, 2 * np.pi), random.uniform(0.1, 0.5)
    size = random.uniform(0.06, 0.2)
    tumor = np.hypot(across - distance * np.cos(angle), down - distance * np.sin(angle)) / size
    picture = np.where(tumor < 1, 190, picture)
    if index % 2:
        picture = np.where(tumor < 0.6, 50, picture)
    picture = ndimage.gaussian_filter(picture, 1.5)
    noisy = np.hypot(picture + random.normal(0, 5, picture.shape), random.normal(0, 5, picture.shape))
    drawn: FloatArray = noisy.astype(np.float32)
    return drawn
