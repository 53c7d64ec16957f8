"""A cascade whose answers are known: every pixel above 200 is tumor, every tumor a glioma."""

import json

import numpy as np

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY
from cascade.pipeline import Cascade
from cascade.runtime.cpu import CpuBackend

MODELS = {"segmenter": "5e9", "classifier": "c1a"}


class BrightIsTumor:
    """A segmenter that takes every pixel above 200 for tumor."""

    def run(self, slice):
        return {PROBABILITY: (slice > 200).astype(np.float32)}


class AlwaysGlioma:
    """A classifier that looks at columns 100 to 200 and rows 50 to 250 of the square."""

    def run(self, slice, probability):
        rows = len(slice)
        return {
            CLASS_PROBABILITY: np.tile(np.float32([0.25, 0.5, 0.25]), (rows, 1)),
            BOX: np.tile(np.float32([100, 50, 200, 250]), (rows, 1)),
        }


def cascade_of(segmenter=None, models=MODELS):
    return Cascade(CpuBackend(segmenter or BrightIsTumor(), AlwaysGlioma()), models)


def rows_of(out):
    """Return the records of results.json."""
    return json.loads((out / "results.json").read_text())["slices"]
