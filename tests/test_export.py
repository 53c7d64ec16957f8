"""What is asked before a run is exported, and what models.json says of it. Real exports: tests/test_training.py."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from tiny_models import write_models

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from cascade.backends.onnxruntime import OnnxRuntimeGraph
from cascade.cli import main
from cascade.contract import CLASS_NAMES, SLICE
from cascade.graphs import find_graph
from cascade.split import Split, SplitSlice, _digest, write_split
from train import export
from train.region import normalise

METRICS = """epoch,train_loss,validation_f1,validation_loss,seconds
0,0.5,0.9,nan,3.1
1,0.4,0.8,0.7,3.2
"""


def split_of(names):
    slices = tuple(SplitSlice(name, "", CLASS_NAMES[0], name, "train", name) for name in names)
    return Split(slices, _digest([asdict(item) for item in slices]))


@pytest.fixture
def run(tmp_path):
    """The folder of a classifier's run without checkpoints; its split and the models that it was trained with."""
    split = split_of(["1.mat"])
    write_split(split, tmp_path / "split.json", seed=0)
    segmenter = find_graph("segmenter", write_models(tmp_path / "models"))
    settings = {"split_sha256": split.sha256, "segmenter_sha256": segmenter.sha256, "weights": "/here/start.ckpt"}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "metrics.csv").write_text(METRICS)
    return folder


class Loaded(Exception):
    """The file of weights that would be loaded."""


@pytest.mark.parametrize(("options", "checkpoint"), [([], "best.ckpt"), (["--last"], "last.ckpt")])
def test_the_best_epochs_weights_are_exported_or_those_of_the_last(run, tmp_path, monkeypatch, options, checkpoint):
    def load(path):
        raise Loaded(path)

    monkeypatch.setattr(export, "load_file", load)
    where = ["--split", str(tmp_path / "split.json"), "--models", str(tmp_path / "models")]
    with pytest.raises(Loaded) as loaded:
        main(["train", "export", "classifier", str(run), str(tmp_path), *where, *options])
    assert loaded.value.args == (run / checkpoint,)


@pytest.mark.parametrize(("checkpoint", "epoch"), [("best", 0), ("last", 1)])
def test_the_figures_are_those_of_the_exported_epoch(run, checkpoint, epoch):
    assert export._epoch(run, checkpoint)["epoch"] == epoch


def test_a_figure_that_is_no_number_is_left_out_of_models_json(run):
    """Python wrote NaN, which is no JSON."""
    assert export._epoch(run, "best") == {"epoch": 0, "train_loss": 0.5, "validation_f1": 0.9, "seconds": 3.1}


@pytest.mark.parametrize(("names", "figshare"), [(["1.mat", "b/2.MAT"], True), (["1.mat", "b/2.png"], False)])
def test_only_figshares_files_are_called_figshares(run, names, figshare):
    """Its DOI and licence were written for everyone's pictures."""
    settings = json.loads((run / "settings.json").read_text())
    record = export._origin(split_of(names), settings, run, "best")
    assert ("10.6084/m9.figshare.1512427" in record["data"]) is figshare
    assert record["settings"]["weights"] == "start.ckpt"


class Normalised(torch.nn.Module):
    def forward(self, slice):
        return normalise(slice)


def test_the_graph_takes_the_same_pixels_for_tissue_however_near_they_are_to_the_mean(tmp_path):
    """A training of an hour could not be exported: ONNX Runtime's mean of all pixels in one go was off by 1.6e-5."""
    slices = (torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(0)) ** 3 * 255).double()
    mean = slices.mean((1, 2, 3), keepdim=True)
    slices[:, :, :64], slices[:, :, 64:128] = mean * (1 + 1e-5), mean * (1 - 1e-5)
    slices[:, :, 200:] += (mean - slices.mean((1, 2, 3), keepdim=True)) * 256 / 56  # so that it stays the mean
    path = tmp_path / "normalised.onnx"
    graph = export.to_onnx(Normalised().eval(), {SLICE: slices.float()}, ["normalised"])
    path.write_bytes(graph.SerializeToString())
    found = OnnxRuntimeGraph(path).run(slice=slices.float().numpy())["normalised"]
    assert np.abs(found - normalise(slices).numpy()).max() < 1e-4
