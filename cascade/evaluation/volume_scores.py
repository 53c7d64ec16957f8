"""Scores of labeled volumes, one by one, and volumes.csv, which they are written to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.contract import CLASS_NAMES
from cascade.datasets.volumes import NO_TUMOR, VolumeInfo, VolumeLabel
from cascade.evaluation.metrics import BoolArray, dice
from cascade.result import VolumePrediction
from cascade.tables import table_bytes
from cascade.volume.components import find_components
from cascade.volume.finding import VolumeFinding


@dataclass(frozen=True)
class ScoredVolume:
    """Scores of one volume.

    Attributes:
        info: The volume.
        finding: What was found in it.
        dice: Dice in 3-D of the accepted mask, 0 to 1; None for a volume without a tumor.
        true_ml: True tumor volume in milliliters; None if the spacing is unknown.
        touches_tumor: True if the accepted mask has a voxel in common with the true tumor.
        false_positives: Number of accepted components without a voxel in common with the true tumor.
    """

    info: VolumeInfo
    finding: VolumeFinding
    dice: float | None
    true_ml: float | None
    touches_tumor: bool
    false_positives: int

    @property
    def predicted_label(self) -> str:
        """Class of the finding, or NO_TUMOR."""
        return self.finding.label or NO_TUMOR

    @property
    def error_ml(self) -> float | None:
        """Predicted minus true tumor volume in milliliters; None if the spacing is unknown."""
        if self.true_ml is None or self.finding.volume_ml is None:
            return None
        return self.finding.volume_ml - self.true_ml


def score_volume(info: VolumeInfo, label: VolumeLabel, prediction: VolumePrediction) -> ScoredVolume:
    """Compare the prediction of a volume with its label."""
    true, predicted = label.mask, prediction.mask
    return ScoredVolume(
        info=info,
        finding=prediction.finding,
        dice=dice(true, predicted) if info.has_tumor else None,
        true_ml=None if label.pixel_ml is None else float(true.sum(axis=(1, 2)) @ label.pixel_ml),
        touches_tumor=bool((true & predicted).any()),
        false_positives=count_false_positives(true, predicted),
    )


def count_false_positives(true: BoolArray, predicted: BoolArray) -> int:
    """Count the components of `predicted`, (N, H, W), that have no voxel in common with `true`, (N, H, W)."""
    components = find_components(predicted)
    count = int(components.areas.shape[1])
    touched = np.unique(components.labels[true[components.region]])  # with 0, the background
    return count - int(np.count_nonzero(touched))


def volumes_to_csv(scored: Sequence[ScoredVolume]) -> bytes:
    """Write volumes as CSV, one row each; cells without a value are empty. Needs at least one volume."""
    rows = [_to_row(item) for item in scored]
    return table_bytes(list(rows[0]), rows)


def _to_row(item: ScoredVolume) -> dict[str, Any]:
    finding = item.finding
    return {
        "path": item.info.path,
        "patient": item.info.patient,
        "label": item.info.label,
        "predicted": item.predicted_label,
        **{f"probability {name}": finding.probabilities.get(name) for name in CLASS_NAMES},
        "uncertain": finding.uncertain,
        "dice": item.dice,
        "true_ml": item.true_ml,
        "predicted_ml": finding.volume_ml,
        "touches_tumor": item.touches_tumor,
        "false_positives": item.false_positives,
        "slices": finding.slices,
        "tumor_slices": finding.tumor_slices,
        "support": finding.support,
    }
