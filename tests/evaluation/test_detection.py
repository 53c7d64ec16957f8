"""Sensitivity and false positives, as numbers."""

import numpy as np
import pytest

from cascade.evaluation.detection import Negative, detection
from cascade.evaluation.schema import FolderDetection, OperatingPoint


def test_the_operating_point_detects_98_percent_of_the_tumors():
    tumors = np.linspace(0.5, 0.99, 50)  # all 50 are needed
    negatives = [Negative("", peak, 0.0) for peak in (0.1, 0.45, 0.505, 0.8)]
    assert detection(tumors, negatives).operating_point == OperatingPoint(
        min_sensitivity=0.98, threshold=pytest.approx(0.51), sensitivity=0.98, false_positive_rate=0.25
    )


def test_the_operating_point_has_no_lower_threshold_than_it_needs():
    """The ROC curve left out points on its straight lines. The next threshold had more false positives."""
    tumors = np.array([0.9] * 97 + [0.8, 0.7, 0.6])
    result = detection(tumors, [Negative("", 0.1, 0.0)])
    assert result.operating_point.threshold == 0.8
    assert result.operating_point.sensitivity == 0.98
    assert result.curve.threshold == (0.9, 0.8, 0.7, 0.6, 0.1)
    assert result.curve.sensitivity == (0.97, 0.98, 0.99, 1.0, 1.0)
    assert result.curve.false_positive_rate == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_false_positives_are_counted_by_folder_zip_and_volume():
    peaks = {"plain.png": 0.5, "glioma/1.png": 0.9, "glioma/b/2.png": 0.1, "head.nii.gz/0": 0.4}
    result = detection(np.array([0.9]), [Negative(path, peak, 0.0) for path, peak in peaks.items()])
    assert result.by_folder == {
        "": FolderDetection(slices=1, false_positive_rate=1.0),
        "glioma": FolderDetection(slices=2, false_positive_rate=0.5),
        "head.nii.gz": FolderDetection(slices=1, false_positive_rate=0.0),
    }


def test_a_slice_at_the_threshold_shows_a_tumor_as_in_a_prediction():
    result = detection(np.array([0.5, 0.4, 0.9]), [Negative("a", 0.5, 0.0), Negative("b", 0.1, 0.0)])
    assert (result.sensitivity, result.false_positive_rate) == (2 / 3, 0.5)
