"""Results of an evaluation of slices as dataclasses.

The fields of `Evaluation` and `Metrics` are the keys of metrics.json. None, null in JSON, stands for a value that is
not defined, such as the recall of a class without slices.
"""

from dataclasses import dataclass

Interval = tuple[float, float]
"""Lower and upper bound of a 95 % confidence interval, from a bootstrap over subjects."""

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class Estimate:
    """A metric with its confidence interval, which is None for fewer than two subjects."""

    value: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class Distribution:
    """A metric over slices. Slices without a value are left out.

    Attributes:
        mean: Mean.
        median: Median.
        quartiles: First and third quartile.
    """

    mean: float | None
    median: float | None
    quartiles: Values


@dataclass(frozen=True)
class DistanceDistribution(Distribution):
    """A distance over slices.

    Attributes:
        undefined: Number of slices without a distance: the mask is empty, or the pixel spacing is unknown.
    """

    undefined: int


@dataclass(frozen=True)
class DiceDistribution(Distribution):
    """Dice over slices; an empty mask counts as 0.

    Attributes:
        ci95: Confidence interval of the mean.
        missed_fraction: Fraction of slices whose predicted mask is empty.
        mislocalized_fraction: Fraction of slices whose predicted mask is not empty and does not touch the tumor.
        by_subject: Mean over subjects of each subject's mean, so that all subjects have the same weight.
    """

    ci95: Interval | None
    missed_fraction: float | None
    mislocalized_fraction: float | None
    by_subject: Estimate


@dataclass(frozen=True)
class MaskMetrics:
    """Predicted masks compared with the true masks of a group of slices.

    Attributes:
        slices: Number of slices.
        subjects: Number of subjects that they are from.
        dice: Dice.
        iou: Intersection over union.
        hausdorff95_px: 95 % Hausdorff distance in pixels.
        hausdorff95_mm: 95 % Hausdorff distance in mm.
    """

    slices: int
    subjects: int
    dice: DiceDistribution
    iou: Distribution
    hausdorff95_px: DistanceDistribution
    hausdorff95_mm: DistanceDistribution


@dataclass(frozen=True)
class ClassMetrics(MaskMetrics):
    """Metrics of one class. Precision to `auc` are by slice, with the class predicted from the predicted mask."""

    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None


@dataclass(frozen=True)
class SizeMetrics(MaskMetrics):
    """Metrics of tumors with a diameter from the first to below the second of `diameter_px`; None is no limit."""

    diameter_px: tuple[int, int | None]


@dataclass(frozen=True)
class CorrectWith:
    """Number of slices by the masks with which their class is predicted correctly, to locate errors.

    Attributes:
        both_masks: Correct with the true and with the predicted mask.
        true_mask_only: Correct with the true mask only: errors of the segmenter.
        predicted_mask_only: Correct with the predicted mask only.
        neither: Correct with neither mask: errors of the classifier.
    """

    both_masks: int
    true_mask_only: int
    predicted_mask_only: int
    neither: int


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts by true class (row) and predicted class (column), of slices and of subjects.

    Attributes:
        rows: True classes.
        columns: Predicted classes, then `none`: no tumor was found.
        slices: Number of slices in each row and column.
        subjects: Number of subjects in each row and column.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    slices: tuple[tuple[int, ...], ...]
    subjects: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ReliabilityCurve:
    """Accuracy by predicted probability; see `metrics.reliability`.

    Attributes:
        expected_calibration_error: Mean gap between accuracy and probability.
        slices: Number of slices in each bin.
        confidence: Mean predicted probability in each bin.
        accuracy: Accuracy in each bin.
    """

    expected_calibration_error: float | None
    slices: tuple[int, ...]
    confidence: Values
    accuracy: Values


@dataclass(frozen=True)
class RejectionCurve:
    """Accuracy of the most confident slices, by the fraction of slices that they are."""

    coverage: tuple[float, ...]
    accuracy: Values


@dataclass(frozen=True)
class Rejection:
    """Accuracy after rejecting uncertain slices, as in selective classification (Geifman & El-Yaniv 2017).

    Attributes:
        threshold: Slices with a lower probability of the predicted class are uncertain.
        coverage: Fraction of slices that are not uncertain.
        accuracy: Accuracy of these slices.
        curve: The same for every tenth of the slices. Slices without a mask are rejected first.
    """

    threshold: float
    coverage: float | None
    accuracy: float | None
    curve: RejectionCurve


@dataclass(frozen=True)
class Metrics(MaskMetrics):
    """Metrics of all slices with a tumor.

    `accuracy`, `balanced_accuracy`, `macro_f1` and `macro_auc` have a value for each of `scores.CROPS`, by slice, and
    for `by_subject`: the predicted mask, with probabilities averaged over the slices of a subject.
    """

    accuracy: dict[str, Estimate]
    balanced_accuracy: dict[str, Estimate]
    macro_f1: dict[str, Estimate]
    macro_auc: dict[str, float | None]
    correct_with: CorrectWith
    by_class: dict[str, ClassMetrics]
    by_size: dict[str, SizeMetrics]
    confusion_matrix: ConfusionMatrix
    reliability: ReliabilityCurve
    rejection: Rejection


@dataclass(frozen=True)
class FolderDetection:
    """Number of negatives in a folder, and the fraction of them in which a tumor is detected."""

    slices: int
    false_positive_rate: float


@dataclass(frozen=True)
class OperatingPoint:
    """The highest threshold whose sensitivity is at least `min_sensitivity`."""

    min_sensitivity: float
    threshold: float
    sensitivity: float
    false_positive_rate: float


@dataclass(frozen=True)
class DetectionCurve:
    """ROC curve of tumor detection, by falling threshold."""

    threshold: tuple[float, ...]
    sensitivity: tuple[float, ...]
    false_positive_rate: tuple[float, ...]


@dataclass(frozen=True)
class Detection:
    """Detection of tumors on slices with a tumor and on negatives.

    A tumor is detected if the highest probability of the slice reaches a threshold, by default `contract.THRESHOLD`.

    Attributes:
        negatives: Number of slices without a tumor.
        sensitivity: Fraction of slices with a tumor in which one is detected.
        false_positive_rate: Fraction of negatives in which a tumor is detected.
        large_false_positive_rate: Fraction of negatives with a mask above `detection.LARGE_AREA_FRACTION`.
        by_folder: False positives by folder.
        auc: Area under the ROC curve.
        operating_point: Threshold for a high sensitivity.
        curve: ROC curve.
    """

    negatives: int
    sensitivity: float
    false_positive_rate: float
    large_false_positive_rate: float
    by_folder: dict[str, FolderDetection]
    auc: float
    operating_point: OperatingPoint
    curve: DetectionCurve


@dataclass(frozen=True)
class Failures:
    """Slices that could not be evaluated, with one problem each."""

    slices: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        cascade: Version of cascade.
        date: Time in UTC, ISO 8601.
        models: SHA-256 by name of the model.
        models_trained_on_this_split: True if all models were trained on `split_sha256` and on no other split.
        backend: Description of the backend.
        subset: Subset of the split, or `all` for a whole folder.
        split_sha256: Identifies the split; None for a whole folder.
        failed: Slices that could not be evaluated.
        metrics: Metrics of the slices with a tumor; its fields are keys of metrics.json themselves.
        detection: Detection of tumors; None without negatives.
    """

    cascade: str
    date: str
    models: dict[str, str]
    models_trained_on_this_split: bool
    backend: str
    subset: str
    split_sha256: str | None
    failed: Failures
    metrics: Metrics
    detection: Detection | None
