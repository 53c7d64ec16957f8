"""The formulas: mask against mask, class against class, stated probability against truth.

Masks: Taha & Hanbury 2015, doi 10.1186/s12880-015-0068-x. Classes: Sokolova & Lapalme 2009,
doi 10.1016/j.ipm.2009.03.002. NaN is what a formula gives where it divides nothing by nothing.
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
"""The class index of a slice in which no tumor was found: never right."""

BINS = 15
"""Of the reliability curve, as in Guo et al. 2017."""


def dice(true: BoolArray, predicted: BoolArray) -> float:
    """2 |A and B| / (|A| + |B|); 0 where one mask is empty, NaN where both are. Dice 1945, doi 10.2307/1932409."""
    total = int(true.sum()) + int(predicted.sum())
    return 2 * int((true & predicted).sum()) / total if total else float("nan")


def iou(true: BoolArray, predicted: BoolArray) -> float:
    """|A and B| / |A or B|; 0 where one mask is empty, NaN where both are. Jaccard 1912."""
    union = int((true | predicted).sum())
    return int((true & predicted).sum()) / union if union else float("nan")


def hausdorff95(true: BoolArray, predicted: BoolArray, spacing: tuple[float, float] = (1.0, 1.0)) -> float | None:
    """95 % Hausdorff distance in the unit of `spacing`, (row, column) between pixel centres; None if a mask is empty.

    The 95th percentile of the distances from each border pixel of one mask to the nearest border pixel of the other,
    the larger of the two directions: Huttenlocher et al. 1993, doi 10.1109/34.232073, in the definition MONAI follows.
    """
    if not (true.any() and predicted.any()):
        return None
    either = true | predicted
    rows, columns = np.flatnonzero(either.any(1)), np.flatnonzero(either.any(0))
    # Smaller than the slice, hence faster, and exact: it holds every border pixel of both masks.
    region = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    borders = [mask[region] & ~binary_erosion(mask[region]) for mask in (true, predicted)]
    return max(
        float(np.percentile(distance_transform_edt(~other, sampling=spacing)[border], 95))
        for border, other in (borders, reversed(borders))
    )


def chosen(probabilities: DoubleArray) -> IntArray:
    """(N, 3) by class → (N,) the most probable one; NONE where all are 0: no mask, so no class."""
    return np.where(probabilities.any(axis=1), probabilities.argmax(axis=1), NONE).astype(np.int64)


def confusion(true: IntArray, predicted: IntArray) -> DoubleArray:
    """(N,) true and predicted classes → (N, 3, 4): an item has one 1, true class down and predicted class across.

    Summed over any items it is their confusion matrix, whose last column is NONE. The functions below take such sums,
    (..., 3, 4), and return one number for each, or one a class.
    """
    matrices = np.zeros((len(true), NONE, NONE + 1))
    matrices[np.arange(len(true)), true, predicted] = 1
    return matrices


def accuracy(matrix: DoubleArray) -> DoubleArray:
    """(..., 3, 4) → (...): share of the items that got their true class."""
    return _ratio(_right(matrix).sum(-1), matrix.sum((-2, -1)))


def recall(matrix: DoubleArray) -> DoubleArray:
    """(..., 3, 4) → (..., 3): share of the class's items that got it; NaN for a class without items."""
    return _ratio(_right(matrix), matrix.sum(-1))


def precision(matrix: DoubleArray) -> DoubleArray:
    """(..., 3, 4) → (..., 3): share of the items given the class that are of it; NaN for a class given to none."""
    return _ratio(_right(matrix), matrix[..., :NONE].sum(-2))


def f1(matrix: DoubleArray) -> DoubleArray:
    """(..., 3, 4) → (..., 3): harmonic mean of precision and recall; NaN for a class neither true nor given."""
    return _ratio(2 * _right(matrix), matrix.sum(-1) + matrix[..., :NONE].sum(-2))


def balanced_accuracy(matrix: DoubleArray) -> DoubleArray:
    """(..., 3, 4) → (...): mean recall of the classes that occur (Brodersen et al. 2010, doi 10.1109/ICPR.2010.764)."""
    return _mean_where_defined(recall(matrix))


def macro_f1(matrix: DoubleArray) -> DoubleArray:
    """(..., 3, 4) → (...): mean F1 of the classes that are true or given somewhere."""
    return _mean_where_defined(f1(matrix))


def auc(true: IntArray, probabilities: DoubleArray) -> list[float | None]:
    """(N,) true classes and (N, 3) → for each class the area under its ROC curve against the rest.

    None where all items are of the class or none is. A slice without a mask has probability 0 for every class, so it
    ranks below all slices that were given one.
    """
    sides = [true == index for index in range(NONE)]
    return [
        float(roc_auc_score(side, probabilities[:, index])) if side.any() and not side.all() else None
        for index, side in enumerate(sides)
    ]


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often the class is right at each stated probability (Guo et al. 2017, arXiv 1706.04599).

    counts      (BINS,) items a bin; bin i holds confidences above i / BINS up to (i + 1) / BINS.
    confidence  (BINS,) their mean stated probability, NaN in an empty bin.
    accuracy    (BINS,) the share of them whose class is right, NaN in an empty bin.
    """

    counts: IntArray
    confidence: DoubleArray
    accuracy: DoubleArray

    @property
    def expected_error(self) -> float | None:
        """ECE: |accuracy - confidence|, each bin weighing by its count; None without items."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float(np.average(gaps, weights=self.counts)) if self.counts.any() else None


def reliability(true: IntArray, probabilities: DoubleArray) -> Reliability:
    """(N,) true classes and (N, 3). Slices without a mask state no probability and are left out."""
    stated = probabilities.any(axis=1)
    confidence, right = probabilities[stated].max(axis=1), probabilities[stated].argmax(axis=1) == true[stated]
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    return Reliability(
        counts,
        _ratio(np.bincount(bins, confidence, BINS), counts),
        _ratio(np.bincount(bins, right, BINS), counts),
    )


def _right(matrix: DoubleArray) -> DoubleArray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(above: ArrayLike, below: ArrayLike) -> DoubleArray:
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def _mean_where_defined(values: DoubleArray) -> DoubleArray:
    return _ratio(np.nansum(values, axis=-1), np.isfinite(values).sum(-1))
