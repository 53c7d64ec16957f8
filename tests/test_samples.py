"""The simulated slices in samples/ are what samples/expected.json says they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SAMPLES = Path(__file__).parent.parent / "samples"
EXPECTED = json.loads((SAMPLES / "expected.json").read_text())


@pytest.fixture(scope="module")
def masks():
    with np.load(SAMPLES / "masks.npz") as archive:
        return dict(archive)


def test_every_slice_is_named_in_expected_json_and_every_name_is_a_slice():
    assert {path.name for path in SAMPLES.rglob("*.png")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_slice_decodes_to_one_channel_with_a_bright_head_on_a_dark_background(name):
    pixels = np.asarray(Image.open(SAMPLES / name), dtype=np.float32)
    assert pixels.ndim == 2
    assert pixels[:20, :20].mean() < 0.1 * np.percentile(pixels, 99)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_mask_covers_its_slice_and_has_the_recorded_area_and_center(name, masks):
    mask = masks[Path(name).stem]
    expected = EXPECTED[name]
    assert mask.dtype == bool
    assert mask.shape == np.asarray(Image.open(SAMPLES / name)).shape
    assert mask.sum() == expected["area_pixels"]
    if expected["class"] is None:
        assert expected["center_row"] is None
        assert expected["center_column"] is None
    else:
        center = [expected["center_row"], expected["center_column"]]
        assert np.argwhere(mask).mean(axis=0) == pytest.approx(center, abs=0.1)


def test_each_class_is_shown_in_each_view():
    shown = {(sample["class"], sample["view"]) for sample in EXPECTED.values() if sample["class"]}
    classes = ("meningioma", "glioma", "pituitary tumor")
    assert shown == {(name, view) for name in classes for view in ("axial", "coronal", "sagittal")}


def test_exactly_one_slice_shows_no_tumor():
    assert [sample["area_pixels"] for sample in EXPECTED.values() if sample["class"] is None] == [0]


def test_a_slice_of_16_bits_and_one_of_another_size_are_among_them():
    slices = [np.asarray(Image.open(SAMPLES / name)) for name in EXPECTED]
    assert {pixels.dtype.name for pixels in slices} == {"uint8", "uint16"}
    assert {pixels.shape for pixels in slices} == {(512, 512), (256, 256)}


def test_the_samples_take_little_space():
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 2.5e6
