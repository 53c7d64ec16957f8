"""Cross-validation by subject: each subject is tested once, by models that were trained without it.

One split of so few subjects has wide intervals. Each fold is an ordinary training in a folder of its own. Finished
steps are not repeated. External subjects are distributed over the folds in the same way.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Group, RenderableType

from cascade.cli.evaluate_output import metrics_table, problems_text, training_warning
from cascade.datasets.figshare import subject_id
from cascade.datasets.split import make_folds, read_split, write_split
from cascade.evaluation.figures import charts, format_number
from cascade.evaluation.schema import Evaluation, Failures, Metrics
from cascade.evaluation.scores import ScoredSlice, from_csv, to_csv
from cascade.evaluation.summary import summarize
from cascade.files import write_atomically
from train import external_evaluation
from train.dataset import SliceStore
from train.external import check_apart, external_folds
from train.external_evaluation import ExternalScore, external_table, score_external, score_restyled
from train.external_store import ExternalStore
from train.pipeline import PipelineSettings, prepare_pipeline, train_pipeline


@dataclass(frozen=True)
class CrossValidation:
    """Result of a cross-validation.

    Attributes:
        metrics: Metrics of the slices of all folds; its fields are keys of crossval.json themselves.
        failed: Slices that could not be evaluated.
        by_fold: Mean Dice, accuracy and balanced accuracy with the predicted mask, one value for each fold.
        external: Rows of `external_evaluation.summarize`.
        may_know_subjects: Whether the weights that the models start from may have learned from tested subjects: they
            were trained on a split, and not only on the train part that is kept.
    """

    metrics: Metrics
    failed: Failures
    by_fold: dict[str, tuple[float | None, ...]]
    external: list[dict[str, Any]]
    may_know_subjects: bool


def crossvalidate(
    folder: Path, split_file: Path, out: Path, folds: int, settings: PipelineSettings, *, keep_train: bool = False
) -> CrossValidation:
    """Train and test both models fold by fold; continue where an earlier call ended.

    Leaves crossval.json, charts, slices.csv and external.csv in `out`, and each fold's own results in a folder.

    Args:
        folder: The data set.
        split_file: Names the slices and their hashes; its parts are not used, except by `keep_train`.
        out: Folder for all results.
        folds: Number of folds.
        settings: Settings of both trainings. The parts of the external slices are not used.
        keep_train: Whether the train part of the split trains in every fold: the weights to start from may have learned
            from these subjects then, but from no external one.

    Returns:
        The metrics over all folds.

    Raises:
        CascadeError: `out` holds another cross-validation, there are too few subjects, or a file of the data set is an
            external slice too.
    """
    split_of_fold = make_folds(read_split(split_file), folds, keep_train=keep_train)
    external_of_fold = external_folds(settings.external, folds)
    for fold, external in zip(split_of_fold, external_of_fold, strict=True):
        check_apart(external, fold)
    record = prepare_pipeline(out, split_file, settings, folds=folds, keep_train=keep_train)
    kept = {record["split_sha256"]} if keep_train else set()
    may_know = any(not kept.issuperset(start["splits"]) for start in record["start"].values() if start)
    evaluations, scored, external_scores = [], [], []
    for index, (fold, external) in enumerate(zip(split_of_fold, external_of_fold, strict=True)):
        fold_dir = out / f"fold-{index}"
        fold_file, evaluation = fold_dir / "split.json", fold_dir / "evaluation"
        if not fold_file.exists():
            write_split(fold, fold_file, seed=0)
        fold_settings = replace(settings, external=external)
        evaluations.append(
            train_pipeline(folder, fold_file, fold_dir, fold_settings, subset="test", evaluation=evaluation)
        )
        scored += _scored(evaluation)
        if external:
            external_scores += _external_scores(folder, fold_file, fold_dir, fold_settings)
    result = _combine(scored, evaluations, external_scores, may_know_subjects=may_know)
    fields = asdict(result)
    metrics = fields.pop("metrics")
    files = charts(result.metrics, scored)
    files["slices.csv"] = to_csv(scored)
    files["external.csv"] = external_evaluation.as_csv(external_scores)
    files["crossval.json"] = json.dumps({**record, **metrics, **fields}, indent=1, allow_nan=False).encode()
    for name, content in files.items():
        write_atomically(out / name, content)
    return result


def _scored(evaluation: Path) -> list[ScoredSlice]:
    return from_csv((evaluation / "slices.csv").read_bytes())


def _external_scores(folder: Path, fold_file: Path, fold_dir: Path, settings: PipelineSettings) -> list[ExternalScore]:
    """Score the fold's external test slices and its own restyled test slices, or read the scores of an earlier call."""
    file = fold_dir / "external.csv"
    if not file.exists():
        models = fold_dir / "models"
        scores = score_external(models, [item for item in settings.external if item.part == "test"])
        items = read_split(fold_file).subset("test")
        styles = ExternalStore([item for item in settings.external if item.part == "train"], "reading external slices")
        subjects = [subject_id(item.patient) for item in items]
        scores += score_restyled(models, SliceStore(folder, items, "reading test"), subjects, styles)
        write_atomically(file, external_evaluation.as_csv(scores))
    return external_evaluation.from_csv(file.read_bytes())


def _combine(
    scored: list[ScoredSlice],
    folds: list[Evaluation],
    external_scores: list[ExternalScore],
    *,
    may_know_subjects: bool,
) -> CrossValidation:
    """Compute the metrics over all slices, and list the main ones of each fold, in order."""
    problems = tuple(problem for fold in folds for problem in fold.failed.problems)
    metrics = [fold.metrics for fold in folds]
    return CrossValidation(
        metrics=summarize(scored),
        failed=Failures(len(problems), problems),
        by_fold={
            "dice": tuple(fold.dice.mean for fold in metrics),
            "accuracy": tuple(fold.accuracy["predicted_mask"].value for fold in metrics),
            "balanced_accuracy": tuple(fold.balanced_accuracy["predicted_mask"].value for fold in metrics),
        },
        external=external_evaluation.summarize(external_scores),
        may_know_subjects=may_know_subjects,
    )


def crossval_table(result: CrossValidation) -> RenderableType:
    """Return the metrics as `cascade evaluate` prints them, the spread of the folds, and the external slices."""
    spread = (
        f"{name.replace('_', ' ')} {format_number(mean(values))} ± {format_number(stdev(values))}"
        for name, values in result.by_fold.items()
    )
    parts: list[RenderableType] = [
        metrics_table(result.metrics),
        problems_text(result.failed.problems),
        f"Over the folds, mean ± standard deviation: {', '.join(spread)}.",
    ]
    if result.may_know_subjects:
        parts.append(training_warning("they start from trained weights"))
    if result.external:
        parts.append(external_table(result.external))
    return Group(*parts)
