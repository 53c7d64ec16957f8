"""The models that come with the package, on the simulated samples: they are what they were when they were shipped."""

import json
from pathlib import Path

import numpy as np
import pytest

from cascade.io.image import read_slice
from cascade.pipeline import Cascade
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER, find_model

SAMPLES = Path(__file__).parents[2] / "samples"
EXPECTED = json.loads((SAMPLES / "expected.json").read_text())


@pytest.fixture(scope="module")
def found():
    """File name → Prediction, of every sample."""
    names = list(EXPECTED)
    return dict(zip(names, Cascade.open().predict_batch([read_slice(SAMPLES / name) for name in names]), strict=True))


def test_the_shipped_models_were_calibrated_with_each_other_and_are_of_one_split():
    segmenter, classifier = find_model(SEGMENTER), find_model(CLASSIFIER)
    assert classifier.record["calibration"]["segmenter_sha256"] == segmenter.sha256
    assert classifier.record["settings"]["split_sha256"] == segmenter.record["settings"]["split_sha256"]


def test_the_shipped_models_tell_no_paths_of_the_machine_they_were_made_on():
    for graph in BUNDLED_MODELS.glob("*.onnx"):
        assert b"region.py" not in graph.read_bytes()


def test_the_shipped_models_are_small():
    assert sum(find_model(name).path.stat().st_size for name in (SEGMENTER, CLASSIFIER)) < 63e6


def test_the_shipped_segmenter_outlines_the_simulated_tumors(found):
    masks = np.load(SAMPLES / "masks.npz")
    dice = {}
    for name, expected in EXPECTED.items():
        if expected["class"] is not None:
            mask, true = found[name].mask, masks[Path(name).stem]
            dice[name] = 2 * (mask & true).sum() / (mask.sum() + true.sum())
    assert min(dice.values()) > 0.55, dice  # gliomas: it outlines their dark oedema too
    assert np.mean(list(dice.values())) > 0.8, dice


def test_the_shipped_classifier_names_most_simulated_tumors(found):
    right = [
        name for name, expected in EXPECTED.items() if expected["class"] and found[name].label == expected["class"]
    ]
    assert len(right) >= 8, right


def test_in_the_simulated_slice_without_a_tumor_none_is_seen(found):
    (name,) = [name for name, expected in EXPECTED.items() if expected["class"] is None]
    assert found[name].label is None
