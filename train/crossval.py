"""Cross-validation by person: everyone is tested once, by models that were trained without them.

One split of so few people has wide intervals. Each fold is a training as any other, in a folder of its own, and what a
fold has finished is not done again.
"""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Group, RenderableType

from cascade.engines import ENGINES
from cascade.errors import CascadeError
from cascade.evaluate import evaluate, metrics_table
from cascade.evaluation.figures import charts
from cascade.evaluation.slices import ScoredSlice, as_csv, from_csv
from cascade.evaluation.summary import summarise
from cascade.evaluation.table import number
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
    """The figures over all folds; goes on where an earlier call was ended.

    Leaves them in `out` as crossval.json and charts, with slices.csv, and each fold's own in folders.

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
    evaluations = [out / f"fold-{index}" / "evaluation" for index in range(folds)]
    for fold, evaluation in zip(make_folds(read_split(split_file), folds), evaluations, strict=True):
        if not (evaluation / "metrics.json").exists():
            _run_fold(folder, fold, evaluation.parent, segmenter, classifier, healthy)
    scored = [item for evaluation in evaluations for item in _scored(evaluation)]
    figures = _figures(scored, [json.loads((evaluation / "metrics.json").read_text()) for evaluation in evaluations])
    files = charts(figures, scored)
    files["slices.csv"] = as_csv(scored).encode()
    files["crossval.json"] = json.dumps({**settings, **figures}, indent=1, allow_nan=False).encode()
    for name, content in files.items():
        write_atomically(out / name, content)
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


def _scored(evaluation: Path) -> list[ScoredSlice]:
    with (evaluation / "slices.csv").open(newline="") as lines:
        return from_csv(lines)


def _figures(scored: list[ScoredSlice], folds: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics of an evaluation over all slices, and some of those of each fold, in order."""
    problems = [problem for fold in folds for problem in fold["failed"]["problems"]]
    return {
        **summarise(scored),
        "presence": None,
        "models_trained_on_this_split": True,
        "failed": {"slices": len(problems), "problems": problems},
        "by_fold": {
            "dice": [fold["dice"]["mean"] for fold in folds],
            **{
                name: [fold[name]["predicted_mask"]["value"] for fold in folds]
                for name in ("accuracy", "balanced_accuracy")
            },
        },
    }


def crossval_table(figures: dict[str, Any]) -> RenderableType:
    """As `cascade evaluate` shows its metrics, and how the folds differ, as publications give it."""
    spread = (
        f"{name.replace('_', ' ')} {number(mean(values))} ± {number(stdev(values))}"
        for name, values in figures["by_fold"].items()
    )
    return Group(metrics_table(figures), f"Over the folds, mean ± standard deviation: {', '.join(spread)}.")
