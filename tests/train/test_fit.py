"""Trainings of a network with one weight: started, interrupted, moved, resumed."""

import gc
import json
import shutil
import weakref
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

import lightning
from torch.utils.data import DataLoader, TensorDataset

from cascade.errors import CascadeError
from cascade.files import sha256_of_bytes
from train import fit as fit_module
from train.fit import FitSettings, fit, loader, moving_average, prepare_run
from train.history import read_history
from train.weights import splits_behind

pytestmark = pytest.mark.slow

DATA = TensorDataset(torch.ones(8, 1))


def settings(**changes):
    given = {"epochs": 4, "batch_size": 2, "learning_rate": 0.1, "weight_decay": 0.0, "weights": "none"}
    return FitSettings(**{**given, "devices": 1, **changes})


class CutOff(Exception):
    """Ends a run in these tests as a kill would."""


class OneWeight(lightning.LightningModule):
    """Has the validation scores `scores`, one per epoch, and raises CutOff in epoch `cut_off`."""

    def __init__(self, settings, scores, cut_off=None):
        super().__init__()
        self.settings, self.scores, self.cut_off = settings, scores, cut_off
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.drawn = []

    def training_step(self, batch):
        if self.current_epoch == self.cut_off:
            raise CutOff
        self.drawn.append(float(torch.rand(())))
        return (self.weight - batch[0]).square().mean()

    def validation_step(self, batch):
        self.log("validation_score", self.scores[self.current_epoch])

    def configure_optimizers(self):
        return self.settings.one_cycle(self)


def run(out, scores, *, resume=False, cut_off=None, **changes):
    chosen = settings(**changes)
    prepare_run(chosen, out, {}, resume=resume)
    training = OneWeight(chosen, scores, cut_off)
    batches = DataLoader(DATA, batch_size=2)
    fit(training, batches, batches, chosen, out=out, monitor="validation_score", resume=resume)
    return training


def cut_off_after_two(out, scores):
    with pytest.raises(CutOff):
        run(out, scores, cut_off=2)
    assert len(read_history(out)) == 2


def saved(path):
    return torch.load(path, weights_only=True)


def test_a_resumed_run_keeps_the_rows_of_earlier_epochs(tmp_path):
    scores = [0.1, 0.2, 0.3, 0.4]
    cut_off_after_two(tmp_path, scores)
    table = tmp_path / "metrics.csv"
    table.write_text(table.read_text().replace("\n0,0.1", "\n0,0.125"))  # would be 0.1 again if it were trained again
    before = read_history(tmp_path)
    run(tmp_path, scores, resume=True)
    after = read_history(tmp_path)
    assert after[:2] == before  # the seconds too
    assert [row["epoch"] for row in after] == [0, 1, 2, 3]
    assert [row["validation_score"] for row in after] == [0.125, 0.2, 0.3, 0.4]


def test_a_resumed_run_draws_other_random_numbers_than_its_first_epochs(tmp_path):
    """It repeated those of epoch 0: the same batches with the same augmentation."""
    scores = [0.1, 0.2, 0.3, 0.4]
    first = run(tmp_path / "whole", scores).drawn
    cut_off_after_two(tmp_path / "cut", scores)
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "cut").iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    resumed, again = (run(tmp_path / name, scores, resume=True).drawn for name in ("cut", "copy"))
    assert len(resumed) == 8
    assert not set(resumed) & set(first)
    assert resumed == again


def test_the_best_epoch_is_remembered_in_a_moved_folder(tmp_path):
    """Lightning lost its score, and the next, worse epoch replaced it."""
    scores = [0.9, 0.2, 0.3, 0.4]
    cut_off_after_two(tmp_path / "here", scores)
    (tmp_path / "here").rename(tmp_path / "there")
    run(tmp_path / "there", scores, resume=True)
    assert saved(tmp_path / "there" / "best.ckpt")["epoch"] == 0
    assert saved(tmp_path / "there" / "last.ckpt")["epoch"] == 3


def test_the_best_epoch_is_remembered_if_it_was_the_last_one(tmp_path):
    """last.ckpt was written before the score of its own epoch was known."""
    scores = [0.5, 0.9, 0.6, 0.4]
    cut_off_after_two(tmp_path, scores)
    run(tmp_path, scores, resume=True)
    assert saved(tmp_path / "best.ckpt")["epoch"] == 1


def test_a_better_epoch_becomes_the_best_also_in_a_moved_folder(tmp_path):
    scores = [0.5, 0.2, 0.6, 0.4]
    cut_off_after_two(tmp_path / "here", scores)
    (tmp_path / "here").rename(tmp_path / "there")
    run(tmp_path / "there", scores, resume=True)
    assert saved(tmp_path / "there" / "best.ckpt")["epoch"] == 2
    assert not (tmp_path / "here").exists()


def test_a_run_is_not_resumed_with_another_number_of_steps(tmp_path):
    """As on another number of GPUs: the schedule ended with a traceback, or far from its end."""
    cut_off_after_two(tmp_path, [0.1, 0.2])
    chosen = settings()
    prepare_run(chosen, tmp_path, {}, resume=True)
    half = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2)
    with pytest.raises(CascadeError, match="has 16 steps, and would have 11 now"):
        fit(OneWeight(chosen, [1] * 4), half, half, chosen, out=tmp_path, monitor="validation_score", resume=True)


def test_less_than_a_batch_for_each_gpu_is_an_error(tmp_path, monkeypatch):
    """The training ended at once, without a step and with exit code 0."""
    chosen = settings(batch_size=5)
    prepare_run(chosen, tmp_path, {}, resume=False)
    monkeypatch.setattr(lightning.Trainer, "world_size", 2)
    batches = loader(DATA, chosen, shuffle=True)
    with pytest.raises(CascadeError, match="4 slices for each of 2 GPUs"):
        fit(OneWeight(chosen, [1]), batches, None, chosen, out=tmp_path, monitor="validation_score", resume=False)


def test_the_moving_average_of_the_weights_is_validated_and_saved(tmp_path):
    run(tmp_path, [0.1, 0.2, 0.3, 0.4])
    best = saved(tmp_path / "best.ckpt")
    assert best["averaging_state"]["n_averaged"] > 1
    averaged, current = (float(best[name]["weight"]) for name in ("state_dict", "current_model_state"))
    assert 0 < averaged < current  # on its way from 0 to 1


@pytest.mark.parametrize(("steps", "decay"), [(40, 0.9), (800, 0.995), (4000, 0.995)])
def test_the_moving_average_reaches_back_over_a_quarter_of_a_short_training(steps, decay):
    """With 48 slices, three quarters of each exported weight came from the start."""
    training = SimpleNamespace(trainer=SimpleNamespace(estimated_stepping_batches=steps))
    averaged = [torch.zeros(1)]
    moving_average(0.995, training)(averaged, [torch.ones(1)], 1)
    assert float(averaged[0]) == pytest.approx(1 - decay)


def test_the_data_of_an_earlier_training_are_freed_before_the_next_one(tmp_path):
    """Lightning's objects refer to each other: 2 GB of a fold stayed in memory until garbage collection."""
    chosen = settings(epochs=1)
    data = TensorDataset(torch.ones(8, 1))
    left = weakref.ref(data)
    gc.disable()
    try:
        prepare_run(chosen, tmp_path / "first", {}, resume=False)
        batches = DataLoader(data, batch_size=2)
        fit(
            OneWeight(chosen, [0.1]),
            batches,
            batches,
            chosen,
            out=tmp_path / "first",
            monitor="validation_score",
            resume=False,
        )
        del data, batches
        prepare_run(chosen, tmp_path / "second", {}, resume=False)
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("steps", [*range(1, 13), 100])
def test_a_schedule_of_any_length_can_be_run(steps):
    """Over 10 steps, as of two epochs of five batches, it divided by zero."""
    network = torch.nn.Linear(1, 1)
    module = SimpleNamespace(parameters=network.parameters, trainer=SimpleNamespace(estimated_stepping_batches=steps))
    made = settings().one_cycle(module)
    for _ in range(steps):
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()


def test_the_number_of_workers_depends_on_the_usable_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    assert loader(DATA, settings(), shuffle=True).num_workers == 2


def test_data_are_drawn_as_often_as_their_weights_say():
    weights = torch.tensor([0.0, 3.0, 1.0] + 5 * [0.0])
    sampler = loader(DATA, settings(), shuffle=True, weights=weights).sampler
    drawn = [index for _ in range(100) for index in sampler]
    assert set(drawn) == {1, 2}
    assert 0.65 < drawn.count(1) / len(drawn) < 0.85


def test_a_run_is_recorded_with_what_it_trains_on(tmp_path):
    prepare_run(settings(), tmp_path, {"split_sha256": "abc"}, resume=False)
    assert json.loads((tmp_path / "settings.json").read_text()) == {**asdict(settings()), "split_sha256": "abc"}


@pytest.mark.parametrize(("able", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_cpu_that_would_have_to_emulate_bf16_trains_in_fp32(monkeypatch, able, precision):
    """An epoch of the segmenter took days on a CPU with AVX2 alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able)
    assert fit_module.precision() == precision


def test_a_run_records_the_hash_of_its_start_weights_and_resumes_without_the_file(tmp_path):
    """The record had only the name start.ckpt, not which file it was."""
    start, out = tmp_path / "start.ckpt", tmp_path / "run"
    start.write_bytes(b"weights")
    with pytest.raises(CutOff):
        run(out, [0.1, 0.2, 0.3, 0.4], cut_off=2, weights=str(start))
    start.unlink()
    run(out, [0.1, 0.2, 0.3, 0.4], resume=True, weights=str(start))
    assert json.loads((out / "settings.json").read_text())["weights_sha256"] == sha256_of_bytes(b"weights")


def test_a_run_records_the_other_splits_that_its_start_weights_were_trained_on(tmp_path):
    """A graph of another split may have been trained on test subjects, and the export recorded only this split."""
    first, graph = tmp_path / "first", tmp_path / "models" / "segmenter.onnx"
    first.mkdir()
    (first / "settings.json").write_text(json.dumps({"split_sha256": "mine", "other_splits": ["older"]}))
    (first / "best.ckpt").write_bytes(b"weights")
    graph.parent.mkdir()
    graph.write_bytes(b"graph")
    entry = {"sha256": sha256_of_bytes(b"graph"), "average_with": [{"settings": {"split_sha256": "other"}}]}
    (graph.parent / "models.json").write_text(json.dumps({"segmenter": entry}))
    chosen = settings(weights=str(first / "best.ckpt"))
    prepare_run(chosen, tmp_path / "run", {"split_sha256": "mine"}, built_on=[graph], resume=False)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["other_splits"] == ["older", "other"]
    assert splits_behind(tmp_path / "run" / "best.ckpt") == {"mine", "older", "other"}
    graph.write_bytes(b"another graph, of which nothing is known")
    assert splits_behind(graph) == {"unknown"}
    moved = shutil.copy(first / "best.ckpt", tmp_path)
    assert splits_behind(Path(moved)) == {"unknown"}
    assert splits_behind(tmp_path / "imagenet.pth") == set()


def test_the_splits_behind_an_average_include_those_of_averages_in_it(tmp_path):
    """A model was called trained on one split alone, though a graph in its average had learned from another."""
    graph = tmp_path / "segmenter.onnx"
    graph.write_bytes(b"graph")
    averaged = {"settings": {"split_sha256": "b"}, "average_with": [{"settings": {"split_sha256": "c"}}]}
    record = {"sha256": sha256_of_bytes(b"graph"), "settings": {"split_sha256": "a"}, "average_with": [averaged]}
    (tmp_path / "models.json").write_text(json.dumps({"segmenter": record}))
    assert splits_behind(graph) == {"a", "b", "c"}
