"""The bundled models on the simulated samples: their results have not changed since the export."""

import json
from pathlib import Path

import numpy as np
import pytest

from cascade.io.image import read_slice
from cascade.pipeline import Cascade
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER, find_model
from cascade.volume.finding import VolumeRule

SAMPLES = Path(__file__).parents[2] / "samples"
EXPECTED = json.loads((SAMPLES / "expected.json").read_text())


@pytest.fixture(scope="module")
def predictions():
    """File name → Prediction for each sample."""
    names = list(EXPECTED)
    return dict(zip(names, Cascade.open().predict_batch([read_slice(SAMPLES / name) for name in names]), strict=True))


def test_the_bundled_models_were_trained_on_one_split_and_take_the_thresholds_of_pairs_calibrated_together():
    segmenter, classifier = find_model(SEGMENTER).record, find_model(CLASSIFIER).record
    assert classifier["settings"]["split_sha256"] == segmenter["settings"]["split_sha256"]
    segmenters = [source["sha256"] for source in segmenter["calibration"]["mean_of"]]
    assert [source["segmenter_sha256"] for source in classifier["calibration"]["mean_of"]] == segmenters
    assert [source["sha256"] for source in segmenter["volume_rule"]["mean_of"]] == segmenters


def test_the_rule_for_volumes_was_set_for_the_bundled_segmenter():
    record = find_model(SEGMENTER).record["volume_rule"]
    assert record["healthy_subjects"] > 0
    assert record["tumor_subjects"] > 0
    assert Cascade.open().volume_rule == VolumeRule.from_record(record)


def test_the_bundled_models_contain_no_paths_of_the_machine_that_exported_them():
    for graph in BUNDLED_MODELS.glob("*.onnx"):
        assert b"region.py" not in graph.read_bytes()


def test_the_bundled_models_are_small():
    assert sum(find_model(name).path.stat().st_size for name in (SEGMENTER, CLASSIFIER)) < 69e6


@pytest.fixture(scope="module")
def overlaps(predictions):
    """File name → Dice and sensitivity of the mask, for each sample with a tumor."""
    masks, found = np.load(SAMPLES / "masks.npz"), {}
    for name, expected in EXPECTED.items():
        if expected["class"] is not None:
            mask, true = predictions[name].mask, masks[Path(name).stem]
            shared = (mask & true).sum()
            found[name] = 2 * shared / (mask.sum() + true.sum()), shared / true.sum()
    return found


def test_the_bundled_segmenter_outlines_the_simulated_tumors(overlaps):
    assert min(sensitivity for _, sensitivity in overlaps.values()) > 0.95, overlaps
    assert np.mean([dice for dice, _ in overlaps.values()]) > 0.8, overlaps
    assert all(dice > 0.9 for name, (dice, _) in overlaps.items() if EXPECTED[name]["class"] != "glioma"), overlaps


EDEMA = pytest.mark.xfail(
    strict=True, reason="its outlines, of v10, hold edema too: Dice 0.50; docs/experiments.md, a higher weight"
)


@pytest.mark.parametrize(
    "name", ["axial_glioma_1.png", "sagittal_glioma_1.png", pytest.param("coronal_glioma_1.png", marks=EDEMA)]
)
def test_the_bundled_segmenter_outlines_the_simulated_gliomas(overlaps, name):
    """It outlines their dark edema too, which the true masks leave out."""
    assert overlaps[name][0] > 0.55


def test_the_bundled_classifier_identifies_most_simulated_tumors(predictions):
    right = [
        name
        for name, expected in EXPECTED.items()
        if expected["class"] and predictions[name].label == expected["class"]
    ]
    assert len(right) >= 8, right


def test_no_tumor_is_found_in_the_simulated_slice_without_one(predictions):
    (name,) = [name for name, expected in EXPECTED.items() if expected["class"] is None]
    assert predictions[name].label is None
