"""Summaries of metrics over slices: distributions and sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stub_evaluation import scored

from cascade.datasets.reader import SliceInfo
from cascade.evaluation.schema import Distribution
from cascade.evaluation.summary import distribution, mean, size_of, summarize


def test_quartiles_are_the_25th_and_the_75th_percentile_of_the_values_that_exist():
    values = np.append(np.arange(101.0), np.nan)
    assert distribution(values) == Distribution(mean=50.0, median=50.0, quartiles=(25.0, 75.0))


def test_without_values_there_is_no_mean_and_no_quartile():
    assert distribution(np.array([np.nan])) == Distribution(mean=None, median=None, quartiles=(None, None))


def test_a_mean_leaves_out_what_is_none():
    assert (mean([1.0, None, 4.0]), mean([None])) == (2.5, None)


@pytest.mark.parametrize(
    ("diameter_px", "size"), [(0.5, "small"), (49.9, "small"), (50, "medium"), (79.9, "medium"), (80, "large")]
)
def test_a_size_begins_with_its_lower_bound(diameter_px, size):
    assert size_of(replace(scored(0, dice=1.0), diameter_px=diameter_px)) == size


def test_a_class_whose_probability_is_the_threshold_is_certain_as_in_a_prediction():
    """`predict` marks what is below the threshold."""
    slices = [scored(number, 0.9, (p, (1 - p) / 2, (1 - p) / 2)) for number, p in enumerate((0.75, 0.5, 0.4375))]
    assert summarize(slices, uncertain_below=0.5).rejection.coverage == pytest.approx(2 / 3)


def test_a_slice_without_a_mask_is_not_covered():
    assert summarize([scored(0, 0.9, (0.7, 0.2, 0.1)), scored(1, 0.0, (0.0, 0.0, 0.0))]).rejection.coverage == 0.5


def test_intervals_are_those_of_subjects_drawn_anew():
    """Subject 0 has 8 slices of Dice 1, subjects 1 to 7 one of Dice 0 each.

    Of 8 subjects drawn, a binomial number k are subject 0: at most 3 in 98.6 % of the draws, at most 2 in 93 %. The
    mean is k / 8 over the subjects, and 8 k / (8 k + 8 - k) over the slices.
    """
    subjects = [0] * 8 + list(range(1, 8))
    slices = [scored(subject, float(subject == 0)) for subject in subjects]
    slices = [replace(item, info=replace(item.info, path=str(index))) for index, item in enumerate(slices)]
    found = summarize(slices).dice
    assert (found.mean, found.by_subject.value) == (pytest.approx(8 / 15), pytest.approx(1 / 8))
    assert found.by_subject.ci95 == (0.0, 3 / 8)
    assert found.ci95 == pytest.approx((0.0, 24 / 29))


def test_the_auc_by_subject_compares_the_mean_of_the_slices():
    """The sum of subject a's four slices of 0.3 would rank above the 0.6 of subject b."""

    def item(subject, number, label, probabilities):
        return replace(scored(0, 1.0, probabilities), info=SliceInfo(str(number), "", label, subject))

    slices = [item("a", number, "glioma", (0.4, 0.3, 0.3)) for number in range(4)]
    slices += [item("b", 5, "meningioma", (0.6, 0.2, 0.2)), item("c", 6, "pituitary tumor", (0.1, 0.1, 0.8))]
    assert summarize(slices).macro_auc["by_subject"] == pytest.approx(1.0)
