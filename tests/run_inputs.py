"""Inputs of a run, and a segmenter that counts its slices."""

import nibabel
import numpy as np
import pytest
from PIL import Image
from stub_cascade import BrightIsTumor


class Counting(BrightIsTumor):
    """Counts the slices it segments."""

    def __init__(self):
        self.slices = 0

    def run(self, slice):
        self.slices += len(slice)
        return super().run(slice)


def picture(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 100, (48, 48)).astype(np.uint8)
    pixels[10:20, 20:30] = 255
    return pixels


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)


def save_volume(path):
    """Three slices of 32 x 32 along the last axis: nothing, a bright square, a blank one."""
    array = np.zeros((32, 32, 3), dtype=np.float32)
    array[..., 0] = np.arange(32)
    array[..., 1] = np.arange(32)
    array[4:10, 8:20, 1] = 320  # of the pixels enlarged to twice their number the same ones are above 200
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), path)


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
