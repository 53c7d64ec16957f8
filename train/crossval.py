"""Cross-validation by person: everyone is tested once, by models that were trained without them.

One split of so few people has wide intervals. Each fold is a training as any other, in a folder of its own, and what a
fold has finished is not done again.
"""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Group, RenderableType

from cascade.cli.evaluate_output import metrics_table
from cascade.datasets.split import make_folds, read_split, write_split
from cascade.evaluation.figures import charts, number
from cascade.evaluation.scores import ScoredSlice, as_csv, from_csv
from cascade.evaluation.summary import summarise
from cascade.files import write_atomically
from train.both import begin_or_go_on, train_both
from train.classifier import ClassifierSettings
from train.segmenter import SegmenterSettings


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
    settings = begin_or_go_on(out, split_file, segmenter, classifier, healthy, folds=folds)
    evaluations = [out / f"fold-{index}" / "evaluation" for index in range(folds)]
    metrics = []
    for fold, evaluation in zip(make_folds(read_split(split_file), folds), evaluations, strict=True):
        fold_file = evaluation.parent / "split.json"
        if not fold_file.exists():
            write_split(fold, fold_file, seed=0)
        metrics.append(
            train_both(
                *(folder, fold_file, evaluation.parent, segmenter, classifier, healthy),
                part="test",
                evaluation=evaluation,
            )
        )
    scored = [item for evaluation in evaluations for item in _scored(evaluation)]
    figures = _figures(scored, metrics)
    files = charts(figures, scored)
    files["slices.csv"] = as_csv(scored).encode()
    files["crossval.json"] = json.dumps({**settings, **figures}, indent=1, allow_nan=False).encode()
    for name, content in files.items():
        write_atomically(out / name, content)
    return figures


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
