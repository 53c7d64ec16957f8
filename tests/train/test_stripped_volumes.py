"""Findings of skull-stripped volumes are counted by subject."""

from __future__ import annotations

import io

import nibabel
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

pytest.importorskip("torch")

from cascade.io.slices import Slice
from cascade.volume.finding import VolumeFinding
from tests.stub_cascade import cascade_of
from train.calibrate_volumes import LabeledVolume
from train.stripped_volumes import Outcome, outcome_table, strip_volume, stripped_slice

TUMOR = VolumeFinding("tumor", {"glioma": 1.0})
NO_TUMOR = VolumeFinding("no_tumor")


def head(side=128):
    """A disc of 0.5 with a bright rim, on black."""
    radius = np.hypot(*np.meshgrid(*[np.arange(side) - side / 2 + 0.5] * 2)) / side
    return np.select([radius < 0.4, radius < 0.45], [100.0, 200.0]).astype(np.float32)


def test_a_slice_loses_9_mm_of_its_border():
    pixels = stripped_slice(Slice(head(), (1.0, 1.0))).pixels
    assert pixels.max() == pytest.approx(0.5)  # the rim is 6 mm wide
    assert 64 - np.argmax(pixels[64] > 0) == pytest.approx(0.45 * 128 - 9, abs=2.5)
    coarse = stripped_slice(Slice(head(), (2.0, 2.0))).pixels
    assert np.count_nonzero(coarse) > np.count_nonzero(pixels)


def labeled(*paths, subject="a", tumor=True):
    return LabeledVolume("name", "set", subject, "train", tumor, paths)


def test_a_volume_is_thinned_out_and_its_blank_slices_stay(tmp_path):
    array = np.zeros((128, 128, 30), np.float32)
    array[..., 5:25] = head()[..., None]
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), tmp_path / "head.nii.gz")
    outcome = strip_volume(cascade_of(), labeled(tmp_path / "head.nii.gz"), every=3)
    assert (outcome.stripped.slices, outcome.stripped.label, outcome.stripped.volume_ml) == (10, None, 0.0)
    assert not outcome.noted  # its rim is bright


def test_a_stack_of_pictures_stays_whole(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path in paths:
        Image.fromarray(head().astype(np.uint8)).save(path)
    assert strip_volume(cascade_of(), labeled(*paths), every=3).stripped.slices == 12


def test_a_volume_that_is_stripped_already_is_noted(tmp_path):
    array = np.repeat(np.minimum(head(), 100)[..., None], 6, axis=2)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "head.nii.gz")
    assert strip_volume(cascade_of(), labeled(tmp_path / "head.nii.gz")).noted


def test_a_subject_with_a_finding_in_one_of_two_scans_counts_once():
    outcomes = [
        Outcome(labeled(subject="a"), False, NO_TUMOR),
        Outcome(labeled(subject="a"), True, TUMOR),
        Outcome(labeled(subject="b"), False, NO_TUMOR),
        Outcome(labeled(subject="c", tumor=False), False, NO_TUMOR),
    ]
    text = io.StringIO()
    Console(file=text, width=100).print(outcome_table(outcomes))
    rows = [line.replace("│", " ").split() for line in text.getvalue().splitlines() if "train" in line]
    assert rows == [["set", "train", "no", "1", "0", "0"], ["set", "train", "yes", "2", "1", "1"]]
