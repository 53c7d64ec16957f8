"""Formulas of the metrics: mask against mask, class against class, probability against outcome.

Overlap and distance of masks: Taha & Hanbury 2015, doi 10.1186/s12880-015-0068-x. Accuracy, recall, precision and F1:
Sokolova & Lapalme 2009, doi 10.1016/j.ipm.2009.03.002. A ratio of zero to zero is NaN.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from sklearn.metrics import roc_auc_score

from cascade.contract import CLASS_NAMES

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
DoubleArray = NDArray[np.float64]

NONE = len(CLASS_NAMES)
"""Predicted class of a slice in which no tumor was found; always wrong."""

BINS = 15
"""Number of bins of the reliability curve, as in Guo et al. 2017."""


def dice(true: BoolArray, predicted: BoolArray) -> float:
    """Dice coefficient, 2 |A and B| / (|A| + |B|).

    Source: Dice 1945, doi 10.2307/1932409.

    Args:
        true: (H, W), or (N, H, W) for a volume.
        predicted: The same shape.

    Returns:
        0 to 1; 0 if one mask is empty, NaN if both are.
    """
    total = int(true.sum()) + int(predicted.sum())
    return 2 * int((true & predicted).sum()) / total if total else float("nan")


def iou(true: BoolArray, predicted: BoolArray) -> float:
    """Intersection over union, |A and B| / |A or B|.

    Source: Jaccard 1912, doi 10.1111/j.1469-8137.1912.tb05611.x.

    Args:
        true: (H, W).
        predicted: (H, W).

    Returns:
        0 to 1; 0 if one mask is empty, NaN if both are.
    """
    union = int((true | predicted).sum())
    return int((true & predicted).sum()) / union if union else float("nan")


def hausdorff95(true: BoolArray, predicted: BoolArray, spacing: tuple[float, float] = (1.0, 1.0)) -> float | None:
    """95 % Hausdorff distance.

    The 95th percentile of the distances from each border pixel of one mask to the nearest border pixel of the other,
    for both directions; the larger of the two. Source: Huttenlocher et al. 1993, doi 10.1109/34.232073, with the
    border and the percentile defined as in MONAI.

    Args:
        true: (H, W).
        predicted: (H, W).
        spacing: (row, column) distance between pixel centers.

    Returns:
        The distance in the unit of `spacing`, or None if a mask is empty.
    """
    if not (true.any() and predicted.any()):
        return None
    either = true | predicted
    rows, columns = np.flatnonzero(either.any(1)), np.flatnonzero(either.any(0))
    # The bounding box of both masks contains every border pixel: exact, and faster than the whole slice.
    region = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    borders = [mask[region] & ~binary_erosion(mask[region]) for mask in (true, predicted)]
    return max(
        float(np.percentile(distance_transform_edt(~other, sampling=spacing)[border], 95))
        for border, other in (borders, reversed(borders))
    )


def predicted_classes(probabilities: DoubleArray) -> IntArray:
    """Most probable class of each item: (N, 3) to (N,). NONE if all probabilities are 0, as for an empty mask."""
    return np.where(probabilities.any(axis=1), probabilities.argmax(axis=1), NONE).astype(np.int64)


def confusion(true: IntArray, predicted: IntArray) -> DoubleArray:
    """Confusion matrix of each item.

    Summed over items they are the confusion matrix of these items. The functions below take such sums, (..., 3, 4).

    Args:
        true: (N,), 0 to 2.
        predicted: (N,), 0 to 2 or NONE.

    Returns:
        (N, 3, 4): a single 1 for each item, in the row of its true and the column of its predicted class.
    """
    matrices = np.zeros((len(true), NONE, NONE + 1))
    matrices[np.arange(len(true)), true, predicted] = 1
    return matrices


def accuracy(matrix: DoubleArray) -> DoubleArray:
    """Fraction of items whose class is correct, Σ TP / N: (..., 3, 4) to (...). Source: Sokolova & Lapalme 2009."""
    return divide(_correct(matrix).sum(-1), matrix.sum((-2, -1)))


def recall(matrix: DoubleArray) -> DoubleArray:
    """Recall of each class, TP / (TP + FN): (..., 3, 4) to (..., 3). Source: Sokolova & Lapalme 2009.

    NaN for a class without items.
    """
    return divide(_correct(matrix), matrix.sum(-1))


def precision(matrix: DoubleArray) -> DoubleArray:
    """Precision of each class, TP / (TP + FP): (..., 3, 4) to (..., 3). Source: Sokolova & Lapalme 2009.

    NaN for a class that is never predicted.
    """
    return divide(_correct(matrix), matrix[..., :NONE].sum(-2))


def f1(matrix: DoubleArray) -> DoubleArray:
    """F1 of each class, 2 TP / (2 TP + FN + FP): (..., 3, 4) to (..., 3). Source: Sokolova & Lapalme 2009, β = 1.

    NaN for a class that has no items and is never predicted.
    """
    return divide(2 * _correct(matrix), matrix.sum(-1) + matrix[..., :NONE].sum(-2))


def balanced_accuracy(matrix: DoubleArray) -> DoubleArray:
    """Mean recall of the classes that have items: (..., 3, 4) to (...).

    Source: Brodersen et al. 2010, doi 10.1109/ICPR.2010.764.
    """
    return _nanmean(recall(matrix))


def macro_f1(matrix: DoubleArray) -> DoubleArray:
    """Mean F1 of the classes that have items or are predicted: (..., 3, 4) to (...).

    Source: Opitz & Burst 2019, arXiv 1911.03347, "averaged F1".
    """
    return _nanmean(f1(matrix))


def auc(true: IntArray, probabilities: DoubleArray) -> list[float | None]:
    """Area under the ROC curve of each class against the others.

    Source: Hanley & McNeil 1982, doi 10.1148/radiology.143.1.7063747; one against the rest: Fawcett 2006,
    doi 10.1016/j.patrec.2005.10.010.

    Args:
        true: (N,), 0 to 2.
        probabilities: (N, 3). A slice without a mask has probability 0 for every class, hence the lowest rank.

    Returns:
        One value for each class, None if all items or no items are of the class.
    """
    sides = [true == index for index in range(NONE)]
    return [
        float(roc_auc_score(side, probabilities[:, index])) if side.any() and not side.all() else None
        for index, side in enumerate(sides)
    ]


@dataclass(frozen=True, eq=False)
class Reliability:
    """Accuracy by predicted probability (Guo et al. 2017, arXiv 1706.04599).

    Attributes:
        counts: (BINS,) number of items in each bin; bin i covers i / BINS < probability <= (i + 1) / BINS.
        confidence: (BINS,) mean predicted probability in each bin, NaN in an empty bin.
        accuracy: (BINS,) fraction of items in each bin whose class is correct, NaN in an empty bin.
    """

    counts: IntArray
    confidence: DoubleArray
    accuracy: DoubleArray

    @property
    def expected_calibration_error(self) -> float | None:
        """Mean of |accuracy - confidence| over bins, weighted by their counts (Guo et al. 2017); None without items."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float(np.average(gaps, weights=self.counts)) if self.counts.any() else None


def reliability(true: IntArray, probabilities: DoubleArray) -> Reliability:
    """Compute the reliability curve (Guo et al. 2017, arXiv 1706.04599).

    Args:
        true: (N,), 0 to 2.
        probabilities: (N, 3). Rows of zeros, which slices without a mask have, are left out.
    """
    predicted = probabilities.any(axis=1)
    confidence = probabilities[predicted].max(axis=1)
    correct = probabilities[predicted].argmax(axis=1) == true[predicted]
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    return Reliability(
        counts,
        divide(np.bincount(bins, confidence, BINS), counts),
        divide(np.bincount(bins, correct, BINS), counts),
    )


def divide(numerator: ArrayLike, denominator: ArrayLike) -> DoubleArray:
    """Divide element by element; NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _correct(matrix: DoubleArray) -> DoubleArray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _nanmean(values: DoubleArray) -> DoubleArray:
    return divide(np.nansum(values, axis=-1), np.isfinite(values).sum(-1))
