"""Cross-validation: who is tested when, what is done again after an end, and what the figures are of."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

import train.crossval
from cascade.contract import CLASS_NAMES
from cascade.errors import CascadeError
from cascade.split import Split, SplitSlice, _digest, read_split, write_split
from train.classifier import ClassifierSettings
from train.crossval import crossvalidate, pooled
from train.segmenter import SegmenterSettings

COLUMNS = ("patient", "label", "predicted", "dice", "predicted_area_px", "predicted_with_true_mask")


def row(patient, label, predicted, dice, sure=0.8, with_true=None):
    names = ("meningioma", "glioma", "pituitary tumor")
    stated = {f"probability {name}": sure if name == predicted else (1 - sure) / 2 for name in names}
    if predicted == "none":
        stated = dict.fromkeys(stated, "")
    values = (patient, label, predicted, dice, 0 if predicted == "none" else 100, with_true or label)
    return {name: str(value) for name, value in {**dict(zip(COLUMNS, values, strict=True)), **stated}.items()}


def test_the_figures_are_over_all_slices_and_people():
    rows = [
        row("1", "glioma", "glioma", 0.9),
        row("1", "glioma", "meningioma", 0.5, sure=0.5),
        row("2", "meningioma", "none", 0.0, with_true="glioma"),
        row("3", "meningioma", "meningioma", 0.0),
    ]
    figures = pooled(rows)
    assert (figures["slices"], figures["people"]) == (4, 3)
    assert figures["dice"]["mean"] == pytest.approx(0.35)
    assert figures["missed_share"] == 0.5
    assert figures["empty_share"] == 0.25
    assert figures["accuracy"]["predicted_mask"]["value"] == 0.5
    assert figures["accuracy"]["true_mask"]["value"] == 0.75
    assert figures["accuracy"]["by_patient"]["value"] == pytest.approx(2 / 3)
    assert figures["by_class"]["glioma"] == {"slices": 2, "dice": pytest.approx(0.7), "recall": 0.5}
    assert "pituitary tumor" not in figures["by_class"]
    low, high = figures["dice"]["ci95"]
    assert 0 <= low < 0.35 < high <= 0.7


@pytest.fixture
def crossvalidation(tmp_path, monkeypatch):
    """run(**changes) → figures of 36 people with 2 slices each; `done` lists the trainings, which only pretend."""
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

    def export(name, run, folder, split_file, models):
        table = models / "models.json"
        models.mkdir(exist_ok=True)
        table.write_text(json.dumps((json.loads(table.read_text()) if table.exists() else {}) | {name: {}}))

    def evaluate(folder, *, split_file, part, out, **options):
        out.mkdir()
        records = read_split(split_file).part(part)
        with (out / "slices.csv").open("w", newline="") as lines:
            rows = [row(item.patient, item.label, item.label, 1.0) for item in records]
            writer = csv.DictWriter(lines, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        (out / "metrics.json").write_text("{}")

    for name, stand_in in {
        "train_segmenter": pretend,
        "train_classifier": pretend,
        "export_model": export,
        "evaluate": evaluate,
    }.items():
        monkeypatch.setattr(train.crossval, name, stand_in)

    monkeypatch.setattr(train.crossval, "read_healthy", lambda folder: torch.tensor(float(folder.name)))

    def run(folds=3, healthy=None, **changes):
        settings = SegmenterSettings(**changes), ClassifierSettings()
        return crossvalidate(tmp_path, split_file, tmp_path / "out", folds, *settings, healthy)

    run.done, run.out = done, tmp_path / "out"
    return run


def test_everyone_is_tested_once_and_never_by_models_that_saw_them(crossvalidation):
    figures = crossvalidation()
    assert figures["slices"] == 72
    assert figures["people"] == 36
    folds = [read_split(crossvalidation.out / f"fold-{number}" / "split.json") for number in range(3)]
    tested = [item.path for fold in folds for item in fold.part("test")]
    assert len(tested) == len(set(tested)) == 72
    assert all(len(fold.part("test")) == 24 and len(fold.part("validation")) == 12 for fold in folds)
    assert len(crossvalidation.done) == 6
    assert json.loads((crossvalidation.out / "crossval.json").read_text())["dice"]["mean"] == 1


def test_it_goes_on_where_it_was_ended(crossvalidation):
    out = crossvalidation.out
    crossvalidation()
    (out / "fold-2" / "evaluation" / "metrics.json").unlink()
    (out / "fold-2" / "evaluation" / "slices.csv").unlink()
    (out / "fold-2" / "evaluation").rmdir()
    (out / "fold-2" / "models" / "models.json").write_text('{"segmenter": {}}')
    crossvalidation.done.clear()
    crossvalidation()
    assert crossvalidation.done == [("fold-2/classifier", True)]


def test_another_cross_validation_is_not_mixed_in(crossvalidation):
    crossvalidation()
    with pytest.raises(CascadeError, match="of other settings"):
        crossvalidation(epochs=3)


def test_nor_is_one_of_other_healthy_heads(crossvalidation):
    """Only that there were some was kept."""
    crossvalidation(healthy=Path("1"))
    with pytest.raises(CascadeError, match="of other settings"):
        crossvalidation(healthy=Path("2"))


def test_too_few_people_for_the_folds_are_told(crossvalidation):
    with pytest.raises(CascadeError, match="too few people for 40 folds"):
        crossvalidation(folds=40)
