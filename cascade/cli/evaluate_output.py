"""The metrics of an evaluation as tables for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cascade.cli.console import printable
from cascade.discovery.inputs import PROBLEMS_SHOWN
from cascade.evaluation.figures import ACCURACIES, number


def metrics_table(metrics: dict[str, Any]) -> RenderableType:
    """What metrics.json says in most detail about, in brief: masks, classes, and which stage errs."""
    return Group(
        *(_masks(metrics), _accuracies(metrics), _classes(metrics), _confusion(metrics)),
        *_false_alarms(metrics["presence"]),
        _footnote(metrics),
        _not_used(metrics["failed"]["problems"]),
    )


def _masks(metrics: dict[str, Any]) -> Table:
    table = _table("Masks", ("slices", "patients", "Dice (95 % CI)", "median", "empty", "IoU", "HD95 mm"))
    sizes = {f"{name} tumors": group for name, group in metrics["by_size"].items()}
    for name, group in {"all": metrics, **metrics["by_class"], **sizes}.items():
        dice, iou = group["dice"], group["iou"]
        table.add_row(
            *(name, str(group["slices"]), str(group["patients"]), with_interval(dice["mean"], dice["ci95"])),
            *(number(dice["median"]), percent(dice["empty_share"]), number(iou["mean"])),
            number(group["hausdorff95_mm"]["mean"], digits=1),
        )
    return table


def _accuracies(metrics: dict[str, Any]) -> Table:
    columns = ("accuracy (95 % CI)", "balanced", "macro F1", "macro AUC")
    table = _table("Classes, by the mask that the classifier is shown", columns)
    for key, shown in ACCURACIES.items():
        accuracy, others = metrics["accuracy"][key], (metrics[name][key] for name in ("balanced_accuracy", "macro_f1"))
        table.add_row(
            *(shown, with_interval(accuracy["value"], accuracy["ci95"])),
            *(number(figure["value"]) for figure in others),
            number(metrics["macro_auc"][key]),
        )
    return table


def _classes(metrics: dict[str, Any]) -> Table:
    table = _table("Classes with the predicted mask, by slice", ("precision", "recall", "F1", "AUC"))
    for name, figures in metrics["by_class"].items():
        table.add_row(name, *(number(figures[key]) for key in ("precision", "recall", "f1", "auc")))
    return table


def _confusion(metrics: dict[str, Any]) -> Table:
    matrix = metrics["confusion_matrix"]
    table = _table("How many slices of each class are called what", tuple(matrix["columns"]))
    for name, row in zip(matrix["rows"], matrix["slices"], strict=True):
        table.add_row(name, *map(str, row))
    return table


def _false_alarms(presence: dict[str, Any] | None) -> list[Table]:
    """A table where there are folders to compare."""
    if not presence or len(presence["by_folder"]) < 2:
        return []
    table = _table("Tumor-free slices, by folder", ("slices", "a tumor seen"))
    for name, group in presence["by_folder"].items():
        table.add_row(Text(printable(name) or "(in none)"), str(group["slices"]), percent(group["false_alarms"]))
    return [table]


def _footnote(metrics: dict[str, Any]) -> str:
    right, by_patient = metrics["right_with"], metrics["dice"]["by_patient"]
    lines = [
        f"Dice where every patient counts alike: {with_interval(by_patient['mean'], by_patient['ci95'])}.",
        f"Slices wrong only since the predicted mask differs from the true one: {right['true_mask_only']}. "
        f"Wrong with either: {right['neither']}.",
        f"Expected calibration error: {number(metrics['reliability']['expected_calibration_error'])}. "
        "CI: bootstrap over patients.",
    ]
    uncertain = metrics["uncertain"]
    if uncertain["below"]:
        lines.append(
            f"Without those stated with less than {number(uncertain['below'])}, {percent(uncertain['coverage'])} of "
            f"the slices are left, and of these {percent(uncertain['accuracy_of_the_rest'])} right."
        )
    if metrics["presence"]:
        lines += _presence(metrics["presence"])
    if not metrics["models_trained_on_this_split"]:
        why = "no split was given" if metrics["split_sha256"] is None else "their records name another split"
        lines.append(
            f"The models may have been trained on these very patients, for all that is known here: {why}. "
            "Only of people in no training do these figures tell anything."
        )
    return "\n".join(lines)


def _not_used(problems: Sequence[str]) -> Text:
    lines = [f"not used: {printable(problem)}" for problem in problems[:PROBLEMS_SHOWN]]
    if len(problems) > PROBLEMS_SHOWN:
        lines.append(f"and {len(problems) - PROBLEMS_SHOWN:,} more, which metrics.json names")
    return Text("\n".join(lines), style="red", end="\n" if lines else "")


def _presence(figures: dict[str, Any]) -> list[str]:
    at = figures["at_sensitivity"]
    return [
        f"Tumors found: {percent(figures['sensitivity'])}. A tumor seen in {percent(figures['false_alarms'])} of "
        f"{figures['tumor_free_slices']} tumor-free slices, a large one in {percent(figures['large_false_alarms'])}.",
        f"To find {percent(at['least'])} of the tumors: threshold {number(at['threshold'])}, "
        f"false alarms {percent(at['false_alarms'])}.",
    ]


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table("", title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def with_interval(value: float | None, bounds: list[float] | None) -> str:
    return number(value) if bounds is None else f"{number(value)} ({interval(bounds)})"


def interval(bounds: Sequence[float | None]) -> str:
    return "-".join(map(number, bounds))
