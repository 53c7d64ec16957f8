"""Cross-validation by person: everyone is tested once, by models that were trained without them.

One split of so few people has wide intervals. Each fold is a training as any other, in a folder of its own, and what a
fold has finished is not done again.
"""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cascade.contract import CLASS_NAMES
from cascade.engines import ENGINES
from cascade.errors import CascadeError
from cascade.evaluate import evaluate
from cascade.evaluation.bootstrap import PatientBootstrap
from cascade.evaluation.metrics import NONE, chosen
from cascade.figshare import person
from cascade.files import write_atomically
from cascade.graphs import CLASSIFIER, SEGMENTER
from cascade.split import Split, make_folds, read_split, write_split
from train.classifier import ClassifierSettings, train_classifier
from train.dataset import read_healthy, sha256_of_tensor
from train.export import export_model
from train.segmenter import SegmenterSettings, train_segmenter


def crossvalidate(
    folder: Path,
    split_file: Path,
    out: Path,
    folds: int,
    segmenter: SegmenterSettings,
    classifier: ClassifierSettings,
    healthy: Path | None = None,
) -> dict[str, Any]:
    """The figures over all folds, also in `out`/crossval.json; goes on where an earlier call was ended.

    split_file  says which slices there are, and their hashes; its parts are not used.

    Raises CascadeError where `out` holds another cross-validation.
    """
    settings = {
        "split_sha256": read_split(split_file).sha256,
        "folds": folds,
        "healthy_sha256": sha256_of_tensor(read_healthy(healthy)) if healthy else None,
        "segmenter": asdict(segmenter),
        "classifier": asdict(classifier),
    }
    record = out / "settings.json"
    if not record.exists():
        write_atomically(record, json.dumps(settings, indent=1).encode())
    elif json.loads(record.read_text()) != settings:
        raise CascadeError(
            f"{out}: holds a cross-validation of other settings or slices", fix="name another folder with --out"
        )
    rows = []
    for number, fold in enumerate(make_folds(read_split(split_file), folds)):
        here = out / f"fold-{number}"
        if not (here / "evaluation" / "metrics.json").exists():
            _run_fold(folder, fold, here, segmenter, classifier, healthy)
        with (here / "evaluation" / "slices.csv").open(newline="") as lines:
            rows += list(csv.DictReader(lines))
    figures = pooled(rows)
    write_atomically(out / "crossval.json", json.dumps({**settings, **figures}, indent=1).encode())
    return figures


def _run_fold(
    folder: Path,
    fold: Split,
    here: Path,
    segmenter: SegmenterSettings,
    classifier: ClassifierSettings,
    healthy: Path | None,
) -> None:
    split_file, models = here / "split.json", here / "models"
    if not split_file.exists():
        write_split(fold, split_file, seed=0)
    table = models / "models.json"
    if not table.exists():
        run = here / SEGMENTER
        train_segmenter(folder, split_file, run, segmenter, healthy=healthy, resume=(run / "last.ckpt").exists())
        export_model(SEGMENTER, run, folder, split_file, models)
    if CLASSIFIER not in json.loads(table.read_text()):
        run = here / CLASSIFIER
        train_classifier(folder, split_file, models, run, classifier, resume=(run / "last.ckpt").exists())
        export_model(CLASSIFIER, run, folder, split_file, models)
    evaluate(
        folder,
        split_file=split_file,
        part="test",
        models=models,
        backend="onnxruntime",
        engines=ENGINES,
        batch_size=8,
        out=here / "evaluation",
    )


def pooled(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Of the rows of all folds' slices.csv: figures over all slices, with intervals from a bootstrap over people."""
    bootstrap = PatientBootstrap([person(row["patient"]) for row in rows])
    labels = np.array([CLASS_NAMES.index(row["label"]) for row in rows])
    dice = np.array([float(row["dice"]) for row in rows])
    empty = np.array([row["predicted_area_px"] == "0" for row in rows])
    right = {
        "predicted_mask": np.array([row["predicted"] == row["label"] for row in rows], dtype=float),
        "true_mask": np.array([row["predicted_with_true_mask"] == row["label"] for row in rows], dtype=float),
    }
    stated = np.array([[float(row[f"probability {name}"] or 0) for name in CLASS_NAMES] for row in rows])
    people_labels = bootstrap.by_patient(np.eye(NONE)[labels]).argmax(1)
    people_right = chosen(bootstrap.by_patient(stated)) == people_labels
    return {
        "slices": len(rows),
        "people": len(bootstrap.people),
        "dice": {"mean": float(dice.mean()), "median": float(np.median(dice)), "ci95": bootstrap.mean_interval(dice)},
        "missed_share": float((dice == 0).mean()),
        "empty_share": float(empty.mean()),
        "accuracy": {
            **{
                name: {"value": float(values.mean()), "ci95": bootstrap.mean_interval(values)}
                for name, values in right.items()
            },
            "by_patient": {"value": float(people_right.mean())},
        },
        "by_class": {
            name: {
                "slices": int((labels == index).sum()),
                "dice": float(dice[labels == index].mean()),
                "recall": float(right["predicted_mask"][labels == index].mean()),
            }
            for index, name in enumerate(CLASS_NAMES)
            if (labels == index).any()
        },
    }
