"""Detection of tumors: sensitivity on slices with a tumor against false positives on negatives."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from cascade.contract import THRESHOLD
from cascade.evaluation.metrics import DoubleArray
from cascade.evaluation.schema import Detection, DetectionCurve, FolderDetection, OperatingPoint
from cascade.io.preprocess import Letterbox
from cascade.io.slices import Slice
from cascade.pipeline import Cascade
from cascade.tables import table_bytes

LARGE_AREA_FRACTION = 0.005
"""A false positive is large if its mask covers more than this fraction of the slice."""

MIN_SENSITIVITY = 0.98
"""Sensitivity of the operating point."""


@dataclass(frozen=True)
class Negative:
    """What the segmenter predicts for a slice without a tumor.

    Attributes:
        path: Path of the slice; in a volume its number follows: `scan.nii.gz/012`.
        peak: Highest probability of any pixel to be tumor, 0 to 1.
        area_fraction: Fraction of the slice that the predicted mask covers, 0 to 1.
    """

    path: str
    peak: float
    area_fraction: float

    @property
    def folder(self) -> str:
        """The first folder, zip or volume of the path; empty for a file outside of any."""
        return self.path.rpartition("/")[0].partition("/")[0]


def score_negatives(cascade: Cascade, batch: Sequence[tuple[str, Slice]]) -> list[Negative]:
    """Run the segmenter on a batch of slices without a tumor, each with its path."""
    letterboxes = [Letterbox.of(slice_) for _, slice_ in batch]
    squares = np.stack([box.square(slice_.pixels) for box, (_, slice_) in zip(letterboxes, batch, strict=True)])
    probability = cascade.segment(squares[:, None])
    planes = [box.original(plane[0]) for box, plane in zip(letterboxes, probability, strict=True)]
    return [
        Negative(path, float(plane.max()), float((plane >= THRESHOLD).mean()))
        for (path, _), plane in zip(batch, planes, strict=True)
    ]


def detection(tumor_peaks: DoubleArray, negatives: Sequence[Negative]) -> Detection:
    """Compute sensitivity and false-positive rate, and the ROC curve (Fawcett 2006, doi 10.1016/j.patrec.2005.10.010).

    Args:
        tumor_peaks: (N,) highest probability of any pixel, for the slices with a tumor.
        negatives: The slices without a tumor.
    """
    negative_peaks = np.array([item.peak for item in negatives])
    peaks = np.concatenate([tumor_peaks, negative_peaks])
    truth = np.concatenate([np.ones(len(tumor_peaks)), np.zeros(len(negative_peaks))])
    # By default, roc_curve drops points on straight lines. The operating point may be one of them.
    false_positive_rate, sensitivity, thresholds = roc_curve(truth, peaks, drop_intermediate=False)
    first = int(np.argmax(sensitivity >= MIN_SENSITIVITY))
    return Detection(
        negatives=len(negatives),
        sensitivity=float((tumor_peaks >= THRESHOLD).mean()),
        false_positive_rate=float((negative_peaks >= THRESHOLD).mean()),
        large_false_positive_rate=float(np.mean([item.area_fraction > LARGE_AREA_FRACTION for item in negatives])),
        by_folder=_by_folder(negatives),
        auc=float(roc_auc_score(truth, peaks)),
        operating_point=OperatingPoint(
            min_sensitivity=MIN_SENSITIVITY,
            threshold=float(thresholds[first]),
            sensitivity=float(sensitivity[first]),
            false_positive_rate=float(false_positive_rate[first]),
        ),
        curve=DetectionCurve(  # without the first point, whose threshold is infinite
            threshold=tuple(thresholds[1:].tolist()),
            sensitivity=tuple(sensitivity[1:].tolist()),
            false_positive_rate=tuple(false_positive_rate[1:].tolist()),
        ),
    )


def _by_folder(negatives: Sequence[Negative]) -> dict[str, FolderDetection]:
    detected: dict[str, list[bool]] = {}
    for item in negatives:
        detected.setdefault(item.folder, []).append(item.peak >= THRESHOLD)
    return {folder: FolderDetection(len(items), float(np.mean(items))) for folder, items in sorted(detected.items())}


def negatives_to_csv(negatives: Sequence[Negative]) -> bytes:
    """Write negatives as CSV, one row each."""
    return table_bytes(["path", "peak", "area_fraction"], map(asdict, negatives))
