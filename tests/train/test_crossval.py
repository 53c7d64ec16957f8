"""Both trainings in one command, and cross-validation: the subjects of each fold, and resuming."""

import csv
import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

import cascade.cli.evaluate_output
import train.crossval
import train.external
import train.pipeline
from cascade.cli import main
from cascade.contract import CLASS_NAMES
from cascade.datasets.reader import SliceInfo
from cascade.datasets.split import Split, SplitSlice, _digest, make_folds, read_split, train_on_all, write_split
from cascade.errors import CascadeError
from cascade.evaluation.metrics_json import to_json
from cascade.evaluation.schema import Evaluation, Failures
from cascade.evaluation.scores import ScoredSlice, to_csv
from cascade.evaluation.summary import summarize
from train.classifier import ClassifierSettings, start_tensors
from train.crossval import crossval_table, crossvalidate
from train.external import ExternalSlice
from train.external_evaluation import ExternalScore
from train.pipeline import PipelineSettings, train_pipeline
from train.segmenter import SegmenterSettings


def scored(item, number):
    """Correct except for empty masks on every sixth slice, and one more wrong class in every fold."""
    right = np.eye(3)[CLASS_NAMES.index(item.label)] * 0.7 + 0.1
    found = np.zeros(3) if number % 6 == 0 else np.roll(right, 1) if number == 1 else right
    return ScoredSlice(
        info=SliceInfo(item.path, item.mask, item.label, item.patient),
        probabilities={
            "true_mask": tuple(right),
            "predicted_mask": tuple(found),
            "whole_slice": tuple(np.roll(right, 1)),
        },
        dice=0.8 if found.any() else 0.0,
        iou=0.8 / 1.2 if found.any() else 0.0,
        hausdorff95_px=4.0 if found.any() else None,
        hausdorff95_mm=None,
        true_area_px=1000,
        predicted_area_px=1000 if found.any() else 0,
        peak=0.9 if found.any() else 0.3,
        diameter_px=35.7,
    )


@pytest.fixture
def crossvalidation(tmp_path, monkeypatch):
    """run(**changes) → result of 36 subjects with 2 slices each; `done` lists the trainings, which are stubs."""
    done = []
    slices = tuple(
        SplitSlice(f"{number}-{half}.mat", "", CLASS_NAMES[number % 3], f"{number}", "train", f"{number}-{half}")
        for number in range(36)
        for half in range(2)
    )
    content = [asdict(item) for item in slices]
    split_file = tmp_path / "split.json"
    write_split(Split(slices, _digest(content)), split_file, seed=0)

    def pretend(*arguments, resume, **options):
        run = next(item for item in reversed(arguments) if isinstance(item, Path))
        run.mkdir(parents=True, exist_ok=True)
        (run / "last.ckpt").write_text("")
        done.append((run.relative_to(tmp_path / "out").as_posix(), resume))

    def export(name, run, folder, split_file, models, **options):
        table = models / "models.json"
        models.mkdir(exist_ok=True)
        table.write_text(json.dumps((json.loads(table.read_text()) if table.exists() else {}) | {name: {}}))

    def evaluate(folder, *, split_file, subset, out, **options):
        out.mkdir()
        slices = [scored(item, number) for number, item in enumerate(read_split(split_file).subset(subset))]
        (out / "slices.csv").write_bytes(to_csv(slices))
        evaluation = Evaluation(
            cascade="",
            date="",
            models={},
            models_trained_on_this_split=True,
            backend="",
            subset=subset,
            split_sha256=None,
            failed=Failures(1, (f"{out.parent.name}: cannot be read",)),
            metrics=summarize(slices),
            detection=None,
        )
        (out / "metrics.json").write_bytes(to_json(evaluation))

    for name, stand_in in {
        "train_segmenter": pretend,
        "train_classifier": pretend,
        "export_model": export,
        "evaluate": evaluate,
        "start_weights": lambda network, weights: None,
        "start_tensors": lambda weights: {},
    }.items():
        monkeypatch.setattr(train.pipeline, name, stand_in)

    monkeypatch.setattr(train.crossval, "charts", lambda metrics, slices: {"dice.png": b"drawn"})
    monkeypatch.setattr(train.pipeline, "sha256_of_items", lambda items: items[0].subject)
    monkeypatch.setattr(train.external, "sha256_of", lambda path: f"sha256 of {path}")
    monkeypatch.setattr(
        train.crossval, "score_external", lambda models, items: [external_score(item) for item in items]
    )
    monkeypatch.setattr(train.crossval, "score_restyled", lambda *arguments: [])
    monkeypatch.setattr(train.crossval, "SliceStore", lambda *arguments: None)
    monkeypatch.setattr(train.crossval, "ExternalStore", lambda *arguments: None)

    def run(folds=3, external=(), classifier_weights="imagenet", keep_train=False, **changes):
        both = SegmenterSettings(**changes), ClassifierSettings(weights=classifier_weights)
        settings = PipelineSettings(*both, external)
        return crossvalidate(tmp_path, split_file, tmp_path / "out", folds, settings, keep_train=keep_train)

    run.done, run.out, run.split_file = done, tmp_path / "out", split_file
    return run


def train_on_twelve_subjects(crossvalidation):
    """Put them into the train subset of the split, and all others into the validation subset."""
    listed = read_split(crossvalidation.split_file).slices
    slices = tuple(replace(item, part="train" if int(item.patient) < 12 else "validation") for item in listed)
    split = Split(slices, _digest([asdict(item) for item in slices]))
    crossvalidation.split_file.unlink()
    write_split(split, crossvalidation.split_file, seed=0)
    return split


def test_the_train_subset_trains_in_every_fold_where_that_is_asked_for(crossvalidation):
    train_on_twelve_subjects(crossvalidation)
    assert crossvalidation(keep_train=True).metrics.subjects == 24
    for number in range(3):
        fold = read_split(crossvalidation.out / f"fold-{number}" / "split.json")
        assert {item.part for item in fold.slices if int(item.patient) < 12} == {"train"}
    with pytest.raises(CascadeError, match="other settings or slices \\(keep_train\\)"):
        crossvalidation()


def test_every_subject_is_tested_once_and_never_by_models_trained_on_it(crossvalidation):
    metrics = crossvalidation().metrics
    assert (metrics.slices, metrics.subjects) == (72, 36)
    folds = [read_split(crossvalidation.out / f"fold-{number}" / "split.json") for number in range(3)]
    tested = [item.path for fold in folds for item in fold.subset("test")]
    assert len(tested) == len(set(tested)) == 72
    assert all(len(fold.subset("test")) == 24 and len(fold.subset("validation")) == 12 for fold in folds)
    assert len(crossvalidation.done) == 6


def test_the_metrics_are_of_all_slices_and_of_each_fold(crossvalidation):
    result = crossvalidation()
    metrics = result.metrics
    assert metrics.dice.mean == pytest.approx(0.8 * 60 / 72)
    assert metrics.dice.missed_fraction == pytest.approx(12 / 72)
    assert metrics.accuracy["predicted_mask"].value == pytest.approx((72 - 12 - 3) / 72)
    assert metrics.accuracy["true_mask"].value == 1
    assert metrics.accuracy["whole_slice"].value == 0
    low, high = metrics.accuracy["predicted_mask"].ci95
    assert low < 57 / 72 < high < 1
    assert result.by_fold["dice"] == pytest.approx((0.8 * 20 / 24,) * 3)
    assert result.by_fold["accuracy"] == pytest.approx((19 / 24,) * 3)
    assert result.failed.problems == tuple(f"fold-{number}: cannot be read" for number in range(3))


def test_a_cross_validation_leaves_record_figure_and_slices(crossvalidation):
    result = crossvalidation()
    out = crossvalidation.out
    record = json.loads((out / "crossval.json").read_text())
    content = json.loads(json.dumps(asdict(result)))
    assert record.items() >= {**content.pop("metrics"), **content}.items()
    assert (record["folds"], record["segmenter"]["epochs"]) == (3, SegmenterSettings().epochs)
    assert (out / "dice.png").read_bytes() == b"drawn"
    with (out / "slices.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    assert len({row["path"] for row in rows}) == 72


def test_the_table_shows_the_metrics_and_their_spread_over_the_folds(crossvalidation):
    console = Console(width=80, file=io.StringIO())
    by_fold = {"dice": [0.7, 0.8], "balanced_accuracy": [0.9, 0.9]}
    console.print(crossval_table(replace(crossvalidation(), by_fold=by_fold)))
    shown = console.file.getvalue()
    assert "not used: fold-2: cannot be read" in shown
    assert "mean ± standard deviation: dice 0.750 ± 0.071" in shown
    assert "balanced accuracy 0.900 ± 0.000" in " ".join(shown.split())


def test_a_cross_validation_resumes_in_the_unfinished_fold(crossvalidation):
    out = crossvalidation.out
    crossvalidation()
    (out / "fold-2" / "evaluation" / "metrics.json").unlink()
    (out / "fold-2" / "evaluation" / "slices.csv").unlink()
    (out / "fold-2" / "evaluation").rmdir()
    (out / "fold-2" / "models" / "models.json").write_text('{"segmenter": {}}')
    crossvalidation.done.clear()
    crossvalidation()
    assert crossvalidation.done == [("fold-2/classifier", True)]


def test_a_cross_validation_is_not_resumed_with_other_settings(crossvalidation):
    crossvalidation()
    with pytest.raises(CascadeError, match="with other settings"):
        crossvalidation(epochs=3)


def external_score(item):
    """Tumor-free slices of even subjects are false positives."""
    return ExternalScore(item.set_name, item.subject, item.label, int(item.subject) % 2 == 0, False, "")


def negatives(first):
    return tuple(ExternalSlice(Path(f"{n}"), None, "", "none", f"{first + n}", "S", None, "train") for n in range(12))


def test_a_cross_validation_is_not_resumed_with_other_external_slices(crossvalidation):
    """The record said only whether there were external slices."""
    crossvalidation(external=negatives(0))
    with pytest.raises(CascadeError, match="external"):
        crossvalidation(external=negatives(1))


def test_external_subjects_are_tested_once_and_counted_by_set(crossvalidation):
    (row,) = crossvalidation(external=negatives(0)).external
    assert (row["set"], row["class"], row["slices"], row["subjects"]) == ("S", "none", 12, 12)
    assert row["detected"]["value"] == 0.5
    low, high = row["detected"]["ci95"]
    assert 0.2 < low < 0.5 < high < 0.8
    assert crossvalidation(external=negatives(0)).external == [row]  # read back, not scored again


def test_each_fold_restyles_its_test_slices_after_external_slices_that_train(crossvalidation, monkeypatch):
    restyled = []
    monkeypatch.setattr(train.crossval, "SliceStore", lambda folder, items, text: items)
    monkeypatch.setattr(train.crossval, "ExternalStore", lambda items, text: items)
    monkeypatch.setattr(train.crossval, "score_restyled", lambda *arguments: restyled.append(arguments[1:]) or [])
    crossvalidation(external=negatives(0))
    assert len(restyled) == 3
    for number, (items, subjects, styles) in enumerate(restyled):
        tested = read_split(crossvalidation.out / f"fold-{number}" / "split.json").subset("test")
        assert (items, subjects) == (tested, [item.patient for item in tested])
        assert {item.part for item in styles} == {"train"}


def test_a_slice_of_the_data_set_that_is_an_external_slice_too_is_refused(crossvalidation, monkeypatch):
    """It would train in some fold that tests it."""
    monkeypatch.setattr(train.external, "sha256_of", lambda path: "7-1")  # that of slice 7-1.mat
    with pytest.raises(CascadeError, match=r"7-1\.mat of the data set"):
        crossvalidation(external=negatives(0))
    assert not crossvalidation.done


def test_one_command_trains_both_models_without_reading_the_test_subset(crossvalidation, tmp_path, monkeypatch):
    shown, out, split_file = [], crossvalidation.out, tmp_path / "parts.json"
    monkeypatch.setattr(
        cascade.cli.evaluate_output, "evaluation_table", lambda result: shown.append(result.metrics.slices) or ""
    )
    write_split(make_folds(read_split(crossvalidation.split_file), 3)[0], split_file, seed=0)
    command = ["train", "both", str(tmp_path), "--split", str(split_file), "--out", str(out)]
    with pytest.raises(SystemExit):
        main([*command, "--subset", "tests"])
    assert crossvalidation.done == []
    for more in ([], [], ["--subset", "test"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, *more])
        assert ended.value.code == 0
    assert crossvalidation.done == [("segmenter", False), ("classifier", False)]
    assert shown == [12, 12, 24]
    assert (out / "evaluation-test" / "metrics.json").exists()
    with pytest.raises(SystemExit) as ended:
        main([*command, "--segmenter-epochs", "3"])
    assert ended.value.code == 1


def test_weights_that_may_know_tested_subjects_are_warned_of(crossvalidation):
    """A cross-validation from the shipped models gave metrics of training patients, without a word."""
    weights = crossvalidation.out.parent / "start.ckpt"
    weights.write_bytes(b"1")
    sha256 = read_split(crossvalidation.split_file).sha256
    weights.with_name("settings.json").write_text(json.dumps({"split_sha256": sha256}))
    result = crossvalidation(classifier_weights=str(weights))
    assert result.may_know_subjects
    console = Console(width=200, file=io.StringIO())
    console.print(crossval_table(result))
    assert "may have been trained on these patients" in console.file.getvalue()
    sha256 = train_on_twelve_subjects(crossvalidation).sha256
    weights.with_name("settings.json").write_text(json.dumps({"split_sha256": sha256}))
    shutil.rmtree(crossvalidation.out)
    assert not crossvalidation(keep_train=True, classifier_weights=str(weights)).may_know_subjects


def test_a_cross_validation_is_not_resumed_from_other_start_weights(crossvalidation):
    """The record had their path alone: the folds after an interruption started from others."""
    weights = crossvalidation.out.parent / "start.ckpt"
    weights.write_bytes(b"1")
    crossvalidation(classifier_weights=str(weights))
    weights.write_bytes(b"2")
    with pytest.raises(CascadeError, match=r"\(start\)"):
        crossvalidation(classifier_weights=str(weights))
    weights.unlink()
    crossvalidation(classifier_weights=str(weights))  # finished, or begun: the weights are not needed any more


def test_too_few_folds_are_told_before_anything_is_recorded(crossvalidation):
    """The next call with fewer folds was refused, since the folder held another cross-validation."""
    with pytest.raises(CascadeError, match="too few subjects"):
        crossvalidation(folds=40)
    assert not crossvalidation.out.exists()
    with pytest.raises(CascadeError, match="too few external subjects"):
        crossvalidation(folds=2, external=negatives(0)[:3])
    assert not crossvalidation.out.exists()


def test_both_trainings_need_a_validation_subset(crossvalidation, tmp_path):
    """Without one, the export failed after the training of the segmenter."""
    split_file = tmp_path / "all.json"
    write_split(train_on_all(read_split(crossvalidation.split_file)), split_file, seed=0)
    settings = PipelineSettings(SegmenterSettings(), ClassifierSettings())
    with pytest.raises(CascadeError, match="validation subset is empty"):
        train_pipeline(tmp_path, split_file, tmp_path / "out", settings, subset="test", evaluation=tmp_path / "e")
    assert crossvalidation.done == []


def test_missing_start_weights_are_an_error_before_any_training(crossvalidation, monkeypatch):
    """The error came after the training of the segmenter, and other weights were not accepted then."""
    monkeypatch.setattr(train.pipeline, "start_tensors", start_tensors)
    with pytest.raises(CascadeError, match="there is no such file of weights"):
        crossvalidation(classifier_weights="missing.ckpt")
    assert crossvalidation.done == []
    assert crossvalidation(classifier_weights="none").metrics.slices == 72
