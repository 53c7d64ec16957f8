"""A labelled slice → `ScoredSlice`: what the evaluation keeps of it, writes as a row of slices.csv and reads again."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.contract import CLASS_NAMES, SLICE_SIZE, THRESHOLD, FloatArray
from cascade.datasets.figshare import LabeledSlice
from cascade.datasets.reader import SliceInfo
from cascade.evaluation.metrics import NONE, BoolArray, DoubleArray, chosen, dice, hausdorff95, iou
from cascade.io.preprocess import Letterbox
from cascade.io.slices import Slice
from cascade.pipeline import Cascade

CROPS = ("true_mask", "predicted_mask", "whole_slice")
"""What the classifier is shown as the mask. Their accuracies, side by side, tell which stage errs."""

FIGURES: dict[str, type[float] | type[int]] = {
    **dict.fromkeys(("dice", "iou", "hausdorff95_px", "hausdorff95_mm"), float),
    **dict.fromkeys(("true_area_px", "predicted_area_px"), int),
    **dict.fromkeys(("peak", "diameter_px"), float),
}
"""Those fields of a ScoredSlice that are columns of slices.csv, and what they hold."""

COLUMN_NAMES = (*CLASS_NAMES, "none")
"""By class index; `none` is metrics.NONE, a slice in which nothing was found."""


@dataclass(frozen=True)
class ScoredSlice:
    """How the cascade did on one slice.

    probabilities     under each of CROPS, one a class; all 0 where the mask is empty.
    true_area_px      pixels of the slice's own grid; never 0.
    predicted_area_px likewise; 0 for an empty mask.
    peak              highest probability of any pixel; the mask is empty where it is below THRESHOLD.
    diameter_px       of the circle as large as the true mask, in pixels of a SLICE_SIZE grid, so that slices compare.
    hausdorff95_mm    None where the mask is empty or the spacing not known.
    """

    record: SliceInfo
    probabilities: dict[str, tuple[float, ...]]
    dice: float
    iou: float
    hausdorff95_px: float | None
    hausdorff95_mm: float | None
    true_area_px: int
    predicted_area_px: int
    peak: float
    diameter_px: float

    def given(self, crop: str) -> str:
        """One of COLUMN_NAMES: the class that the cascade gives under one of CROPS."""
        return COLUMN_NAMES[int(chosen(np.array([self.probabilities[crop]]))[0])]


def score(cascade: Cascade, batch: Sequence[tuple[SliceInfo, LabeledSlice]]) -> list[ScoredSlice]:
    """Runs both models over the slices, the classifier under each of CROPS."""
    letterboxes = [Letterbox.of(Slice(labelled.pixels, labelled.spacing_mm)) for _, labelled in batch]
    pairs = [(box, labelled) for box, (_, labelled) in zip(letterboxes, batch, strict=True)]
    squares = np.stack([box.square(labelled.pixels) for box, labelled in pairs])[:, None]
    true = np.stack([box.square(labelled.mask.astype(np.float32)) for box, labelled in pairs])[:, None]
    probability = cascade.segment(squares)
    planes = [box.original(plane[0]) for box, plane in zip(letterboxes, probability, strict=True)]
    masks = [plane >= THRESHOLD for plane in planes]
    by_crop = {
        "true_mask": _classify(cascade, squares, true, np.array([(plane >= THRESHOLD).any() for plane in true])),
        "predicted_mask": _classify(cascade, squares, probability, np.array([mask.any() for mask in masks])),
        "whole_slice": _classify(cascade, squares, np.ones_like(squares), np.full(len(batch), True)),
    }
    return [
        _scored(record, labelled, plane, {crop: tuple(rows[index].tolist()) for crop, rows in by_crop.items()})
        for index, ((record, labelled), plane) in enumerate(zip(batch, planes, strict=True))
    ]


def _classify(cascade: Cascade, squares: FloatArray, mask: FloatArray, seen: BoolArray) -> DoubleArray:
    """(N, 3) by class; rows of 0 where `seen`, (N,), is False: as in the pipeline, an empty mask is not classified."""
    rows = np.zeros((len(squares), NONE))
    if seen.any():
        rows[seen] = cascade.classify(squares[seen], mask[seen])[0]
    return rows


def _scored(
    record: SliceInfo, labelled: LabeledSlice, plane: FloatArray, probabilities: dict[str, tuple[float, ...]]
) -> ScoredSlice:
    mask = plane >= THRESHOLD
    true_area = int(labelled.mask.sum())
    spacing_mm = labelled.spacing_mm
    return ScoredSlice(
        record=record,
        probabilities=probabilities,
        dice=dice(labelled.mask, mask),
        iou=iou(labelled.mask, mask),
        hausdorff95_px=hausdorff95(labelled.mask, mask),
        hausdorff95_mm=hausdorff95(labelled.mask, mask, spacing_mm) if spacing_mm else None,
        true_area_px=true_area,
        predicted_area_px=int(mask.sum()),
        peak=float(plane.max()),
        diameter_px=2 * (true_area / np.pi) ** 0.5 * SLICE_SIZE / max(mask.shape),
    )


def as_csv(scored: Sequence[ScoredSlice]) -> str:
    """One row for each of at least one slice; an empty cell where there is no value."""
    rows = [_row(item) for item in scored]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


def from_csv(lines: Iterable[str]) -> list[ScoredSlice]:
    """What `as_csv` wrote, but for the names of the masks' files, which it leaves out."""
    return [_item(row) for row in csv.DictReader(lines)]


def _row(item: ScoredSlice) -> dict[str, Any]:
    row = {"path": item.record.path, "patient": item.record.patient, "label": item.record.label}
    row |= _answer(item, "predicted_mask", "predicted")
    row |= {name: getattr(item, name) for name in FIGURES}
    row |= _answer(item, "true_mask", "predicted_with_true_mask")
    return row | _answer(item, "whole_slice", "predicted_with_whole_slice")


def _item(row: dict[str, str]) -> ScoredSlice:
    probabilities = {crop: tuple(float(row[name] or 0) for name in _probability_columns(crop)) for crop in CROPS}
    figures: dict[str, Any] = {name: kind(row[name]) if row[name] else None for name, kind in FIGURES.items()}
    return ScoredSlice(SliceInfo(row["path"], "", row["label"], row["patient"]), probabilities, **figures)


def _answer(item: ScoredSlice, crop: str, column: str) -> dict[str, Any]:
    """The class that is given and the probabilities, which are left empty where no class is."""
    stated = item.probabilities[crop]
    columns = _probability_columns(crop)
    return {column: item.given(crop), **dict(zip(columns, stated if any(stated) else ("",) * NONE, strict=True))}


def _probability_columns(crop: str) -> list[str]:
    suffix = "" if crop == "predicted_mask" else f" with {crop.replace('_', ' ')}"
    return [f"probability {name}{suffix}" for name in CLASS_NAMES]
