"""95 % confidence intervals from a bootstrap over subjects, since slices of one subject are not independent.

Percentile bootstrap of clusters: Efron & Tibshirani 1993, chapters 8 and 13; Davison & Hinkley 1997, section 3.8. With
few subjects the intervals are too narrow, and more so if some have most of the slices (Cameron, Gelbach & Miller 2008).
"""

from collections.abc import Sequence

import numpy as np

from cascade.evaluation.metrics import DoubleArray, divide
from cascade.evaluation.schema import Interval

RESAMPLES = 2000
SEED = 0
PERCENTILES = (2.5, 97.5)


class SubjectBootstrap:
    """Resamples subjects with replacement, each with all of its slices.

    Attributes:
        subjects: The S subjects, sorted.
        subject_of: (N,) int64, index into `subjects` for each slice.
    """

    def __init__(self, subjects: Sequence[str]) -> None:
        """Draw RESAMPLES resamples of as many subjects as there are.

        Args:
            subjects: Subject of each of the N slices.
        """
        names, self.subject_of = np.unique(np.asarray(subjects), return_inverse=True)
        self.subjects: list[str] = names.tolist()
        count = len(self.subjects)
        draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        self._draws = draws.astype(np.float64)  # (RESAMPLES, S): how often each subject was drawn

    def sum_by_subject(self, values: DoubleArray) -> DoubleArray:
        """Sum over the slices of each subject: (N, ...) to (S, ...)."""
        sums = np.zeros((len(self.subjects), *values.shape[1:]))
        np.add.at(sums, self.subject_of, values)
        return sums

    def resample(self, sums: DoubleArray) -> DoubleArray:
        """Sum over the subjects of each resample: (S, ...) to (RESAMPLES, ...)."""
        return np.tensordot(self._draws, sums, axes=1)

    def subject_means(self, values: DoubleArray) -> DoubleArray:
        """Mean over the slices of each subject: (N,) to (S,). Ignores NaN; NaN for a subject without values."""
        counts = self.sum_by_subject(np.isfinite(values).astype(np.float64))
        return divide(self.sum_by_subject(np.nan_to_num(values)), counts)

    def mean_interval(self, values: DoubleArray) -> Interval | None:
        """Confidence interval of the mean over slices.

        Args:
            values: (N,), NaN for slices that are left out.

        Returns:
            The interval, or None if fewer than two subjects have values.
        """
        counts = self.sum_by_subject(np.isfinite(values).astype(np.float64))
        return self._ratio_interval(self.sum_by_subject(np.nan_to_num(values)), counts)

    def subject_mean_interval(self, values: DoubleArray) -> Interval | None:
        """Confidence interval of the mean over subjects.

        Args:
            values: (S,), NaN for subjects that are left out.

        Returns:
            The interval, or None if fewer than two subjects have values.
        """
        return self._ratio_interval(np.nan_to_num(values), np.isfinite(values).astype(np.float64))

    def _ratio_interval(self, sums: DoubleArray, counts: DoubleArray) -> Interval | None:
        if np.count_nonzero(counts) < 2:
            return None
        return self.interval(divide(self.resample(sums), self.resample(counts)))

    def interval(self, statistics: DoubleArray) -> Interval | None:
        """Percentile interval of a statistic.

        Args:
            statistics: (RESAMPLES,), NaN for resamples in which the statistic is not defined.

        Returns:
            The 2.5th and the 97.5th percentile, or None for fewer than two subjects.
        """
        defined = statistics[np.isfinite(statistics)]
        if len(self.subjects) < 2 or not len(defined):
            return None
        low, high = np.percentile(defined, PERCENTILES)
        return float(low), float(high)
