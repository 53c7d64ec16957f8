"""Metrics over scored volumes.

Dice: see `metrics.dice`. Sensitivity and false-positive rate: Altman & Bland 1994, doi 10.1136/bmj.308.6943.1552.
False positives per head, as in free-response ROC analysis: Bunch et al. 1978, doi 10.1117/12.955926. Bias of the
volume: Bland & Altman 1986, doi 10.1016/S0140-6736(86)90837-8.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import subject_id
from cascade.datasets.volumes import NO_TUMOR
from cascade.evaluation.bootstrap import SubjectBootstrap
from cascade.evaluation.metrics import BoolArray
from cascade.evaluation.schema import Estimate
from cascade.evaluation.summary import distribution, mean
from cascade.evaluation.volume_schema import (
    TumorFreeMetrics,
    TumorMetrics,
    VolumeConfusionMatrix,
    VolumeDice,
    VolumeError,
    VolumeMetrics,
)
from cascade.evaluation.volume_scores import ScoredVolume

LABELS = (*CLASS_NAMES, NO_TUMOR)


class _Group:
    """Volumes for which `selected`, (N,), is True, with the bootstrap over the subjects of all volumes."""

    def __init__(self, bootstrap: SubjectBootstrap, selected: BoolArray) -> None:
        self._bootstrap = bootstrap
        self.selected = selected
        self.volumes = int(selected.sum())
        self.subjects = len(set(bootstrap.subject_of[selected].tolist()))

    def estimate(self, values: ArrayLike) -> Estimate:
        """Return the mean of (N,) values over the selected volumes, with its interval."""
        values = np.where(self.selected, np.asarray(values, dtype=float), np.nan)
        return Estimate(mean(values[self.selected]), self._bootstrap.mean_interval(values))


def summarize_volumes(scored: Sequence[ScoredVolume]) -> VolumeMetrics:
    """Compute all metrics of at least one volume."""
    bootstrap = SubjectBootstrap([subject_id(item.info.patient) for item in scored])
    labels = np.array([item.info.label for item in scored])
    everything = _Group(bootstrap, np.full(len(scored), True))
    tumor_free = _Group(bootstrap, labels == NO_TUMOR)
    found = [item for item in scored if item.finding.label]
    return VolumeMetrics(
        volumes=everything.volumes,
        subjects=everything.subjects,
        tumor=_tumor_metrics(scored, _Group(bootstrap, labels != NO_TUMOR)),
        by_class={name: _tumor_metrics(scored, _Group(bootstrap, labels == name)) for name in CLASS_NAMES},
        tumor_free=TumorFreeMetrics(
            volumes=tumor_free.volumes,
            subjects=tumor_free.subjects,
            false_positive_rate=tumor_free.estimate([item.finding.label is not None for item in scored]),
        ),
        false_positives_per_head=everything.estimate([item.false_positives for item in scored]),
        confusion_matrix=_confusion_matrix(scored),
        uncertain_fraction=mean([item.finding.uncertain for item in found]),
    )


def _tumor_metrics(scored: Sequence[ScoredVolume], group: _Group) -> TumorMetrics:
    dice, errors_ml = (
        np.array([getattr(item, name) for item in scored], dtype=float)  # None becomes NaN
        for name in ("dice", "error_ml")
    )
    errors_ml = errors_ml[group.selected]
    return TumorMetrics(
        volumes=group.volumes,
        subjects=group.subjects,
        dice=VolumeDice(**vars(distribution(dice[group.selected])), ci95=group.estimate(dice).ci95),
        volume_error_ml=VolumeError(
            **vars(distribution(errors_ml)),
            mean_absolute=mean(np.abs(errors_ml[np.isfinite(errors_ml)])),
            undefined=int(np.isnan(errors_ml).sum()),
        ),
        sensitivity=group.estimate([item.finding.label is not None for item in scored]),
        localized_sensitivity=group.estimate([item.touches_tumor for item in scored]),
        accuracy=group.estimate([item.predicted_label == item.info.label for item in scored]),
    )


def _confusion_matrix(scored: Sequence[ScoredVolume]) -> VolumeConfusionMatrix:
    counts = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    for item in scored:
        counts[LABELS.index(item.info.label), LABELS.index(item.predicted_label)] += 1
    return VolumeConfusionMatrix(rows=LABELS, columns=LABELS, volumes=tuple(map(tuple, counts.tolist())))
