"""Tables that `cascade evaluate` prints."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cascade.cli.console import printable
from cascade.discovery.inputs import PROBLEMS_SHOWN
from cascade.evaluation.figures import ACCURACIES, format_number
from cascade.evaluation.schema import Detection, Estimate, Evaluation, Interval, MaskMetrics, Metrics
from cascade.evaluation.volume_schema import VolumeEvaluation, VolumeMetrics


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """Return the main results of an evaluation as tables, with warnings and failed slices below."""
    return Group(
        metrics_table(evaluation.metrics, evaluation.detection),
        *_training_warning(evaluation),
        problems_text(evaluation.failed.problems),
    )


def volume_evaluation_table(evaluation: VolumeEvaluation) -> RenderableType:
    """Return the main results of an evaluation of volumes as tables, with a warning and failed volumes below."""
    metrics = evaluation.metrics
    matrix = metrics.confusion_matrix
    return Group(
        _volumes(metrics),
        _confusion("volumes", matrix.rows, matrix.columns, matrix.volumes),
        "\n".join(_volume_notes(metrics)),
        training_warning("no split was given"),
        problems_text(evaluation.failed.problems),
    )


def metrics_table(metrics: Metrics, detection: Detection | None = None) -> RenderableType:
    """Return the main metrics as tables: masks, classes and detection."""
    matrix = metrics.confusion_matrix
    confusion = _confusion("slices", matrix.rows, matrix.columns, matrix.slices)
    tables = [_masks(metrics), _accuracies(metrics), _classes(metrics), confusion]
    if detection and len(detection.by_folder) > 1:
        tables.append(_false_positives(detection))
    return Group(*tables, "\n".join(_notes(metrics) + (_detection_notes(detection) if detection else [])))


def problems_text(problems: Sequence[str]) -> Text:
    """Return the problems of slices or volumes that were not used, one in a line; of many problems the first."""
    lines = [f"not used: {printable(problem)}" for problem in problems[:PROBLEMS_SHOWN]]
    if len(problems) > PROBLEMS_SHOWN:
        lines.append(f"and {len(problems) - PROBLEMS_SHOWN:,} more, listed in metrics.json")
    return Text("\n".join(lines), style="red", end="\n" if lines else "")


def _masks(metrics: Metrics) -> Table:
    table = _table("Masks", ("slices", "subjects", "Dice (95 % CI)", "median", "missed", "IoU", "HD95 mm"))
    sizes = {f"{name} tumors": group for name, group in metrics.by_size.items()}
    groups: dict[str, MaskMetrics] = {"all": metrics, **metrics.by_class, **sizes}
    for name, group in groups.items():
        table.add_row(
            name,
            str(group.slices),
            str(group.subjects),
            _with_interval(group.dice.mean, group.dice.ci95),
            format_number(group.dice.median),
            _percent(group.dice.missed_fraction),
            format_number(group.iou.mean),
            format_number(group.hausdorff95_mm.mean, digits=1),
        )
    return table


def _accuracies(metrics: Metrics) -> Table:
    columns = ("accuracy (95 % CI)", "balanced", "macro F1", "macro AUC")
    table = _table("Classes, by the mask that the classifier receives", columns)
    for key, label in ACCURACIES.items():
        table.add_row(
            label,
            _estimate(metrics.accuracy[key]),
            format_number(metrics.balanced_accuracy[key].value),
            format_number(metrics.macro_f1[key].value),
            format_number(metrics.macro_auc[key]),
        )
    return table


def _classes(metrics: Metrics) -> Table:
    table = _table("Classes with the predicted mask, by slice", ("precision", "recall", "F1", "AUC"))
    for name, group in metrics.by_class.items():
        table.add_row(name, *map(format_number, (group.precision, group.recall, group.f1, group.auc)))
    return table


def _confusion(unit: str, rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    table = _table(f"Confusion matrix of {unit}: true class by row, predicted class by column", columns)
    for name, row in zip(rows, counts, strict=True):
        table.add_row(name, *map(str, row))
    return table


def _false_positives(detection: Detection) -> Table:
    table = _table("Negatives by folder", ("slices", "false positives"))
    for name, folder in detection.by_folder.items():
        table.add_row(Text(printable(name) or "(no folder)"), str(folder.slices), _percent(folder.false_positive_rate))
    return table


def _notes(metrics: Metrics) -> list[str]:
    correct_with, rejection = metrics.correct_with, metrics.rejection
    notes = [
        f"Dice averaged over subjects: {_estimate(metrics.dice.by_subject)}.",
        f"Slices classified correctly only with the true mask: {correct_with.true_mask_only}; "
        f"wrongly with both masks: {correct_with.neither}.",
        f"Expected calibration error: {format_number(metrics.reliability.expected_calibration_error)}. "
        "CI: bootstrap over subjects.",
    ]
    if rejection.threshold:
        notes.append(
            f"Without slices of a probability below {format_number(rejection.threshold)}: coverage "
            f"{_percent(rejection.coverage)}, accuracy {_percent(rejection.accuracy)}."
        )
    return notes


def _detection_notes(detection: Detection) -> list[str]:
    point = detection.operating_point
    return [
        f"Tumor detection: sensitivity {_percent(detection.sensitivity)}. False positives on {detection.negatives} "
        f"negatives: {_percent(detection.false_positive_rate)}, large ones "
        f"{_percent(detection.large_false_positive_rate)}.",
        f"For a sensitivity of at least {_percent(point.min_sensitivity)}: threshold {format_number(point.threshold)}, "
        f"sensitivity {_percent(point.sensitivity)}, false positives {_percent(point.false_positive_rate)}.",
    ]


def _volumes(metrics: VolumeMetrics) -> Table:
    columns = ("volumes", "subjects", "Dice (95 % CI)", "found", "class", "error ml")
    table = _table("Volumes with a tumor: Dice in 3-D, findings, correct classes and volume", columns)
    for name, group in {"all": metrics.tumor, **metrics.by_class}.items():
        table.add_row(
            name,
            str(group.volumes),
            str(group.subjects),
            _with_interval(group.dice.mean, group.dice.ci95),
            _percent(group.sensitivity.value),
            _percent(group.accuracy.value),
            format_number(group.volume_error_ml.mean, digits=1),
        )
    return table


def _volume_notes(metrics: VolumeMetrics) -> list[str]:
    tumor, free = metrics.tumor, metrics.tumor_free
    return [
        f"Sensitivity: {_estimate(tumor.sensitivity)}; where the mask touches the tumor: "
        f"{_estimate(tumor.localized_sensitivity)}. Class accuracy: {_estimate(tumor.accuracy)}.",
        f"Volumes without a tumor: {free.volumes}; with a false positive: {_estimate(free.false_positive_rate)}. "
        f"False-positive components per head, over all volumes: {_estimate(metrics.false_positives_per_head)}.",
        f"Median Dice: {format_number(tumor.dice.median)}. "
        f"Mean absolute error of the volume: {format_number(tumor.volume_error_ml.mean_absolute, digits=1)} ml. "
        f"Uncertain findings: {_percent(metrics.uncertain_fraction)}. CI: bootstrap over subjects.",
    ]


def _training_warning(evaluation: Evaluation) -> list[str]:
    if evaluation.subset == "train":
        return [training_warning("the subset is train")]
    if evaluation.models_trained_on_this_split:
        return []
    reason = "no split was given" if evaluation.split_sha256 is None else "their records name another split"
    return [training_warning(reason)]


def training_warning(reason: str) -> str:
    """Say that models may know the patients they are tested on, and why."""
    return (
        f"The models may have been trained on these patients: {reason}. "
        "These metrics are meaningful only for patients that were not used in training."
    )


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table("", title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _estimate(estimate: Estimate) -> str:
    return _with_interval(estimate.value, estimate.ci95)


def _with_interval(value: float | None, ci95: Interval | None) -> str:
    return format_number(value) if ci95 is None else f"{format_number(value)} ({'-'.join(map(format_number, ci95))})"
