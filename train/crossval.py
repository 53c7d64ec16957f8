"""Cross-validation by subject: each subject is tested once, by models that were trained without it.

One split of so few subjects has wide intervals. Each fold is an ordinary training in a folder of its own. Finished
steps are not repeated. External subjects are distributed over the folds in the same way.
"""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Group, RenderableType

from cascade.cli.evaluate_output import metrics_table
from cascade.datasets.figshare import person
from cascade.datasets.split import make_folds, read_split, write_split
from cascade.evaluation.figures import charts, number
from cascade.evaluation.scores import ScoredSlice, as_csv, from_csv
from cascade.evaluation.summary import summarise
from cascade.files import write_atomically
from train import external_evaluation
from train.dataset import SliceStore
from train.external import ExternalStore, external_folds
from train.external_evaluation import ExternalScore, external_table, score_external, score_restyled, summarize
from train.pipeline import PipelineSettings, prepare_pipeline, train_pipeline


def crossvalidate(folder: Path, split_file: Path, out: Path, folds: int, settings: PipelineSettings) -> dict[str, Any]:
    """Train and test both models fold by fold; continue where an earlier call ended.

    Leaves crossval.json, charts, slices.csv and external.csv in `out`, and each fold's own results in a folder.

    Args:
        folder: The data set.
        split_file: Names the slices and their hashes; its parts are not used.
        out: Folder for all results.
        folds: Number of folds.
        settings: Settings of both trainings. The parts of the external slices are not used.

    Returns:
        The figures over all folds.

    Raises:
        CascadeError: `out` holds another cross-validation, or there are too few subjects.
    """
    record = prepare_pipeline(out, split_file, settings, folds=folds)
    metrics, scored, external_scores = [], [], []
    split_of_fold = make_folds(read_split(split_file), folds)
    external_of_fold = external_folds(settings.external, folds)
    for number_, (fold, external) in enumerate(zip(split_of_fold, external_of_fold, strict=True)):
        fold_dir = out / f"fold-{number_}"
        fold_file, evaluation = fold_dir / "split.json", fold_dir / "evaluation"
        if not fold_file.exists():
            write_split(fold, fold_file, seed=0)
        fold_settings = replace(settings, external=external)
        metrics.append(train_pipeline(folder, fold_file, fold_dir, fold_settings, subset="test", evaluation=evaluation))
        scored += _scored(evaluation)
        if external:
            external_scores += _external_scores(folder, fold_file, fold_dir, fold_settings)
    figures = _figures(scored, metrics)
    figures["external"] = summarize(external_scores)
    files = charts(figures, scored)
    files["slices.csv"] = as_csv(scored).encode()
    files["external.csv"] = external_evaluation.as_csv(external_scores).encode()
    files["crossval.json"] = json.dumps({**record, **figures}, indent=1, allow_nan=False).encode()
    for name, content in files.items():
        write_atomically(out / name, content)
    return figures


def _scored(evaluation: Path) -> list[ScoredSlice]:
    with (evaluation / "slices.csv").open(newline="") as lines:
        return from_csv(lines)


def _external_scores(folder: Path, fold_file: Path, fold_dir: Path, settings: PipelineSettings) -> list[ExternalScore]:
    """Score the fold's external test slices and its own restyled test slices, or read the scores of an earlier call."""
    file = fold_dir / "external.csv"
    if not file.exists():
        models = fold_dir / "models"
        scores = score_external(models, [item for item in settings.external if item.part == "test"])
        items = read_split(fold_file).part("test")
        styles = ExternalStore([item for item in settings.external if item.part == "train"], "reading external slices")
        subjects = [person(item.patient) for item in items]
        scores += score_restyled(models, SliceStore(folder, items, "reading test"), subjects, styles)
        write_atomically(file, external_evaluation.as_csv(scores).encode())
    with file.open(newline="") as lines:
        return external_evaluation.from_csv(lines)


def _figures(scored: list[ScoredSlice], folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Compute the metrics over all slices, and keep some of each fold, in order."""
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
    """The metrics as `cascade evaluate` shows them, the spread of the folds, and the external slices."""
    spread = (
        f"{name.replace('_', ' ')} {number(mean(values))} ± {number(stdev(values))}"
        for name, values in figures["by_fold"].items()
    )
    parts: list[RenderableType] = [
        metrics_table(figures),
        f"Over the folds, mean ± standard deviation: {', '.join(spread)}.",
    ]
    if figures["external"]:
        parts.append(external_table(figures["external"]))
    return Group(*parts)
