"""Cross-validation by person: everyone is tested once, by models that were trained without them.

One split of so few people has wide intervals. Each fold is a training as any other, in a folder of its own, and what a
fold has finished is not done again.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from rich.console import Group, RenderableType

from cascade.cli.evaluate_output import metrics_table, problems_text
from cascade.datasets.split import make_folds, read_split, write_split
from cascade.evaluation.figures import charts, format_number
from cascade.evaluation.schema import Evaluation, Failures, Metrics
from cascade.evaluation.scores import ScoredSlice, from_csv, to_csv
from cascade.evaluation.summary import summarize
from cascade.files import write_atomically
from train.both import begin_or_go_on, train_both
from train.classifier import ClassifierSettings
from train.segmenter import SegmenterSettings


@dataclass(frozen=True)
class CrossValidation:
    """Result of a cross-validation.

    Attributes:
        metrics: Metrics of the slices of all folds; its fields are keys of crossval.json themselves.
        failed: Slices that could not be evaluated.
        by_fold: Mean Dice, accuracy and balanced accuracy with the predicted mask, one value for each fold.
    """

    metrics: Metrics
    failed: Failures
    by_fold: dict[str, tuple[float | None, ...]]


def crossvalidate(
    folder: Path,
    split_file: Path,
    out: Path,
    folds: int,
    segmenter: SegmenterSettings,
    classifier: ClassifierSettings,
    healthy: Path | None = None,
) -> CrossValidation:
    """The figures over all folds; goes on where an earlier call was ended.

    Leaves them in `out` as crossval.json and charts, with slices.csv, and each fold's own in folders.

    split_file  says which slices there are, and their hashes; its parts are not used.

    Raises CascadeError where `out` holds another cross-validation.
    """
    settings = begin_or_go_on(out, split_file, segmenter, classifier, healthy, folds=folds)
    evaluations = [out / f"fold-{index}" / "evaluation" for index in range(folds)]
    folds_evaluated = []
    for fold, evaluation in zip(make_folds(read_split(split_file), folds), evaluations, strict=True):
        fold_file = evaluation.parent / "split.json"
        if not fold_file.exists():
            write_split(fold, fold_file, seed=0)
        folds_evaluated.append(
            train_both(
                *(folder, fold_file, evaluation.parent, segmenter, classifier, healthy),
                part="test",
                evaluation=evaluation,
            )
        )
    scored = [item for evaluation in evaluations for item in _scored(evaluation)]
    result = _combine(scored, folds_evaluated)
    files = charts(result.metrics, scored)
    files["slices.csv"] = to_csv(scored).encode()
    record = {**settings, **asdict(result.metrics), "failed": asdict(result.failed), "by_fold": result.by_fold}
    files["crossval.json"] = json.dumps(record, indent=1, allow_nan=False).encode()
    for name, content in files.items():
        write_atomically(out / name, content)
    return result


def _scored(evaluation: Path) -> list[ScoredSlice]:
    with (evaluation / "slices.csv").open(newline="") as lines:
        return from_csv(lines)


def _combine(scored: list[ScoredSlice], folds: list[Evaluation]) -> CrossValidation:
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
    )


def crossval_table(result: CrossValidation) -> RenderableType:
    """Return the metrics as `cascade evaluate` prints them, with mean and standard deviation over the folds."""
    spread = (
        f"{name.replace('_', ' ')} {format_number(mean(values))} ± {format_number(stdev(values))}"
        for name, values in result.by_fold.items()
    )
    return Group(
        metrics_table(result.metrics),
        problems_text(result.failed.problems),
        f"Over the folds, mean ± standard deviation: {', '.join(spread)}.",
    )
