"""Scores of labeled slices, one by one, and slices.csv, which they are written to and read from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.contract import CLASS_NAMES, THRESHOLD, FloatArray
from cascade.datasets.figshare import LabeledSlice
from cascade.datasets.reader import SliceInfo
from cascade.evaluation.metrics import NONE, BoolArray, DoubleArray, dice, hausdorff95, iou, predicted_classes
from cascade.io.preprocess import Letterbox
from cascade.io.slices import Slice
from cascade.pipeline import Cascade
from cascade.tables import read_table, table_bytes

CROPS = ("true_mask", "predicted_mask", "whole_slice")
"""Masks that the classifier crops the slice by. Comparing its accuracies locates the stage that errs."""

PREDICTED_LABELS = (*CLASS_NAMES, "none")
"""Labels of the predicted classes; `none`, with the index `metrics.NONE`, means that no tumor was found."""

CSV_TYPES: dict[str, type[float] | type[int]] = {
    "dice": float,
    "iou": float,
    "hausdorff95_px": float,
    "hausdorff95_mm": float,
    "true_area_px": int,
    "predicted_area_px": int,
    "peak": float,
    "diameter_px": float,
}
"""Fields of ScoredSlice that are columns of slices.csv, and their types."""


@dataclass(frozen=True)
class ScoredSlice:
    """Scores of one slice.

    Attributes:
        info: The slice.
        probabilities: Probability of each class, by name of the crop (one of CROPS); all 0 if the mask is empty.
        dice: 0 to 1.
        iou: 0 to 1.
        hausdorff95_px: In pixels of the slice; None if the predicted mask is empty.
        hausdorff95_mm: None if the predicted mask is empty or the pixel spacing is unknown.
        true_area_px: Area of the true mask in pixels of the slice, at least 1.
        predicted_area_px: Area of the predicted mask in pixels of the slice.
        peak: Highest probability of any pixel to be tumor; the predicted mask is empty if it is below THRESHOLD.
        diameter_px: Diameter of the circle with the area of the true mask, in pixels of the square that the networks
            see, so that slices of different sizes and spacings are comparable.
    """

    info: SliceInfo
    probabilities: dict[str, tuple[float, ...]]
    dice: float
    iou: float
    hausdorff95_px: float | None
    hausdorff95_mm: float | None
    true_area_px: int
    predicted_area_px: int
    peak: float
    diameter_px: float

    def predicted_label(self, crop: str) -> str:
        """Return one of PREDICTED_LABELS for one of CROPS."""
        return PREDICTED_LABELS[int(predicted_classes(np.array([self.probabilities[crop]]))[0])]


def score_batch(cascade: Cascade, batch: Sequence[tuple[SliceInfo, LabeledSlice]]) -> list[ScoredSlice]:
    """Run both models on a batch of slices, the classifier once for each of CROPS, and score the results."""
    letterboxes = [Letterbox.of(Slice(labeled.pixels, labeled.spacing_mm)) for _, labeled in batch]
    pairs = [(box, labeled) for box, (_, labeled) in zip(letterboxes, batch, strict=True)]
    squares = np.stack([box.square(labeled.pixels) for box, labeled in pairs])[:, None]
    true = np.stack([box.square(labeled.mask.astype(np.float32)) for box, labeled in pairs])[:, None]
    probability = cascade.segment(squares)
    planes = [box.original(plane[0]) for box, plane in zip(letterboxes, probability, strict=True)]
    by_crop = {
        "true_mask": _classify(cascade, squares, true, _has_tumor(true)),
        "predicted_mask": _classify(cascade, squares, probability, _has_tumor(planes)),
        "whole_slice": _classify(cascade, squares, np.ones_like(squares), np.full(len(batch), True)),
    }
    return [
        _score(info, labeled, box, plane, {crop: tuple(rows[index].tolist()) for crop, rows in by_crop.items()})
        for index, ((info, labeled), box, plane) in enumerate(zip(batch, letterboxes, planes, strict=True))
    ]


def _has_tumor(planes: Iterable[FloatArray]) -> BoolArray:
    return np.array([(plane >= THRESHOLD).any() for plane in planes])


def _classify(cascade: Cascade, squares: FloatArray, masks: FloatArray, non_empty: BoolArray) -> DoubleArray:
    """Return (N, 3) class probabilities; zeros for empty masks, which the pipeline does not classify either."""
    rows = np.zeros((len(squares), NONE))
    if non_empty.any():
        rows[non_empty] = cascade.classify(squares[non_empty], masks[non_empty])[0]
    return rows


def _score(
    info: SliceInfo,
    labeled: LabeledSlice,
    letterbox: Letterbox,
    plane: FloatArray,
    probabilities: dict[str, tuple[float, ...]],
) -> ScoredSlice:
    mask = plane >= THRESHOLD
    true_area = int(labeled.mask.sum())
    spacing_mm = labeled.spacing_mm
    return ScoredSlice(
        info=info,
        probabilities=probabilities,
        dice=dice(labeled.mask, mask),
        iou=iou(labeled.mask, mask),
        hausdorff95_px=hausdorff95(labeled.mask, mask),
        hausdorff95_mm=hausdorff95(labeled.mask, mask, spacing_mm) if spacing_mm else None,
        true_area_px=true_area,
        predicted_area_px=int(mask.sum()),
        peak=float(plane.max()),
        diameter_px=2 * (true_area * math.prod(letterbox.scales) / np.pi) ** 0.5,
    )


def to_csv(scored: Sequence[ScoredSlice]) -> bytes:
    """Write slices as CSV, one row each; cells without a value are empty. Needs at least one slice."""
    rows = [_to_row(item) for item in scored]
    return table_bytes(list(rows[0]), rows)


def from_csv(content: bytes) -> list[ScoredSlice]:
    """Read slices that `to_csv` wrote. The names of the mask files are not in the CSV, hence empty."""
    return [_from_row(row) for row in read_table(content)]


def _to_row(item: ScoredSlice) -> dict[str, Any]:
    row = {"path": item.info.path, "patient": item.info.patient, "label": item.info.label}
    row |= _prediction(item, "predicted_mask", "predicted")
    row |= {name: getattr(item, name) for name in CSV_TYPES}
    row |= _prediction(item, "true_mask", "predicted_with_true_mask")
    return row | _prediction(item, "whole_slice", "predicted_with_whole_slice")


def _from_row(row: dict[str, str]) -> ScoredSlice:
    probabilities = {crop: tuple(float(row[name] or 0) for name in _probability_columns(crop)) for crop in CROPS}
    values: dict[str, Any] = {name: kind(row[name]) if row[name] else None for name, kind in CSV_TYPES.items()}
    return ScoredSlice(SliceInfo(row["path"], "", row["label"], row["patient"]), probabilities, **values)


def _prediction(item: ScoredSlice, crop: str, column: str) -> dict[str, Any]:
    """Return the cells of the predicted class and its probabilities; the latter are empty for an empty mask."""
    probabilities = item.probabilities[crop]
    cells = probabilities if any(probabilities) else ("",) * NONE
    return {column: item.predicted_label(crop), **dict(zip(_probability_columns(crop), cells, strict=True))}


def _probability_columns(crop: str) -> list[str]:
    suffix = "" if crop == "predicted_mask" else f" with {crop.replace('_', ' ')}"
    return [f"probability {name}{suffix}" for name in CLASS_NAMES]
