"""A pair of .hdr and .img is one input, whichever of the two is given."""

from __future__ import annotations

import gzip
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.io.nifti import open_nifti
from cascade.io.open import open_source, open_sources
from cascade.io.pair import open_pair

HEAD = np.random.default_rng(0).integers(1, 1000, (20, 24, 18)).astype(np.int16)
AFFINE = np.array([[-0.8, 0, 0, 70], [0, 0.9, 0, -100], [0, 0, 1.5, -30], [0, 0, 0, 1]])


def save(folder, kind=nibabel.AnalyzeImage, array=HEAD, affine=AFFINE):
    """Write a.hdr and a.img."""
    folder.mkdir(exist_ok=True)
    nibabel.save(kind(array, affine), folder / "a.hdr")
    return folder / "a.hdr"


def opened(*paths, **options):
    return open_sources(find_slices(paths, formats=FORMATS, **options))


def test_slices_of_analyze_are_those_of_nifti_and_a_note_says_that_sides_may_be_swapped(tmp_path):
    source = open_pair(save(tmp_path), "a.hdr")
    nibabel.save(nibabel.Nifti1Image(HEAD, AFFINE), tmp_path / "a.nii")
    nifti = open_nifti(tmp_path / "a.nii", "a.nii")
    assert source.count == nifti.count == 18
    assert np.array_equal(source.read(5).pixels, nifti.read(5).pixels)
    assert source.read(5).spacing_mm == pytest.approx((0.9, 0.8))
    assert any("left and right" in note for note in source.notes)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
def test_a_pair_of_nifti_is_placed_by_its_affine(tmp_path, kind):
    turned = np.array([[0, 0, 1.5, -30], [-0.8, 0, 0, 70], [0, 0.9, 0, -100], [0, 0, 0, 1]])
    source = open_pair(save(tmp_path, kind, affine=turned), "a.hdr")
    assert source.notes == ()
    masks = np.stack([source.read(index).pixels > 900 for index in range(source.count)])
    single = nibabel.Nifti1Image if kind is nibabel.Nifti1Pair else nibabel.Nifti2Image
    mask = single.from_bytes(gzip.decompress(source.mask_bytes(masks)))
    assert np.allclose(mask.affine, turned, atol=1e-4)
    assert np.array_equal(mask.get_fdata() > 0, HEAD > 900)


def test_big_endian_analyze_is_read(tmp_path):
    header = nibabel.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.AnalyzeImage(HEAD, AFFINE, header).to_filename(tmp_path / "a.hdr")
    assert (tmp_path / "a.hdr").read_bytes()[:4] == (348).to_bytes(4, "big")
    assert open_pair(tmp_path / "a.hdr", "a").read(0).pixels.max() == HEAD[..., 0].max()


@pytest.mark.parametrize("names", [["a.hdr"], ["a.img"], ["a.hdr", "a.img"], ["."]])
def test_both_files_are_one_input_whichever_is_given(tmp_path, names):
    save(tmp_path)
    sources, problems, left_out = opened(*(tmp_path / name for name in names))
    assert [source.name for source in sources] == ["a.hdr"]
    assert sources[0].files == (tmp_path / "a.hdr", tmp_path / "a.img")
    assert problems == left_out == {}


@pytest.mark.parametrize("pattern", ["*.hdr", "*.img"])
def test_a_pattern_that_selects_one_file_selects_the_pair(tmp_path, pattern):
    save(tmp_path)
    sources, problems, left_out = opened(tmp_path, include=[pattern])
    assert [source.name for source in sources] == ["a.hdr"]
    assert problems == left_out == {}


def test_a_pair_in_a_zip_is_one_input(tmp_path):
    save(tmp_path / "study")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in ("a.hdr", "a.img"):
            archive.write(tmp_path / "study" / name, name)
    sources, problems, left_out = opened(tmp_path / "study.zip", unpack_into=tmp_path / "unpacked")
    assert [source.name for source in sources] == ["study.zip/a.hdr"]
    assert problems == left_out == {}


def test_an_img_whose_voxels_begin_like_a_picture_is_still_one(tmp_path):
    Image.fromarray(HEAD[..., 0].astype(np.uint8)).save(tmp_path / "picture.png")
    save(tmp_path / "pair")
    content = (tmp_path / "pair" / "a.img").read_bytes()
    start = (tmp_path / "picture.png").read_bytes()[:16]
    (tmp_path / "pair" / "a.img").write_bytes(start + content[16:])
    assert open_source(tmp_path / "pair").count == 18


@pytest.mark.parametrize(("name", "missing"), [("a.hdr", r"lacks a\.img"), ("a.img", r"lacks a\.hdr")])
def test_a_file_without_the_other_is_an_error_that_names_it(tmp_path, name, missing):
    save(tmp_path / "whole")
    (tmp_path / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    with pytest.raises(CascadeError, match=missing):
        open_source(tmp_path / name)


def test_the_voxels_of_a_pair_that_cannot_be_opened_are_left_out_with_the_reason(tmp_path):
    save(tmp_path)
    (tmp_path / "a.hdr").write_bytes(b"no header")
    sources, problems, left_out = opened(tmp_path)
    assert (sources, list(problems)) == ([], ["a.hdr"])
    assert "a.hdr" in left_out[str(tmp_path / "a.img")]


def test_an_img_that_is_too_short_is_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "a.img").write_bytes(bytes(100))
    with pytest.raises(CascadeError, match=r"a\.img: .*shorter"):
        open_source(tmp_path / "a.hdr")


def test_one_volume_of_a_4d_pair_or_file_is_read_by_its_number(tmp_path):
    series = np.stack([HEAD, HEAD + 1, HEAD + 2], axis=-1)
    pair = open_pair(save(tmp_path, array=series), "a.hdr", volume=2)
    nibabel.save(nibabel.Nifti1Image(series, AFFINE), tmp_path / "a.nii.gz")
    nifti = open_nifti(tmp_path / "a.nii.gz", "a.nii.gz", volume=2)
    alone = open_nifti(tmp_path / "a.nii.gz", "a.nii.gz", volume=0)
    for source in (pair, nifti):
        assert np.array_equal(source.read(3).pixels, alone.read(3).pixels + 2)
        assert any("volume 2 of 3" in note for note in source.notes)
        masks = np.stack([source.read(index).pixels > 900 for index in range(source.count)])
        mask = nibabel.Nifti1Image.from_bytes(gzip.decompress(source.mask_bytes(masks)))
        assert np.array_equal(mask.get_fdata() > 0, series[..., 2] > 900)
    for volume in (None, 3, -1):
        with pytest.raises(CascadeError, match="3 volumes") as raised:
            open_nifti(tmp_path / "a.nii.gz", "a.nii.gz", volume=volume)
        assert "--volume 0 to 2" in raised.value.fix


def test_a_file_of_one_volume_is_read_whatever_number_is_given(tmp_path):
    nibabel.save(nibabel.Nifti1Image(HEAD[..., None], AFFINE), tmp_path / "a.nii")
    assert open_nifti(tmp_path / "a.nii", "a.nii", volume=7).count == 18
