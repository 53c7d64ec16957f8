"""Tumors found against false alarms, as numbers."""

import numpy as np
import pytest

from cascade.evaluation.detection import TumorFreeSlice, presence


def test_the_threshold_that_finds_98_percent_of_the_tumors_is_told():
    tumors = np.linspace(0.5, 0.99, 50)  # all 50 are needed
    free = [TumorFreeSlice("", peak, 0.0) for peak in (0.1, 0.45, 0.505, 0.8)]
    found = presence(tumors, free)["at_sensitivity"]
    assert found == {"least": 0.98, "threshold": pytest.approx(0.51), "sensitivity": 0.98, "false_alarms": 0.25}


def test_no_threshold_is_told_that_gives_up_more_than_it_must():
    """The curve left out the points on its straight lines, and the next point's threshold raised more false alarms."""
    tumors = np.array([0.9] * 97 + [0.8, 0.7, 0.6])
    found = presence(tumors, [TumorFreeSlice("", 0.1, 0.0)])
    assert found["at_sensitivity"]["threshold"] == 0.8
    assert found["at_sensitivity"]["sensitivity"] == 0.98
    assert found["curve"]["threshold"] == [0.9, 0.8, 0.7, 0.6, 0.1]


def test_false_alarms_are_told_of_each_folder_zip_and_volume():
    peaks = {"plain.png": 0.5, "glioma/1.png": 0.9, "glioma/b/2.png": 0.1, "head.nii.gz/0": 0.4}
    found = presence(np.array([0.9]), [TumorFreeSlice(path, peak, 0.0) for path, peak in peaks.items()])["by_folder"]
    assert found == {
        "": {"slices": 1, "false_alarms": 1.0},
        "glioma": {"slices": 2, "false_alarms": 0.5},
        "head.nii.gz": {"slices": 1, "false_alarms": 0.0},
    }
