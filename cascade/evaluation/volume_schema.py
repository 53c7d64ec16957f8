"""Results of an evaluation of volumes as dataclasses. `VolumeMetrics` is `volumes` in metrics.json.

None, null in JSON, stands for a value that is not defined. All confidence intervals are from a bootstrap over subjects.
"""

from dataclasses import dataclass

from cascade.evaluation.schema import Distribution, Estimate, Interval
from cascade.volume.finding import VolumeRule


@dataclass(frozen=True)
class VolumeDice(Distribution):
    """Dice in 3-D over volumes with a tumor; 0 for a tumor that was not found.

    Attributes:
        ci95: Confidence interval of the mean.
    """

    ci95: Interval | None


@dataclass(frozen=True)
class VolumeError(Distribution):
    """Predicted minus true tumor volume in milliliters. The mean is the bias (Bland & Altman 1986).

    Attributes:
        mean_absolute: Mean without sign.
        undefined: Number of volumes without a known spacing, which are left out.
    """

    mean_absolute: float | None
    undefined: int


@dataclass(frozen=True)
class TumorMetrics:
    """Metrics of a group of volumes with a tumor.

    Attributes:
        volumes: Number of volumes.
        subjects: Number of subjects that they are from.
        dice: Dice in 3-D of the accepted mask.
        volume_error_ml: Error of the tumor volume.
        sensitivity: Fraction of volumes that have a finding, wherever it lies.
        localized_sensitivity: Fraction of volumes whose accepted mask touches the true tumor.
        accuracy: Fraction of volumes whose class is correct; that of a volume without a finding is wrong.
    """

    volumes: int
    subjects: int
    dice: VolumeDice
    volume_error_ml: VolumeError
    sensitivity: Estimate
    localized_sensitivity: Estimate
    accuracy: Estimate


@dataclass(frozen=True)
class TumorFreeMetrics:
    """Metrics of the volumes without a tumor.

    Attributes:
        volumes: Number of volumes.
        subjects: Number of subjects that they are from.
        false_positive_rate: Fraction of volumes that have a finding.
    """

    volumes: int
    subjects: int
    false_positive_rate: Estimate


@dataclass(frozen=True)
class VolumeConfusionMatrix:
    """Number of volumes by true class (row) and predicted class (column).

    Attributes:
        rows: True classes, then `none`: no tumor.
        columns: Predicted classes, then `none`: no finding.
        volumes: Number of volumes in each row and column.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    volumes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class VolumeMetrics:
    """Metrics of all volumes.

    Attributes:
        volumes: Number of volumes.
        subjects: Number of subjects that they are from.
        tumor: Metrics of the volumes with a tumor.
        by_class: The same for each true class.
        tumor_free: Metrics of the volumes without a tumor.
        false_positives_per_head: Mean number of accepted components that do not touch the true tumor, over all volumes.
        confusion_matrix: Volumes by true and predicted class.
        uncertain_fraction: Fraction of the findings whose class is uncertain.
    """

    volumes: int
    subjects: int
    tumor: TumorMetrics
    by_class: dict[str, TumorMetrics]
    tumor_free: TumorFreeMetrics
    false_positives_per_head: Estimate
    confusion_matrix: VolumeConfusionMatrix
    uncertain_fraction: float | None


@dataclass(frozen=True)
class VolumeFailures:
    """Volumes that could not be evaluated, with one problem each."""

    volumes: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class VolumeEvaluation:
    """Result of `evaluate_volumes`.

    Attributes:
        cascade: Version of cascade.
        date: Time in UTC, ISO 8601.
        models: SHA-256 by name of the model.
        backend: Description of the backend.
        volume_rule: When a component of a volume is a tumor.
        uncertain_below: A class with a lower probability is uncertain.
        failed: Volumes that could not be evaluated.
        metrics: Metrics of the others; the key `volumes` of metrics.json.
    """

    cascade: str
    date: str
    models: dict[str, str]
    backend: str
    volume_rule: VolumeRule
    uncertain_below: float
    failed: VolumeFailures
    metrics: VolumeMetrics
