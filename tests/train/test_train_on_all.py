"""Final models: trained on all subjects, with the thresholds of models that left some out."""

import csv
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from cascade.cli import main
from cascade.datasets.split import read_split
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS, find_model
from cascade.volume.finding import VolumeRule
from train.calibrate import mean_calibration, mean_volume_rule
from train.classifier import ClassifierSettings, train_classifier
from train.export import export_model
from train.segmenter import SegmenterSettings, train_segmenter

pytestmark = pytest.mark.slow

SETTINGS = {"epochs": 1, "batch_size": 2, "limit_batches": 1, "weights": "none", "devices": 1}


class Model:
    def __init__(self, volume_rule=None, **calibration):
        self.sha256, self.record = "hash", {"calibration": calibration, "volume_rule": volume_rule}


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_mat):
    """Nine subjects with a slice each, and a split in which all of them train."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for number in range(9):
        mask = np.zeros((64, 64), dtype=bool)
        mask[20:35, 20:35] = True
        pixels = random.normal(300, 20, (64, 64)) + 400 * mask
        write_mat(folder / f"{number}.mat", pixels.astype(np.int16), mask, number % 3 + 1, f"{100 + number}")
    with pytest.raises(SystemExit) as ended:
        main(["data", "split", str(folder), "--train-on-all"])
    assert ended.value.code == 0
    return folder


@pytest.fixture(scope="module")
def segmenter_run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "segmenter"
    train_segmenter(data, data / "split.json", out, SegmenterSettings(**SETTINGS), resume=False)
    return out


def test_a_split_to_train_on_all_holds_nobody_out(data):
    split = read_split(data / "split.json")
    assert len(split.subset("train")) == 9
    assert not split.subset("validation")
    assert not split.subset("test")


def test_a_training_on_all_subjects_validates_nothing_and_keeps_the_last_epoch(segmenter_run):
    assert {path.name for path in segmenter_run.glob("*.ckpt")} == {"last.ckpt"}
    with (segmenter_run / "metrics.csv").open(newline="") as lines:
        assert set(next(csv.DictReader(lines))) == {"epoch", "train_loss", "seconds"}


def test_a_finished_training_on_all_subjects_is_resumed_without_another_epoch(data, segmenter_run):
    before = (segmenter_run / "metrics.csv").read_text()
    train_segmenter(data, data / "split.json", segmenter_run, SegmenterSettings(**SETTINGS), resume=True)
    assert (segmenter_run / "metrics.csv").read_text() == before


def test_a_model_of_all_subjects_is_not_exported_without_thresholds(data, segmenter_run, tmp_path):
    with pytest.raises(CascadeError) as raised:
        export_model("segmenter", segmenter_run, data, data / "split.json", tmp_path)
    assert "--thresholds-of" in str(raised.value.fix)
    assert not list(tmp_path.iterdir())


def test_models_of_all_subjects_take_the_thresholds_of_others(data, segmenter_run, tmp_path):
    split, models = data / "split.json", tmp_path / "models"
    export_model("segmenter", segmenter_run, data, split, models, thresholds_of=[BUNDLED_MODELS])
    run = tmp_path / "classifier"
    train_classifier(data, split, models, run, ClassifierSettings(**SETTINGS), resume=False)
    export_model("classifier", run, data, split, models, thresholds_of=[BUNDLED_MODELS])
    records = json.loads((models / "models.json").read_text())
    assert records["segmenter"]["slices"] == {"train": 9, "validation": 0, "test": 0}
    for name, field in (("segmenter", "detection_threshold"), ("classifier", "temperature")):
        bundled = find_model(name, BUNDLED_MODELS)
        assert records[name]["calibration"][field] == pytest.approx(bundled.record["calibration"][field], rel=1e-5)
        assert records[name]["calibration"]["mean_of"][0]["sha256"] == bundled.sha256
    bundled_rule = find_model("segmenter", BUNDLED_MODELS).record["volume_rule"]
    rule = records["segmenter"]["volume_rule"]
    assert VolumeRule.from_record(rule) == VolumeRule.from_record(bundled_rule)
    assert rule["mean_of"][0]["tumor_subjects"] == bundled_rule["tumor_subjects"]
    assert find_model("classifier", models).uncertain_below == pytest.approx(
        find_model("classifier", BUNDLED_MODELS).uncertain_below
    )


def test_thresholds_are_averaged_as_logits_and_temperatures_as_they_are():
    """The mean of the odds 1/9 and 9 is 1. One temperature close to 0 must not bring the mean close to it."""
    assert mean_calibration([Model(detection_threshold=0.1), Model(detection_threshold=0.9)])[
        "detection_threshold"
    ] == pytest.approx(0.5)
    entry = mean_calibration([Model(temperature=0.1, uncertain_below=0.6), Model(temperature=0.7, uncertain_below=0.8)])
    assert entry["temperature"] == pytest.approx(0.4)
    assert entry["uncertain_below"] == pytest.approx(0.7)


def test_rules_for_volumes_are_averaged_unless_a_model_has_none():
    models = [
        Model({"min_support": 8.0, "part_of_head": 10.0, "healthy_subjects": 3, "tumor_subjects": 2}),
        Model({"min_support": 11.0, "part_of_head": 10.0, "healthy_subjects": 4, "tumor_subjects": 2}),
    ]
    record = mean_volume_rule(models)["volume_rule"]
    rule = VolumeRule.from_record(record)
    assert (rule.min_support, rule.part_of_head) == (9.5, 10.0)
    assert (record["healthy_subjects"], record["tumor_subjects"]) == (7, 4)
    assert mean_volume_rule([*models, Model()]) == {}
