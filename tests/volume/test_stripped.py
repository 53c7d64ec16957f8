"""A note on volumes that show a brain alone, and none on whole heads, whatever their background."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from stub_cascade import cascade_of

from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.volume.stripped import STRIPPED_NOTE, is_looked_at, is_stripped, looks_stripped

SIDE = 200
RADIUS_MM = np.hypot(*np.meshgrid(*[np.arange(SIDE) - SIDE / 2 + 0.5] * 2))


def brain(background=0.0, gray=0.8):
    """A slice of 1 mm pixels: white matter of 100, a cortex of 5 mm, and nothing around it."""
    pixels = np.full((SIDE, SIDE), background, np.float32)
    pixels[RADIUS_MM < 65] = background + 100 * gray
    pixels[RADIUS_MM < 60] = background + 100
    pixels[RADIUS_MM < 12] = background + 25  # ventricles
    return pixels


def head(background=0.0, fat=200.0, bone=15.0):
    """The same brain under a skull of 7 mm and a scalp of 5 mm."""
    pixels = np.full((SIDE, SIDE), background, np.float32)
    pixels[RADIUS_MM < 77] = background + fat
    pixels[RADIUS_MM < 72] = background + bone
    return np.where(RADIUS_MM < 65, brain(background), pixels).astype(np.float32)


def noisy(pixels):
    """Noise in the tissue; the background stays as it is."""
    noise = np.random.default_rng(0).normal(0, 5, pixels.shape)
    return np.where(pixels == pixels[0, 0], pixels, pixels + noise).astype(np.float32)


@pytest.mark.parametrize("background", [0.0, -3.0, 127.0])
def test_a_brain_on_a_constant_background_looks_stripped(background):
    assert looks_stripped(noisy(brain(background)), (1.0, 1.0)) is True


@pytest.mark.parametrize(
    "pixels",
    [
        head(),
        head(bone=0.0),  # whoever zeroes the air by a threshold zeroes bone as well
        head(fat=90.0),  # fat suppression
        head(bone=60.0),  # thick slices blur the skull
        head(background=20.0),
        head() + np.random.default_rng(0).rayleigh(2, (SIDE, SIDE)).astype(np.float32),
        brain() + np.random.default_rng(0).rayleigh(2, (SIDE, SIDE)).astype(np.float32),
    ],
    ids=["zeroed air", "zeroed bone", "no fat", "little bone", "gray air", "noise", "brain in noise"],
)
def test_a_whole_head_or_a_background_of_noise_does_not(pixels):
    assert looks_stripped(noisy(pixels), (1.0, 1.0)) is False


def test_distances_are_in_millimeters_also_of_unequal_and_fine_pixels():
    wide, fine = brain()[:, ::2], np.kron(brain(), np.ones((3, 3), np.float32))
    assert looks_stripped(wide, (1.0, 2.0)) is True
    assert looks_stripped(fine, (1 / 3, 1 / 3)) is True
    assert looks_stripped(np.kron(head(), np.ones((3, 3), np.float32)), (1 / 3, 1 / 3)) is False
    assert looks_stripped(brain(), None) is True  # as if 251 mm wide


def test_a_slice_with_little_brain_decides_nothing():
    top = np.where(RADIUS_MM < 25, brain(), 0).astype(np.float32)
    assert looks_stripped(top, (1.0, 1.0)) is None


def test_normalized_intensities_around_zero_are_left_alone():
    """Normalized to mean 0, part of a brain is darker than the background, so "dark" says nothing."""
    assert looks_stripped(np.where(brain() > 0, -brain(), 0).astype(np.float32), (1.0, 1.0)) is False


def test_most_of_several_slices_decide():
    assert is_stripped([True] * 8 + [False] * 2 + [None] * 5)
    assert not is_stripped([True] * 7 + [False] * 3)
    assert not is_stripped([True, True, None])
    assert is_stripped([True, True, True])
    assert not is_stripped([])


@pytest.mark.parametrize(("count", "looked_at"), [(1, 0), (2, 2), (16, 16), (31, 31), (32, 16), (155, 18), (240, 16)])
def test_16_slices_of_a_volume_or_some_more_are_looked_at(count, looked_at):
    assert sum(is_looked_at(index, count) for index in range(count)) == looked_at


@pytest.mark.parametrize(("make", "noted"), [(brain, True), (head, False)])
def test_rows_of_a_stripped_volume_and_predictions_have_the_note(tmp_path, make, noted):
    scans = tmp_path / "scans"
    scans.mkdir()
    array = np.stack([noisy(make())] * 6, axis=-1)
    array[..., 0] = 0
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), scans / "head.nii.gz")
    run = predict_paths(cascade_of(), [scans], tmp_path / "out", RunOptions(report=False, overlays=False))
    assert all((STRIPPED_NOTE in row.notes) == noted for row in run.rows)
    assert [STRIPPED_NOTE in row.notes for row in run.volumes] == [noted]
    volume = cascade_of().predict_volume(scans / "head.nii.gz")
    assert [STRIPPED_NOTE in item.notes for item in volume.slices] == [noted] * 6


def test_a_single_slice_has_no_note(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    nibabel.save(nibabel.Nifti1Image(noisy(brain())[..., None], np.eye(4)), scans / "slice.nii.gz")
    run = predict_paths(cascade_of(), [scans], tmp_path / "out", RunOptions(report=False, overlays=False))
    assert [row.notes for row in run.rows] == [()]
