"""Summaries of metrics over slices: distributions and sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stub_evaluation import scored

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
