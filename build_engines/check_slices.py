"""Slices for the accuracy gate: the user's, or simulated ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.benchmarking.simulated import simulated_slice
from cascade.contract import FloatArray
from cascade.discovery.inputs import find_slices
from cascade.io.image import read_slice
from cascade.io.preprocess import Letterbox

MAX_SLICES = 64
"""Maximum number of the user's slices, evenly sampled. The gate then takes less than a minute on two cores."""

SIMULATED = 12
"""Number of simulated slices with a tumor."""

FADED = 6
"""Number of simulated slices with a trace of a tumor. Only there does the segmenter's detection limit the probability
of pixels, so only they reveal an engine that lost it."""

TRACE = 0.05
"""Contrast of a faded tumor, relative to others."""


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class CheckSlices:
    """Inputs of the accuracy gate.

    Attributes:
        squares: (N, 1, SLICE_SIZE, SLICE_SIZE) float32, raw intensities.
        source: Origin of the slices, for messages and the sidecar.
    """

    squares: FloatArray
    source: str

    @property
    def sha256(self) -> str:
        """SHA-256 of all squares, as hexadecimal digits."""
        return hashlib.sha256(self.squares.tobytes()).hexdigest()


def read_check_slices(paths: Sequence[Path]) -> CheckSlices:
    """Read at most MAX_SLICES slices of files, folders and patterns.

    Raises:
        CascadeError: If a slice cannot be read.
    """
    inputs = find_slices(paths)
    for problem in inputs.problems.values():
        raise problem
    names = inputs.names[:: -(-len(inputs.names) // MAX_SLICES)]
    pixels = [read_slice(inputs.folder / name).pixels for name in names]
    squares = np.stack([Letterbox(*item.shape).square(item) for item in pixels])[:, None]
    return CheckSlices(squares, f"{len(names)} of {len(inputs.names)} slices given by --verify-slices")


def simulated_check_slices() -> CheckSlices:
    """Generate SIMULATED slices with a tumor, which the models find, and FADED slices with a trace of one."""
    random = np.random.default_rng(0)
    slices = [simulated_slice(random) for _ in range(SIMULATED)]
    slices += [simulated_slice(random, contrast=TRACE) for _ in range(FADED)]
    squares = np.stack(slices).astype(np.float32)[:, None]
    return CheckSlices(squares, f"{len(squares)} simulated slices")
