"""Checks before an export, and the record in models.json. Real exports are in test_training.py."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from tiny_models import write_models

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from cascade.cli import main
from cascade.contract import CLASS_NAMES, SLICE
from cascade.datasets.split import Split, SplitSlice, _digest, write_split
from cascade.errors import CascadeError
from cascade.files import sha256_of
from cascade.runtime.models import find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from train import export
from train.onnx_graph import to_onnx
from train.preprocessing import normalize
from train.weights import mean_weights

METRICS = """epoch,train_loss,validation_f1,validation_loss,seconds
0,0.5,0.9,nan,3.1
1,0.4,0.8,0.7,3.2
"""


def split_of(names):
    named = [*((name, "train") for name in names), (f"held-out-{names[0]}", "validation")]
    slices = tuple(SplitSlice(name, "", CLASS_NAMES[0], name, part, name) for name, part in named)
    return Split(slices, _digest([asdict(item) for item in slices]))


@pytest.fixture
def run(tmp_path):
    """The folder of a classifier's run without checkpoints; its split and the models that it was trained with."""
    split = split_of(["1.mat"])
    write_split(split, tmp_path / "split.json", seed=0)
    segmenter = find_model("segmenter", write_models(tmp_path / "models"))
    settings = {"split_sha256": split.sha256, "segmenter_sha256": segmenter.sha256, "weights": "/here/start.ckpt"}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "metrics.csv").write_text(METRICS)
    return folder


class Loaded(Exception):
    """Stands for the weights of a file."""


@pytest.mark.parametrize(("options", "checkpoint"), [([], "best.ckpt"), (["--checkpoint", "last"], "last.ckpt")])
def test_the_best_epochs_weights_are_exported_or_those_of_the_last(run, tmp_path, monkeypatch, options, checkpoint):
    def load(path):
        raise Loaded(path)

    monkeypatch.setattr(export, "mean_weights", load)
    where = ["--split", str(tmp_path / "split.json"), "--models", str(tmp_path / "models")]
    with pytest.raises(Loaded) as loaded:
        main(["train", "export", "classifier", str(run), str(tmp_path), *where, *options])
    assert loaded.value.args == ([run / checkpoint],)


def other_run(run, split_sha256):
    folder = run.parent / "other"
    shutil.copytree(run, folder)
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"split_sha256": split_sha256}))
    return folder


def test_weights_of_other_runs_are_averaged_in_and_recorded(run, tmp_path, monkeypatch):
    other = other_run(run, json.loads((run / "settings.json").read_text())["split_sha256"])
    network = torch.nn.BatchNorm1d(2)
    for folder, level in ((run, 1.0), (other, 4.0)):
        network.weight.data[:] = level
        torch.save(network.state_dict(), folder / "last.ckpt")
        network.num_batches_tracked += 1
    mean = mean_weights([run / "last.ckpt", other / "last.ckpt"])
    assert mean["weight"].tolist() == [2.5, 2.5]
    assert "num_batches_tracked" not in mean
    monkeypatch.setattr(export, "mean_weights", lambda files: pytest.fail(str(files)))
    with pytest.raises(pytest.fail.Exception, match=r"best.ckpt.*other/last.ckpt"):
        export.export_model(
            "classifier", run, tmp_path, tmp_path / "split.json", tmp_path, average_with=[other / "last.ckpt"]
        )
    assert export._training(other / "last.ckpt")["validation"]["epoch"] == 1


def test_an_exported_graph_is_averaged_in_and_recorded(run, tmp_path, monkeypatch):
    """Only the graphs of the bundled models are kept, not the runs."""
    split_sha256 = json.loads((run / "settings.json").read_text())["split_sha256"]
    graph = exported_graph(tmp_path / "earlier", split_sha256)
    monkeypatch.setattr(export, "mean_weights", lambda files: pytest.fail(str(files)))
    with pytest.raises(pytest.fail.Exception, match=r"best.ckpt.*earlier/classifier.onnx"):
        export.export_model("classifier", run, tmp_path, tmp_path / "split.json", tmp_path, average_with=[graph])
    told = export._training(graph)
    assert told == {"graph_sha256": sha256_of(graph), "checkpoint": "best", "settings": {"split_sha256": split_sha256}}


def test_an_exported_graph_is_exported_again(run, tmp_path, monkeypatch):
    """The temperature of the classifier is set with masks of the segmenter, and a new segmenter predicts others."""
    graph = exported_graph(tmp_path / "earlier", json.loads((run / "settings.json").read_text())["split_sha256"])
    monkeypatch.setattr(export, "mean_weights", lambda files: pytest.fail(str(files)))
    with pytest.raises(pytest.fail.Exception, match=r"\[PosixPath\('.*earlier/classifier.onnx'\)\]"):
        export.export_model("classifier", graph, tmp_path, tmp_path / "split.json", tmp_path)


def test_a_graph_of_another_split_is_not_averaged_in(run, tmp_path):
    graph = exported_graph(tmp_path / "earlier", "0" * 64)
    with pytest.raises(CascadeError, match=r"classifier.onnx: was trained on another split"):
        export.export_model("classifier", run, tmp_path, tmp_path / "split.json", tmp_path, average_with=[graph])


def exported_graph(folder, split_sha256):
    graph = write_models(folder) / "classifier.onnx"
    table = json.loads((folder / "models.json").read_text())
    table["classifier"] |= {"checkpoint": "best", "settings": {"split_sha256": split_sha256}}
    (folder / "models.json").write_text(json.dumps(table))
    return graph


def test_a_run_of_another_split_is_not_averaged_in(run, tmp_path):
    """It may have been trained on subjects of this split's test subset."""
    other = other_run(run, "0" * 64)
    with pytest.raises(CascadeError, match="other: was trained on another split"):
        export.export_model(
            "classifier", run, tmp_path, tmp_path / "split.json", tmp_path, average_with=[other / "a.ckpt"]
        )


def test_a_part_missing_in_an_earlier_network_is_the_mean_of_the_others(tmp_path):
    network = torch.nn.Linear(1, 1)
    for number, names in enumerate((["weight", "bias"], ["weight"], ["weight", "bias"])):
        values = {name: torch.full_like(network.state_dict()[name], float(number)) for name in names}
        torch.save(values, tmp_path / f"{number}.ckpt")
    mean = mean_weights([tmp_path / f"{number}.ckpt" for number in (0, 1, 2)])
    assert mean["weight"].item() == 1.0
    assert mean["bias"].item() == 1.0
    mean = mean_weights([tmp_path / "2.ckpt", tmp_path / "1.ckpt"])
    assert mean["weight"].item() == 1.5
    assert mean["bias"].item() == 2.0
    with pytest.raises(CascadeError, match=r"2.ckpt: holds another network's weights than .*1.ckpt"):
        mean_weights([tmp_path / "1.ckpt", tmp_path / "2.ckpt"])  # of the first, nothing may be missing
    torch.save({}, tmp_path / "empty.ckpt")
    with pytest.raises(CascadeError, match=r"empty.ckpt: holds another network's weights"):
        mean_weights([tmp_path / "2.ckpt", tmp_path / "empty.ckpt"])


def test_another_networks_weights_are_not_averaged_in(tmp_path):
    for side in (2, 3):
        torch.save(torch.nn.Linear(side, 1).state_dict(), tmp_path / f"{side}.ckpt")
    with pytest.raises(CascadeError, match=r"3.ckpt: holds another network's weights than .*2.ckpt"):
        mean_weights([tmp_path / "2.ckpt", tmp_path / "3.ckpt"])


@pytest.mark.parametrize(("checkpoint", "epoch"), [("best", 0), ("last", 1)])
def test_the_figures_are_those_of_the_exported_epoch(run, checkpoint, epoch):
    assert export._epoch(run, checkpoint)["epoch"] == epoch


def test_a_figure_that_is_no_number_is_left_out_of_models_json(run):
    """Python wrote NaN, which JSON does not have."""
    assert export._epoch(run, "best") == {"epoch": 0, "train_loss": 0.5, "validation_f1": 0.9, "seconds": 3.1}


@pytest.mark.parametrize(("names", "figshare"), [(["1.mat", "b/2.MAT"], True), (["1.mat", "b/2.png"], False)])
def test_only_figshares_files_are_called_figshares(names, figshare):
    """The DOI and license of figshare were recorded for every data set."""
    assert ("10.6084/m9.figshare.1512427" in export._origin(split_of(names))["data"]) is figshare


def test_only_the_name_of_a_file_of_weights_is_recorded(run):
    assert export._training(run / "best.ckpt")["settings"]["weights"] == "start.ckpt"


class Normalised(torch.nn.Module):
    def forward(self, slice):
        return normalize(slice)


@pytest.mark.slow
def test_the_graph_selects_the_same_tissue_pixels_also_near_the_mean(tmp_path):
    """A training could not be exported: the mean over all pixels at once in ONNX Runtime differed by 1.6e-5."""
    slices = (torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(0)) ** 3 * 255).double()
    mean = slices.mean((1, 2, 3), keepdim=True)
    slices[:, :, :64], slices[:, :, 64:128] = mean * (1 + 1e-5), mean * (1 - 1e-5)
    slices[:, :, 200:] += (mean - slices.mean((1, 2, 3), keepdim=True)) * 256 / 56  # so that it stays the mean
    path = tmp_path / "normalised.onnx"
    graph = to_onnx(Normalised().eval(), {SLICE: slices.float()}, ["normalised"])
    path.write_bytes(graph.SerializeToString())
    found = OnnxRuntimeGraph(path).run(slice=slices.float().numpy())["normalised"]
    assert np.abs(found - normalize(slices).numpy()).max() < 1e-4
