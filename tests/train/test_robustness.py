"""Perturbed slices: masks return to their own grid, and changed answers are counted."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from cascade.io.image import read_slice
from cascade.pipeline import Cascade
from cascade.result import Prediction
from train.robustness import PERTURBATIONS, measure, padded, resized


class BrightPixels:
    """A pipeline whose mask is every pixel above 0.5, and whose class depends on the area."""

    def predict(self, plane):
        mask = plane > 0.5
        names = ("meningioma", "glioma")
        label = names[int(mask.sum() > 500)]
        return Prediction(mask, probabilities={name: float(name == label) for name in names} if mask.any() else {})


def square(level=0.8):
    plane = np.full((128, 96), 0.3, np.float32)
    plane[40:60, 30:50] = level
    plane[0, 0] = 0
    plane[-1, -1] = 1
    return plane


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda item: item.name)
def test_a_mask_returns_to_the_grid_of_its_slice(perturbation):
    plane = square()
    mask = (perturbation.apply(plane) > 0.5).astype(np.float32)
    back = perturbation.undo(mask, plane.shape) if perturbation.undo else mask
    assert back.shape == plane.shape
    if perturbation.name not in ("skull stripped", "noise, 6%"):
        rows, columns = np.nonzero(back[10:-10, 10:-10])
        assert (rows.mean(), columns.mean()) == pytest.approx((39.5, 29.5), abs=1)


def test_changed_detections_and_classes_are_counted():
    """Gamma 1.4 maps 0.55 below 0.5, and 0.7 maps 0.4 above it; no perturbation enlarges 400 pixels beyond 500."""
    rows = {row.name: row for row in measure(BrightPixels(), [square(), square(0.8)])}
    assert rows["gamma 0.7"].detection_changed == 0
    assert rows["mirrored left to right"].dice == 1
    assert rows["upside down"].class_changed == 0
    assert rows[padded(0.1).name].dice == 1
    faint = np.where(square() == np.float32(0.8), np.float32(0.55), square())
    faint[-1, -1] = 0.99
    faint = np.where(faint == np.float32(0.99), np.float32(1.0), faint)
    (row,) = [row for row in measure(BrightPixels(), [faint]) if row.name == "gamma 1.4"]
    assert row.detection_changed == 0  # the brightest pixel stays
    assert row.dice < 0.1


def test_resizing_averages_down_and_interpolates_up():
    assert resized(np.array([[0.0, 1.0], [1.0, 0.0]], np.float32), (1, 1)).tolist() == [[0.5]]
    assert resized(np.ones((2, 2), np.float32), (4, 4)).shape == (4, 4)


@pytest.mark.slow
def test_the_bundled_models_hardly_change_their_answer():
    """At most one of the ten samples changes its detection, and at most two of the nine tumors their class."""
    samples = sorted((Path(__file__).parents[2] / "samples").glob("*.png"))
    cascade = Cascade.open(backend="onnxruntime")
    for row in measure(cascade, [read_slice(path).pixels for path in samples]):
        hard = row.name in ("field of view +50%", "upside down", "skull stripped")
        assert row.detection_changed <= (0.11 if hard else 0), row
        assert row.class_changed <= (0.23 if hard else 0.12), row
        assert row.dice >= (0.85 if hard else 0.92), row
