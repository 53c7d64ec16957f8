"""A data set and models so simple that every number of an evaluation can be worked out by hand.

The stub models read their answers off the slice: tumor is "found" where it is BRIGHT, and three pixels in the corner
say which class the classifier answers with the found mask, which with the true one, and how probable in percent.
"""

import csv
import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

import cascade.evaluation.evaluate
from cascade.cli.evaluate_output import metrics_table
from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY
from cascade.evaluation.evaluate import evaluate
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
        assert probability.any((1, 2, 3)).all(), "asked about an empty mask"
        rows = [self.answer(*planes) for planes in zip(slice[:, 0], probability[:, 0], strict=True)]
        return {CLASS_PROBABILITY: np.array(rows, np.float32), BOX: np.zeros((len(rows), 4), np.float32)}

    def answer(self, pixels, mask):
        if mask.all():
            return [0.2, 0.5, 0.3]
        with_found, with_true, percent = pixels[0, :3].astype(int)
        row = np.full(3, (100 - percent) / 200)
        row[with_found if np.array_equal(mask, pixels >= BRIGHT) else with_true] = percent / 100
        return row


def write_mat(path, patient, label, *, found=TUMOR, with_found=None, with_true=None, percent=80, true=TUMOR, side=512):
    """A slice of the figshare layout. Without `with_found` or `with_true` the classifier answers the true class."""
    pixels, mask = np.zeros((side, side), np.int16), np.zeros((side, side), np.uint8)
    pixels[found], mask[true] = BRIGHT, 1
    pixels[0, :3] = [label if given is None else given for given in (with_found, with_true)] + [percent]
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

    def stub(backend, models, engines):
        graphs = {name: find_model(name, models) for name in ("segmenter", "classifier")}
        return SelectedBackend("onnxruntime", CpuBackend(StubSegmenter(), StubClassifier(), "stub"), graphs)

    monkeypatch.setattr(cascade.evaluation.evaluate, "open_backend", stub)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Six slices of four people: MR7A and MR7B count as one."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_mat(folder / "1.mat", "100", MENINGIOMA)
    write_mat(folder / "2.mat", "100", MENINGIOMA, found=HALF_OFF, with_found=GLIOMA, percent=60)
    write_mat(folder / "3.mat", "MR7A", GLIOMA)
    write_mat(folder / "4.mat", "MR7B", GLIOMA, found=NOWHERE)
    write_mat(folder / "5.mat", "300", PITUITARY, found=FAR_OFF, with_true=GLIOMA)
    write_mat(folder / "6.mat", "400", GLIOMA, with_found=MENINGIOMA, with_true=MENINGIOMA)
    return folder


@pytest.fixture
def run(folder, models, tmp_path, monkeypatch):
    """Evaluates; without the figures, which take most of the time, unless they are asked for."""

    def run(draw=False, **changes):
        settings = {
            "split_file": None,
            "part": "test",
            "backend": "onnxruntime",
            "engines": tmp_path / "engines",
            "batch_size": 4,
            "out": tmp_path / "out",
        }
        with monkeypatch.context() as patch:
            if not draw:
                patch.setattr(cascade.evaluation.evaluate, "charts", lambda metrics, scored: {})
                patch.setattr(cascade.evaluation.evaluate, "gallery", lambda name, some, folder, cascade: b"")
            return evaluate(folder, models=models, **{**settings, **changes})

    return run


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "slices.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def shown(metrics, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(metrics_table(metrics))
    return console.file.getvalue()
