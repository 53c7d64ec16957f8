"""`ScoredSlice`s → the numbers of metrics.json: over all slices, by class, by tumor size, by crop and by patient."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import subject_id
from cascade.evaluation.bootstrap import PatientBootstrap
from cascade.evaluation.metrics import (
    NONE,
    BoolArray,
    DoubleArray,
    IntArray,
    accuracy,
    auc,
    balanced_accuracy,
    chosen,
    confusion,
    f1,
    macro_f1,
    precision,
    recall,
    reliability,
)
from cascade.evaluation.scores import COLUMN_NAMES, CROPS, ScoredSlice

SIZES = {"small": (0, 50), "medium": (50, 80), "large": (80, None)}
"""From .. to below (None: any) of `ScoredSlice.diameter_px`, fixed so that evaluations compare: round numbers near the
terciles of figshare's training slices, 51 and 80 pixels; at its 0.49 mm a pixel they are 25 and 39 mm."""


def summarise(scored: Sequence[ScoredSlice], uncertain_below: float = 0.0) -> dict[str, Any]:
    """Ready for JSON; None where a number is not defined. `scored` holds at least one slice."""
    bootstrap = PatientBootstrap([subject_id(item.record.patient) for item in scored])
    true = np.array([CLASS_NAMES.index(item.record.label) for item in scored])
    size = np.array([size_of(item) for item in scored])
    probabilities = {crop: np.array([item.probabilities[crop] for item in scored]) for crop in CROPS}
    matrices = {crop: bootstrap.by_patient(confusion(true, chosen(rows))) for crop, rows in probabilities.items()}

    patient_true, patient_probabilities = _by_patient(bootstrap, true, probabilities["predicted_mask"])
    matrices["by_patient"] = confusion(patient_true, chosen(patient_probabilities))
    aucs = {crop: auc(true, rows) for crop, rows in probabilities.items()}
    aucs["by_patient"] = auc(patient_true, patient_probabilities)
    return {
        **_masks(scored, np.full(len(scored), True), bootstrap),
        **{
            metric.__name__: {name: _with_interval(metric, matrix, bootstrap) for name, matrix in matrices.items()}
            for metric in (accuracy, balanced_accuracy, macro_f1)
        },
        "macro_auc": {name: _mean_of_defined(values) for name, values in aucs.items()},
        "right_with": _right_with(true, probabilities),
        "by_class": {
            name: {**_masks(scored, true == index, bootstrap), **_class_figures(matrices, aucs, index)}
            for index, name in enumerate(CLASS_NAMES)
        },
        "by_size": {
            name: {"diameter_px": list(bounds), **_masks(scored, size == name, bootstrap)}
            for name, bounds in SIZES.items()
        },
        "confusion_matrix": {
            "rows": list(CLASS_NAMES),
            "columns": list(COLUMN_NAMES),
            "slices": matrices["predicted_mask"].sum(0).astype(int).tolist(),
            "patients": matrices["by_patient"].sum(0).astype(int).tolist(),
        },
        "reliability": _reliability(true, probabilities["predicted_mask"]),
        "uncertain": _uncertain(true, probabilities["predicted_mask"], uncertain_below),
    }


def size_of(item: ScoredSlice) -> str:
    """The key of SIZES that the slice's true mask falls under."""
    return next(name for name, (_, high) in SIZES.items() if high is None or item.diameter_px < high)


def _by_patient(
    bootstrap: PatientBootstrap, true: IntArray, probabilities: DoubleArray
) -> tuple[IntArray, DoubleArray]:
    """(patients,) and (patients, 3): the class of most of a patient's slices, and the mean of their probabilities.

    A slice without a mask counts in the mean with (0, 0, 0), so a patient of nothing but such slices is given no class.
    """
    slices = bootstrap.by_patient(np.ones(len(true)))
    labels = bootstrap.by_patient(np.eye(NONE)[true])
    return labels.argmax(axis=1), bootstrap.by_patient(probabilities) / slices[:, None]


def _masks(scored: Sequence[ScoredSlice], meant: BoolArray, bootstrap: PatientBootstrap) -> dict[str, Any]:
    """What the segmenter's masks are worth on the slices where `meant`, (N,), is True."""
    dice, iou, predicted_area, px, mm = (
        np.array([getattr(item, name) for item in scored], dtype=float)  # None becomes NaN
        for name in ("dice", "iou", "predicted_area_px", "hausdorff95_px", "hausdorff95_mm")
    )
    empty = predicted_area == 0
    by_patient = bootstrap.patient_means(np.where(meant, dice, np.nan))
    return {
        "slices": int(meant.sum()),
        "patients": len(set(bootstrap.of[meant].tolist())),
        "dice": {
            **_statistics(dice[meant]),
            "ci95": bootstrap.mean_interval(np.where(meant, dice, np.nan)),
            "empty_share": _mean_of_defined(empty[meant]),
            "misplaced_share": _mean_of_defined(((dice == 0) & ~empty)[meant]),
            "by_patient": {
                "mean": _mean_of_defined(by_patient[np.isfinite(by_patient)]),
                "ci95": bootstrap.patient_mean_interval(by_patient),
            },
        },
        "iou": _statistics(iou[meant]),
        "hausdorff95_px": _statistics(px[meant]) | {"undefined": int(np.isnan(px[meant]).sum())},
        "hausdorff95_mm": _statistics(mm[meant]) | {"undefined": int(np.isnan(mm[meant]).sum())},
    }


def _statistics(values: DoubleArray) -> dict[str, Any]:
    """Of the values that are defined (not NaN)."""
    values = values[np.isfinite(values)]
    low, median, high = np.percentile(values, [25, 50, 75]).tolist() if len(values) else (None, None, None)
    return {"mean": _mean_of_defined(values), "median": median, "quartiles": [low, high]}


def _with_interval(
    metric: Callable[[DoubleArray], DoubleArray], matrices: DoubleArray, bootstrap: PatientBootstrap
) -> dict[str, Any]:
    """`metric` of the confusion matrices, (patients, 3, 4), summed over patients."""
    return {
        "value": _number(metric(matrices.sum(0))),
        "ci95": bootstrap.interval(metric(bootstrap.resampled(matrices))),
    }


def _right_with(true: IntArray, probabilities: dict[str, DoubleArray]) -> dict[str, int]:
    """Which stage errs, counted: `true_mask_only` slices are lost to the segmenter, `neither` to the classifier."""
    drawn, found = (chosen(probabilities[crop]) == true for crop in ("true_mask", "predicted_mask"))
    return {
        "both_masks": int((drawn & found).sum()),
        "true_mask_only": int((drawn & ~found).sum()),
        "predicted_mask_only": int((~drawn & found).sum()),
        "neither": int((~drawn & ~found).sum()),
    }


def _class_figures(matrices: dict[str, DoubleArray], aucs: dict[str, list[float | None]], index: int) -> dict[str, Any]:
    """By slice, under the predicted mask."""
    matrix = matrices["predicted_mask"].sum(0)
    figures = {metric.__name__: _number(metric(matrix)[index]) for metric in (precision, recall, f1)}
    return {**figures, "auc": aucs["predicted_mask"][index]}


def _reliability(true: IntArray, probabilities: DoubleArray) -> dict[str, Any]:
    curve = reliability(true, probabilities)
    return {
        "expected_calibration_error": curve.expected_error,
        "slices": curve.counts.tolist(),
        "confidence": [_number(value) for value in curve.confidence],
        "accuracy": [_number(value) for value in curve.accuracy],
    }


def _uncertain(true: IntArray, probabilities: DoubleArray, below: float) -> dict[str, Any]:
    """How many slices are left, and how many of these right, if those of less probability than `below` go unanswered.

    `curve` has the same for every tenth of the slices left. Slices without a mask go first.
    """
    confidence, right = probabilities.max(axis=1), chosen(probabilities) == true
    left = (confidence >= below) & (confidence > 0)
    surest = right[np.argsort(-confidence, kind="stable")]
    counts = [round(len(true) * tenth / 10) for tenth in range(1, 11)]
    return {
        "below": below,
        "coverage": _number(left.mean()),
        "accuracy_of_the_rest": _mean_of_defined(right[left]),
        "curve": {
            "coverage": [count / len(true) for count in counts],
            "accuracy": [_mean_of_defined(surest[:count]) for count in counts],
        },
    }


def _mean_of_defined(values: Sequence[float | None] | DoubleArray | BoolArray) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _number(value: float | DoubleArray) -> float | None:
    """NaN and infinity, which JSON does not know, become None."""
    return float(value) if np.isfinite(value) else None
