"""How sure a number is: 95 % intervals from resampling patients, since the slices of one patient are alike.

Percentile bootstrap of clusters: Efron & Tibshirani 1993, chapters 8 and 13; Davison & Hinkley 1997, section 3.8. Of
few patients it is too narrow, the more so where some have most of the slices (Cameron, Gelbach & Miller 2008).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]

RESAMPLES = 2000
SEED = 0


class PatientBootstrap:
    """RESAMPLES times as many patients as there are, drawn with replacement; each brings all of its slices.

    people  the N slices' patients, sorted, each once.
    of      (N,) each slice's place in `people`.
    """

    def __init__(self, patients: Sequence[str]) -> None:
        people, of = np.unique(np.asarray(patients), return_inverse=True)
        self.people: list[str] = people.tolist()
        self.of = of
        count = len(self.people)
        draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        self._draws = draws.astype(np.float64)  # (RESAMPLES, patients): how often each was drawn

    def by_patient(self, values: DoubleArray) -> DoubleArray:
        """(N, ...) one a slice → (patients, ...), summed over each patient's slices."""
        sums = np.zeros((len(self.people), *values.shape[1:]))
        np.add.at(sums, self.of, values)
        return sums

    def resampled(self, by_patient: DoubleArray) -> DoubleArray:
        """(patients, ...) sums → (RESAMPLES, ...): the sum over the patients of each resample."""
        return np.tensordot(self._draws, by_patient, axes=1)

    def patient_means(self, values: DoubleArray) -> DoubleArray:
        """(N,) one a slice, NaN for one that is not meant → (patients,), NaN for a patient without any."""
        counts = self.by_patient(np.isfinite(values).astype(np.float64))
        return _share(self.by_patient(np.nan_to_num(values)), counts)

    def mean_interval(self, values: DoubleArray) -> list[float] | None:
        """Of the mean over slices of `values`, (N,); NaN stands for a slice that is not meant."""
        counts = self.by_patient(np.isfinite(values).astype(np.float64))
        return self._interval_of_share(self.by_patient(np.nan_to_num(values)), counts)

    def patient_mean_interval(self, values: DoubleArray) -> list[float] | None:
        """Of the mean over patients of `values`, (patients,); NaN stands for a patient who is not meant."""
        return self._interval_of_share(np.nan_to_num(values), np.isfinite(values).astype(np.float64))

    def _interval_of_share(self, sums: DoubleArray, counts: DoubleArray) -> list[float] | None:
        if np.count_nonzero(counts) < 2:
            return None
        return self.interval(_share(self.resampled(sums), self.resampled(counts)))

    def interval(self, statistics: DoubleArray) -> list[float] | None:
        """(RESAMPLES,) → [2.5th, 97.5th percentile], without the resamples that leave the statistic undefined (NaN).

        None for fewer than two patients: resampling one tells nothing.
        """
        defined = statistics[np.isfinite(statistics)]
        if len(self.people) < 2 or not len(defined):
            return None
        return [float(value) for value in np.percentile(defined, [2.5, 97.5])]


def _share(sums: DoubleArray, counts: DoubleArray) -> DoubleArray:
    """NaN where nothing is counted."""
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
