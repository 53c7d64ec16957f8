"""A data set and models so simple that every number of an evaluation can be computed by hand.

The stub models read their results from the slice: BRIGHT pixels are segmented as tumor. Three pixels in the corner are
the class that the classifier predicts with the predicted mask, the one with the true mask, and its probability in
percent.
"""

import csv
import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import cascade.evaluation.evaluate
from cascade.cli.evaluate_output import evaluation_table
from cascade.contract import BOX, CLASS_NAMES, CLASS_PROBABILITY, PROBABILITY
from cascade.datasets.reader import SliceInfo
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.scores import ScoredSlice
from cascade.files import sha256_of
from cascade.runtime.cpu import CpuBackend
from cascade.runtime.models import find_model
from cascade.runtime.select import SelectedBackend

MENINGIOMA, GLIOMA, PITUITARY = range(3)
BRIGHT = 200
TUMOR = np.s_[100:140, 100:140]  # 1600 pixels; a circle as large is 45 pixels wide: small
HALF_OFF = np.s_[100:140, 120:160]
FAR_OFF = np.s_[300:340, 100:140]
NOWHERE = np.s_[0:0, 0:0]


class StubSegmenter:
    def run(self, slice):
        return {PROBABILITY: (slice >= BRIGHT).astype(np.float32)}


class StubClassifier:
    def run(self, slice, probability):
        assert probability.any((1, 2, 3)).all(), "classifies an empty mask"
        rows = [self.predict(*planes) for planes in zip(slice[:, 0], probability[:, 0], strict=True)]
        return {CLASS_PROBABILITY: np.array(rows, np.float32), BOX: np.zeros((len(rows), 4), np.float32)}

    def predict(self, pixels, mask):
        if mask.all():
            return [0.2, 0.5, 0.3]
        with_predicted, with_true, percent = pixels[0, :3].astype(int)
        row = np.full(3, (100 - percent) / 200)
        row[with_predicted if np.array_equal(mask, pixels >= BRIGHT) else with_true] = percent / 100
        return row


def write_mat(
    path, patient, label, *, predicted=TUMOR, with_predicted=None, with_true=None, percent=80, true=TUMOR, side=512
):
    """Write a slice in the figshare layout.

    `predicted` is the region that the segmenter finds, `true` the true one. `with_predicted` and `with_true` are the
    classes that the classifier predicts with these masks; the true class by default.
    """
    pixels, mask = np.zeros((side, side), np.int16), np.zeros((side, side), np.uint8)
    pixels[predicted], mask[true] = BRIGHT, 1
    pixels[0, :3] = [label if index is None else index for index in (with_predicted, with_true)] + [percent]
    with h5py.File(path, "w") as file:
        file["cjdata/PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
        file["cjdata/label"] = np.array([[label + 1.0]])
        file.create_dataset("cjdata/image", data=pixels.T, compression="gzip")
        file.create_dataset("cjdata/tumorMask", data=mask.T, compression="gzip")


@pytest.fixture
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("segmenter", "classifier"):
        (folder / f"{name}.onnx").write_text(name)
    hashes = {name: {"sha256": sha256_of(folder / f"{name}.onnx")} for name in ("segmenter", "classifier")}
    (folder / "models.json").write_text(json.dumps(hashes))

    def stub(backend, models, engines, device=None):
        graphs = {name: find_model(name, models) for name in ("segmenter", "classifier")}
        return SelectedBackend("onnxruntime", CpuBackend(StubSegmenter(), StubClassifier(), "stub"), graphs)

    monkeypatch.setattr(cascade.evaluation.evaluate, "open_backend", stub)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Six slices of four subjects: MR7A and MR7B count as one."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_mat(folder / "1.mat", "100", MENINGIOMA)
    write_mat(folder / "2.mat", "100", MENINGIOMA, predicted=HALF_OFF, with_predicted=GLIOMA, percent=60)
    write_mat(folder / "3.mat", "MR7A", GLIOMA)
    write_mat(folder / "4.mat", "MR7B", GLIOMA, predicted=NOWHERE)
    write_mat(folder / "5.mat", "300", PITUITARY, predicted=FAR_OFF, with_true=GLIOMA)
    write_mat(folder / "6.mat", "400", GLIOMA, with_predicted=MENINGIOMA, with_true=MENINGIOMA)
    return folder


@pytest.fixture
def negatives(tmp_path):
    """Four pictures of 512 x 512: no tumor, a speck and a large patch as bright as a tumor, and a broken file."""
    folder = tmp_path / "healthy"
    folder.mkdir()
    for name, bright in {"none": NOWHERE, "speck": np.s_[0:4, 0:4], "patch": TUMOR}.items():
        pixels = np.zeros((512, 512), np.uint8)
        pixels[400:] = BRIGHT // 2  # a blank slice would be refused
        pixels[bright] = BRIGHT
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def run(folder, models, tmp_path, monkeypatch):
    """Evaluate; figures, which take most of the time, are drawn with draw=True only."""

    def run(draw=False, **changes):
        settings = {
            "split_file": None,
            "subset": "test",
            "backend": "onnxruntime",
            "engines": tmp_path / "engines",
            "batch_size": 4,
            "out": tmp_path / "out",
        }
        with monkeypatch.context() as patch:
            if not draw:
                patch.setattr(cascade.evaluation.evaluate, "charts", lambda metrics, scored, detection: {})
                patch.setattr(cascade.evaluation.evaluate, "gallery", lambda name, some, folder, cascade: b"")
            return evaluate(folder, models=models, **{**settings, **changes})

    return run


def scored(number: int, dice: float, probabilities=(0.7, 0.2, 0.1)) -> ScoredSlice:
    """Return the scores of a slice with this Dice, of a subject of its own; its number selects the class."""
    return ScoredSlice(
        info=SliceInfo(f"patient-{number}/{number}.mat", "", CLASS_NAMES[number % 3], f"patient-{number}"),
        probabilities=dict.fromkeys(("true_mask", "predicted_mask", "whole_slice"), probabilities),
        dice=dice,
        iou=dice / (2 - dice),
        hausdorff95_px=1.0,
        hausdorff95_mm=None,
        true_area_px=1000,
        predicted_area_px=1000,
        peak=0.9,
        diameter_px=20.0 + number,
    )


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "slices.csv").open(newline="", encoding="utf-8-sig") as lines:
        return list(csv.DictReader(lines))


def printed(evaluation, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(evaluation_table(evaluation))
    return console.file.getvalue()
