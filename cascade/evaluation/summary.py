"""Metrics over scored slices: all of them, by class, by tumor size, by crop and by subject."""

from collections.abc import Callable, Sequence

import numpy as np

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import subject_id
from cascade.evaluation.bootstrap import SubjectBootstrap
from cascade.evaluation.metrics import (
    NONE,
    BoolArray,
    DoubleArray,
    IntArray,
    accuracy,
    auc,
    balanced_accuracy,
    confusion,
    f1,
    macro_f1,
    precision,
    predicted_classes,
    recall,
    reliability,
)
from cascade.evaluation.schema import (
    ClassMetrics,
    ConfusionMatrix,
    CorrectWith,
    DiceDistribution,
    DistanceDistribution,
    Distribution,
    Estimate,
    MaskMetrics,
    Metrics,
    Rejection,
    RejectionCurve,
    ReliabilityCurve,
    SizeMetrics,
)
from cascade.evaluation.scores import CROPS, PREDICTED_LABELS, ScoredSlice

SIZES: dict[str, tuple[int, int | None]] = {"small": (0, 50), "medium": (50, 80), "large": (80, None)}
"""Range of `ScoredSlice.diameter_px` by name of the size. Fixed, so that evaluations are comparable: round numbers near
the terciles of figshare's training slices, 51 and 80 pixels, which are 25 and 39 mm at 0.49 mm per pixel."""


def summarize(scored: Sequence[ScoredSlice], uncertain_below: float = 0.0) -> Metrics:
    """Compute all metrics.

    Args:
        scored: At least one slice.
        uncertain_below: Slices with a lower probability of the predicted class are uncertain.
    """
    bootstrap = SubjectBootstrap([subject_id(item.info.patient) for item in scored])
    true = np.array([CLASS_NAMES.index(item.info.label) for item in scored])
    size = np.array([size_of(item) for item in scored])
    probabilities = {crop: np.array([item.probabilities[crop] for item in scored]) for crop in CROPS}
    matrices = {
        crop: bootstrap.sum_by_subject(confusion(true, predicted_classes(rows))) for crop, rows in probabilities.items()
    }
    aucs = {crop: auc(true, rows) for crop, rows in probabilities.items()}
    subject_true, subject_probabilities = _by_subject(bootstrap, true, probabilities["predicted_mask"])
    matrices["by_subject"] = confusion(subject_true, predicted_classes(subject_probabilities))
    aucs["by_subject"] = auc(subject_true, subject_probabilities)

    def estimates(metric: Callable[[DoubleArray], DoubleArray]) -> dict[str, Estimate]:
        return {name: _estimate(metric, matrix, bootstrap) for name, matrix in matrices.items()}

    def class_metrics(index: int) -> ClassMetrics:
        matrix = matrices["predicted_mask"].sum(0)
        return ClassMetrics(
            **vars(_mask_metrics(scored, true == index, bootstrap)),
            precision=_defined(precision(matrix)[index]),
            recall=_defined(recall(matrix)[index]),
            f1=_defined(f1(matrix)[index]),
            auc=aucs["predicted_mask"][index],
        )

    return Metrics(
        **vars(_mask_metrics(scored, np.full(len(scored), True), bootstrap)),
        accuracy=estimates(accuracy),
        balanced_accuracy=estimates(balanced_accuracy),
        macro_f1=estimates(macro_f1),
        macro_auc={name: mean(values) for name, values in aucs.items()},
        correct_with=_correct_with(true, probabilities),
        by_class={name: class_metrics(index) for index, name in enumerate(CLASS_NAMES)},
        by_size={
            name: SizeMetrics(**vars(_mask_metrics(scored, size == name, bootstrap)), diameter_px=bounds)
            for name, bounds in SIZES.items()
        },
        confusion_matrix=ConfusionMatrix(
            rows=CLASS_NAMES,
            columns=PREDICTED_LABELS,
            slices=_counts(matrices["predicted_mask"]),
            subjects=_counts(matrices["by_subject"]),
        ),
        reliability=_reliability(true, probabilities["predicted_mask"]),
        rejection=_rejection(true, probabilities["predicted_mask"], uncertain_below),
    )


def size_of(item: ScoredSlice) -> str:
    """Return the key of SIZES for a slice."""
    return next(name for name, (_, high) in SIZES.items() if high is None or item.diameter_px < high)


def _by_subject(
    bootstrap: SubjectBootstrap, true: IntArray, probabilities: DoubleArray
) -> tuple[IntArray, DoubleArray]:
    """Return the most frequent class and the mean probabilities of each subject, (S,) and (S, 3).

    A slice without a mask adds zeros to the mean, so a subject with only such slices has no predicted class.
    """
    slices = bootstrap.sum_by_subject(np.ones(len(true)))
    labels = bootstrap.sum_by_subject(np.eye(NONE)[true])
    return labels.argmax(axis=1), bootstrap.sum_by_subject(probabilities) / slices[:, None]


def _mask_metrics(scored: Sequence[ScoredSlice], selected: BoolArray, bootstrap: SubjectBootstrap) -> MaskMetrics:
    """Compute the metrics of the slices for which `selected`, (N,), is True."""
    dice, iou, predicted_area, px, mm = (
        np.array([getattr(item, name) for item in scored], dtype=float)  # None becomes NaN
        for name in ("dice", "iou", "predicted_area_px", "hausdorff95_px", "hausdorff95_mm")
    )
    empty = predicted_area == 0
    selected_dice = np.where(selected, dice, np.nan)
    subject_dice = bootstrap.subject_means(selected_dice)
    return MaskMetrics(
        slices=int(selected.sum()),
        subjects=len(set(bootstrap.subject_of[selected].tolist())),
        dice=DiceDistribution(
            **vars(distribution(dice[selected])),
            ci95=bootstrap.mean_interval(selected_dice),
            missed_fraction=mean(empty[selected]),
            mislocalized_fraction=mean(((dice == 0) & ~empty)[selected]),
            by_subject=Estimate(
                mean(subject_dice[np.isfinite(subject_dice)]), bootstrap.subject_mean_interval(subject_dice)
            ),
        ),
        iou=distribution(iou[selected]),
        hausdorff95_px=_distances(px[selected]),
        hausdorff95_mm=_distances(mm[selected]),
    )


def distribution(values: DoubleArray) -> Distribution:
    """Summarize the values that are not NaN."""
    defined = values[np.isfinite(values)]
    low, median, high = np.percentile(defined, [25, 50, 75]).tolist() if len(defined) else (None, None, None)
    return Distribution(mean=mean(defined), median=median, quartiles=(low, high))


def _distances(values: DoubleArray) -> DistanceDistribution:
    return DistanceDistribution(**vars(distribution(values)), undefined=int(np.isnan(values).sum()))


def _estimate(
    metric: Callable[[DoubleArray], DoubleArray], matrices: DoubleArray, bootstrap: SubjectBootstrap
) -> Estimate:
    """Compute a metric of confusion matrices, (S, 3, 4), summed over subjects."""
    return Estimate(_defined(metric(matrices.sum(0))), bootstrap.interval(metric(bootstrap.resample(matrices))))


def _correct_with(true: IntArray, probabilities: dict[str, DoubleArray]) -> CorrectWith:
    with_true, with_predicted = (
        predicted_classes(probabilities[crop]) == true for crop in ("true_mask", "predicted_mask")
    )
    return CorrectWith(
        both_masks=int((with_true & with_predicted).sum()),
        true_mask_only=int((with_true & ~with_predicted).sum()),
        predicted_mask_only=int((~with_true & with_predicted).sum()),
        neither=int((~with_true & ~with_predicted).sum()),
    )


def _counts(matrices: DoubleArray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in matrices.sum(0).astype(int).tolist())


def _reliability(true: IntArray, probabilities: DoubleArray) -> ReliabilityCurve:
    curve = reliability(true, probabilities)
    return ReliabilityCurve(
        expected_calibration_error=curve.expected_calibration_error,
        slices=tuple(curve.counts.tolist()),
        confidence=tuple(_defined(value) for value in curve.confidence),
        accuracy=tuple(_defined(value) for value in curve.accuracy),
    )


def _rejection(true: IntArray, probabilities: DoubleArray, threshold: float) -> Rejection:
    confidence, correct = probabilities.max(axis=1), predicted_classes(probabilities) == true
    certain = (confidence >= threshold) & (confidence > 0)
    by_confidence = correct[np.argsort(-confidence, kind="stable")]
    counts = [round(len(true) * tenth / 10) for tenth in range(1, 11)]
    return Rejection(
        threshold=threshold,
        coverage=mean(certain),
        accuracy=mean(correct[certain]),
        curve=RejectionCurve(
            coverage=tuple(count / len(true) for count in counts),
            accuracy=tuple(mean(by_confidence[:count]) for count in counts),
        ),
    )


def mean(values: Sequence[float | None] | DoubleArray | BoolArray) -> float | None:
    """Mean of the values that are not None; None without values."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _defined(value: float | DoubleArray) -> float | None:
    """Return None for NaN and infinity, which JSON does not have."""
    return float(value) if np.isfinite(value) else None
