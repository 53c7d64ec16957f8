"""How a pair of models does on external slices, by data set: tumors detected, false positives, classes.

    python -m train.external_evaluation MODELS INDEX [--part validation] [--csv FILE]

External masks may be coarse, so there is no Dice: `touched` says how often a predicted mask overlaps the area that
holds the tumor; slices without a mask are left out of it. Intervals are 95 % intervals of a bootstrap over subjects.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cascade.contract import CLASS_NAMES
from cascade.datasets.split import SUBSETS
from cascade.errors import CascadeError
from cascade.evaluation.bootstrap import SubjectBootstrap
from cascade.files import write_atomically
from cascade.pipeline import Cascade
from cascade.tables import read_table, table_bytes
from train.dataset import SliceStore
from train.external import NEGATIVE, ExternalSlice, read_index
from train.external_store import ExternalStore
from train.heads import gray_levels
from train.png import exit_on_cascade_error
from train.restyling import restyle

RESTYLED = "restyled"
"""Name of the set of the data set's own slices with gray values of external ones: see `score_restyled`."""


@dataclass(frozen=True)
class ExternalScore:
    """What the models said of one slice.

    Attributes:
        set_name: Data set.
        subject: Subject.
        label: Class, or `none` for a tumor-free slice.
        detected: Whether a tumor was found.
        touched: Whether the predicted mask overlaps the area that holds the tumor; False for tumor-free slices, None
            for tumors without a mask.
        predicted: The class named; empty where nothing was found.
    """

    set_name: str
    subject: str
    label: str
    detected: bool
    touched: bool | None
    predicted: str


def score_external(models: Path, items: Sequence[ExternalSlice]) -> list[ExternalScore]:
    """Run the models in the folder `models` on external slices (ONNX Runtime)."""
    if not items:
        return []
    cascade, store = Cascade.open(models, "onnxruntime"), ExternalStore(items, "reading external slices")
    scores = []
    for index, item in enumerate(track(items, "predicting external slices", console=Console(stderr=True))):
        prediction = cascade.predict(store.slices[index, 0].float().numpy())
        area = store.targets[index].any(0).numpy()
        scores.append(
            ExternalScore(
                item.set_name,
                item.subject,
                item.label,
                detected=bool(prediction.mask.any()),
                touched=None if item.mask is None and item.label != NEGATIVE else bool((prediction.mask & area).any()),
                predicted=prediction.label or "",
            )
        )
    return scores


def score_restyled(
    models: Path, store: SliceStore, subjects: Sequence[str], external: ExternalStore
) -> list[ExternalScore]:
    """Run the models on the data set's own slices with the gray values of random external slices.

    External tumors are mostly gliomas. A network that takes the scanner for the class names other tumors glioma as
    soon as they look external; here this shows.

    Args:
        models: Folder of the models.
        store: Slices that the models were not trained on.
        subjects: (S,) their subjects.
        external: Slices whose gray values are taken.
    """
    cascade, random, scores = Cascade.open(models, "onnxruntime"), np.random.default_rng(0), []
    levels = [gray_levels(slice_[0].float().numpy()) for slice_ in external.slices[:: max(1, len(external) // 500)]]
    for index in track(range(len(store)), "predicting restyled slices", console=Console(stderr=True)):
        plane = store.slices[index, 0].float().numpy()
        target = levels[int(random.integers(len(levels)))]
        prediction = cascade.predict(restyle(plane, gray_levels(plane), target, random))
        scores.append(
            ExternalScore(
                RESTYLED,
                subjects[index],
                CLASS_NAMES[int(store.labels[index])],
                detected=bool(prediction.mask.any()),
                touched=bool((prediction.mask & store.masks[index, 0].numpy()).any()),
                predicted=prediction.label or "",
            )
        )
    return scores


def summarize(scores: Sequence[ExternalScore]) -> list[dict[str, Any]]:
    """One row per set and class: slices, subjects, and fractions with their intervals over subjects.

    `detected` is the sensitivity on slices with a tumor and the false-positive rate on tumor-free slices; `correct` is
    the fraction of the detected tumors that were named right, `as_glioma` of those that were named glioma.
    """
    groups: dict[tuple[str, str], list[ExternalScore]] = {}
    for score in scores:
        groups.setdefault((score.set_name, score.label), []).append(score)
    rows = []
    for (set_name, label), group in sorted(groups.items()):
        row: dict[str, Any] = {
            "set": set_name,
            "class": label,
            "slices": len(group),
            "subjects": len({score.subject for score in group}),
            "detected": _fraction(group, [score.detected for score in group]),
        }
        if label != NEGATIVE:
            named = [score for score in group if score.detected]
            outlined = [score for score in group if score.touched is not None]
            row["touched"] = _fraction(outlined, [bool(score.touched) for score in outlined])
            row["correct"] = _fraction(named, [score.predicted == label for score in named])
            row["as_glioma"] = _fraction(named, [score.predicted == CLASS_NAMES[1] for score in named])
        rows.append(row)
    return rows


def _fraction(group: Sequence[ExternalScore], hits: Iterable[bool]) -> dict[str, Any] | None:
    values = np.array(list(hits), dtype=np.float64)
    if not len(values):
        return None
    interval = SubjectBootstrap([score.subject for score in group]).mean_interval(values)
    return {"value": float(values.mean()), "ci95": interval}


def as_csv(scores: Sequence[ExternalScore]) -> bytes:
    """One line per slice. Subjects are kept: intervals need them."""
    return table_bytes([field.name for field in fields(ExternalScore)], map(asdict, scores))


def from_csv(content: bytes) -> list[ExternalScore]:
    """Read what `as_csv` wrote."""
    return [
        ExternalScore(
            row["set_name"],
            row["subject"],
            row["label"],
            detected=row["detected"] == "True",
            touched=row["touched"] == "True" if row["touched"] else None,
            predicted=row["predicted"],
        )
        for row in read_table(content)
    ]


def external_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of `summarize` for the terminal."""
    table = Table(title="External slices: fractions with 95 % intervals over subjects")
    for name in ("set", "class", "slices", "subjects", "detected", "touched", "correct", "as glioma"):
        table.add_column(name, justify="left" if name in ("set", "class") else "right")
    for row in rows:
        cells = [_cell(row.get(name)) for name in ("detected", "touched", "correct", "as_glioma")]
        table.add_row(row["set"], row["class"], str(row["slices"]), str(row["subjects"]), *cells)
    return table


def _cell(fraction: dict[str, Any] | None) -> str:
    if fraction is None:
        return ""
    interval = fraction["ci95"]
    shown = f"{fraction['value']:.3f}"
    return f"{shown} ({interval[0]:.3f}, {interval[1]:.3f})" if interval else shown


def main() -> None:
    """Score the models of a folder on the slices of an index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of the models")
    parser.add_argument("index", type=Path, help="index CSV, or a folder with an index.csv")
    parser.add_argument("--part", choices=SUBSETS, help="only this part of the index")
    parser.add_argument("--csv", type=Path, help="file for one line per slice")
    arguments = parser.parse_args()
    with exit_on_cascade_error():
        items = [item for item in read_index(arguments.index) if arguments.part in (None, item.part)]
        if not items:
            raise CascadeError(
                f"{arguments.index}: lists no slice of the part {arguments.part}",
                fix="name the part in the column part, or omit --part",
            )
        scores = score_external(arguments.models, items)
        if arguments.csv:
            write_atomically(arguments.csv, as_csv(scores))
        Console().print(external_table(summarize(scores)))


if __name__ == "__main__":
    main()
