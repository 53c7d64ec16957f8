"""The scores of single slices and volumes against numbers worked out by hand."""

import numpy as np
import pytest
from stub_evaluation import BRIGHT, StubClassifier, StubSegmenter

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import LabeledSlice
from cascade.datasets.reader import SliceInfo
from cascade.datasets.volumes import VolumeInfo, VolumeLabel
from cascade.evaluation.scores import score_batch
from cascade.evaluation.volume_scores import score_volume
from cascade.evaluation.volume_summary import summarize_volumes
from cascade.pipeline import Cascade
from cascade.result import VolumePrediction
from cascade.runtime.cpu import CpuBackend
from cascade.volume.finding import VolumeFinding


def test_a_distance_in_millimeters_is_along_the_axis_of_its_spacing():
    """The mask lies 20 columns beside the tumor; a column is 2 mm wide and a row 0.5 mm."""
    pixels, mask = np.zeros((100, 100), np.float32), np.zeros((100, 100), bool)
    pixels[40:50, 60:70], mask[40:50, 40:50] = BRIGHT, True
    labeled = LabeledSlice(pixels, mask, "glioma", "1", (0.5, 2.0))
    cascade = Cascade(CpuBackend(StubSegmenter(), StubClassifier()), "stub")
    (found,) = score_batch(cascade, [(SliceInfo("a.png", "", "glioma", "1"), labeled)])
    assert found.hausdorff95_px == pytest.approx(20, abs=1)
    assert found.hausdorff95_mm == pytest.approx(2 * found.hausdorff95_px)


def score(patient, slab_mm=(5.0,) * 4):
    """Score a volume whose tumor was found: 25 pixels in slice 1 and 50 in slice 2, of 1 mm² each."""
    mask = np.zeros((4, 20, 20), bool)
    mask[1, 5:10, 5:10] = mask[2, 5:10, 5:15] = True
    finding = VolumeFinding("tumor", dict(zip(CLASS_NAMES, (0.1, 0.8, 0.1), strict=True)), False, 8.0, 4, 2, 1, 0.5)
    label = VolumeLabel(mask, np.array(slab_mm) / 1000)
    return score_volume(VolumeInfo("a.nii", "m.nii", "glioma", patient), label, VolumePrediction(finding, (), mask))


def test_each_slice_counts_by_its_own_thickness_in_the_true_volume():
    assert score("1", (3.0, 3.0, 4.5, 6.0)).true_ml == pytest.approx((25 * 3.0 + 50 * 4.5) / 1000)


def test_two_scans_of_one_subject_are_two_volumes_of_one_subject():
    metrics = summarize_volumes([score("MR7A"), score("MR7B"), score("300")])
    assert (metrics.volumes, metrics.subjects, metrics.tumor.subjects) == (3, 2, 2)
