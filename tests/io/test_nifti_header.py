"""The header of a NIfTI volume is applied, repaired with a note, or refused."""

from __future__ import annotations

import contextlib
import gzip

import nibabel as nib
import numpy as np
import pytest
from nifti_files import AFFINE, HEAD, SPACING, refusal, write

from cascade.errors import CascadeError
from cascade.io.nifti import open_nifti


def test_the_scale_of_the_header_is_applied(tmp_path):
    source = open_nifti(write(tmp_path / "a.nii", scl_slope=0.5, scl_inter=-10), "a.nii")
    assert source.read(5).pixels.max() == 4000 * 0.5 - 10


@pytest.mark.parametrize(("code", "unit"), [(1, 1e-3), (1 | 8, 1e-3), (3, 1e3), (3 | 8, 1e3), (2 | 8, 1), (0, 1)])
def test_lengths_are_converted_to_millimeters_whatever_the_unit_of_time(tmp_path, code, unit):
    path = write(tmp_path / "a.nii", affine=np.diag([unit, 2 * unit, 4 * unit, 1]), xyzt_units=code)
    source = open_nifti(path, "a.nii")
    assert source.read(0).spacing_mm == pytest.approx((2, 1))
    assert source.slab_mm == pytest.approx((4.0,) * 18)


def test_a_mask_keeps_the_unit_of_its_volume(tmp_path):
    path = write(tmp_path / "a.nii", affine=np.diag([0.001, 0.002, 0.004, 1]), xyzt_units=1)
    mask = open_nifti(path, "a.nii").mask_bytes(np.ones((18, 24, 20), bool))
    assert nib.Nifti1Image.from_bytes(gzip.decompress(mask)).header.get_xyzt_units()[0] == "meter"


def test_quirks_of_common_writers_are_accepted(tmp_path):
    for quirk in ({"qform_code": 1, "sform_code": 0, "pixdim": [0, *SPACING, 0, 0, 0, 0]}, {"vox_offset": 0}):
        assert open_nifti(write(tmp_path / "a.nii", **quirk), "a.nii").read(5).pixels.max() == 4000


def test_a_volume_of_unknown_orientation_has_a_note(tmp_path):
    path = write(tmp_path / "a.nii", sform_code=0, qform_code=0)
    assert "gives no orientation" in open_nifti(path, "a.nii").notes[0]
    assert open_nifti(write(tmp_path / "a.nii"), "a.nii").notes == ()


def test_texts_of_the_header_are_in_neither_mask_nor_notes(tmp_path):
    path = write(
        tmp_path / "a.nii", descrip=b"DOE^JANE", aux_file=b"DOE^JANE", db_name=b"DOE^JANE", intent_name=b"DOE^JANE"
    )
    source = open_nifti(path, "a.nii")
    assert b"DOE" in path.read_bytes()
    assert b"DOE" not in gzip.decompress(source.mask_bytes(np.zeros((18, 24, 20), bool)))
    assert source.notes == ()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"dim": [3, -20, 24, 18, 1, 1, 1, 1]}, "axis without voxels"),
        ({"dim": [3, 0, 24, 18, 1, 1, 1, 1]}, "axis without voxels"),
        ({"dim": [0, 20, 24, 18, 1, 1, 1, 1]}, "0 axes"),
        ({"dim": [9, 20, 24, 18, 1, 1, 1, 1]}, "9 axes"),
        ({"dim": [3, 20, 24, 19, 1, 1, 1, 1]}, "shorter than its header declares"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "too large for an MRI volume"),
        ({"dim": [3, 20, 24, 8, 1, 1, 1, 1], "pixdim": [1, 5, 1, 1, 1, 1, 1, 1], "srow_x": [5, 0, 0, 0]}, "too small"),
        ({"dim": [4, 20, 12, 18, 2, 1, 1, 1]}, "contains 2 volumes"),
        ({"dim": [5, 20, 8, 18, 1, 3, 1, 1]}, "contains 3 volumes"),
        ({"datatype": 128}, "contains color"),
        ({"datatype": 32}, "unsupported dtype complex64"),
        ({"datatype": 999}, "header cannot be read"),
        ({"vox_offset": 1e30}, "shorter than its header declares"),
        ({"vox_offset": np.nan}, "header cannot be read"),
        ({"magic": b"ni1"}, "not single-file NIfTI"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_an_invalid_header_is_refused_before_voxels_are_read(tmp_path, name, fields, problem):
    assert problem in refusal(write(tmp_path / name, **fields))


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"pixdim": [1, np.nan, 1, 1, 1, 1, 1, 1]}, "pixdim"),
        ({"pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, "pixdim"),
        ({"pixdim": [1, np.inf, -np.inf, 0, 1, 1, 1, 1]}, "pixdim"),
        ({"qform_code": 1, "quatern_b": 5}, "qform"),
        ({"qform_code": 1, "qoffset_x": np.nan}, "qform"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "scl_inter"),
        ({"scl_slope": np.inf, "scl_inter": 0}, "scl_slope"),
        ({"scl_slope": 0, "scl_inter": 7}, "scl_slope"),
        ({"scl_slope": np.nan, "scl_inter": -3}, "scl_slope"),
    ],
    ids=str,
)
def test_an_impossible_value_counts_as_absent_where_the_rest_suffices(tmp_path, fields, ignored):
    """Once, a valid sform did not help against a voxel size of 0, and the volume was refused as damaged."""
    expected = open_nifti(write(tmp_path / "whole.nii"), "whole.nii")
    source = open_nifti(write(tmp_path / "a.nii", **fields), "a.nii")
    assert source.read(5).pixels.tolist() == expected.read(5).pixels.tolist()
    assert source.read(5).spacing_mm == expected.read(5).spacing_mm
    (note,) = source.notes
    assert ignored in note
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(source.mask_bytes(np.ones((18, 24, 20), bool))))
    assert np.allclose(mask.affine, AFFINE)
    assert np.isfinite(mask.header["pixdim"]).all()


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": [np.nan] * 4},
        {"srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4},
        {"srow_x": [1, 1, 0, 0], "srow_y": [1, 1, 0, 0]},
    ],
    ids=str,
)
def test_without_a_valid_sform_the_qform_gives_the_orientation(tmp_path, fields):
    image = nib.Nifti1Image(HEAD, AFFINE)
    image.set_qform(AFFINE, 1)
    names = ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    qform = {name: image.header[name] for name in names}
    expected = open_nifti(write(tmp_path / "whole.nii"), "whole.nii")
    source = open_nifti(write(tmp_path / "a.nii", **fields, **qform), "a.nii")
    assert source.read(5).pixels.tolist() == expected.read(5).pixels.tolist()
    assert "sform" in source.notes[0]
    alone = open_nifti(write(tmp_path / "a.nii", **fields), "a.nii")
    assert alone.read(0).spacing_mm == pytest.approx((0.9, 0.8))
    assert [word in note for word, note in zip(("sform", "no orientation"), alone.notes, strict=True)] == [True, True]


def test_a_quaternion_that_rounding_made_too_long_is_shortened(tmp_path):
    """Public data have such headers. The orientation was ignored, and the mask did not lie on the scan."""
    image = nib.Nifti1Image(HEAD, np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
    image.set_qform(image.affine, 1)
    names = ("quatern_b", "quatern_c", "quatern_d")
    exact = {name: image.header[name] for name in names}
    rounded = {name: value * np.float32(1 + 4e-7) for name, value in exact.items()}
    expected, source = (
        open_nifti(write(tmp_path / name, sform_code=0, qform_code=1, **quaternion), name)
        for name, quaternion in (("whole.nii", exact), ("a.nii", rounded))
    )
    assert source.notes == expected.notes == ()
    assert np.array_equal(source.read(3).pixels, expected.read(3).pixels)


def test_an_unused_axis_of_size_0_is_one_of_size_1(tmp_path):
    expected = open_nifti(write(tmp_path / "whole.nii"), "whole.nii")
    source = open_nifti(write(tmp_path / "a.nii", dim=[4, 20, 24, 18, 0, 0, 0, 0]), "a.nii")
    assert np.array_equal(source.read(3).pixels, expected.read(3).pixels)


def test_without_any_voxel_size_the_spacing_is_unknown_and_a_note_names_the_axes(tmp_path):
    absent = {"sform_code": 0, "qform_code": 0}
    source = open_nifti(write(tmp_path / "a.nii", pixdim=[1, 0, np.nan, 0, 1, 1, 1, 1], **absent), "a.nii")
    assert (source.count, source.read(5).spacing_mm) == (18, None)
    assert "axis 0 and 1 and 2" in source.notes[0]
    thickness = open_nifti(write(tmp_path / "a.nii", pixdim=[1, 0.8, 0.9, 0, 1, 1, 1, 1], **absent), "a.nii")
    assert (thickness.count, thickness.read(5).spacing_mm) == (18, pytest.approx((0.9, 0.8)))


@pytest.mark.parametrize("qform_code", [0, 1])
def test_an_unknown_distance_of_slices_is_not_1_mm(tmp_path, qform_code):
    """Once, the 1 mm that stands in the mask also gave the volume of the tumor, and each slice counted as thin."""
    pixdim = [1, 0.8, 0.9, 0, 1, 1, 1, 1]
    source = open_nifti(write(tmp_path / "a.nii", pixdim=pixdim, qform_code=qform_code, sform_code=0), "a.nii")
    assert (source.count, source.read(5).spacing_mm) == (18, pytest.approx((0.9, 0.8)))
    assert source.slab_mm is None
    assert "axis 2" in source.notes[0]


def test_slices_that_are_shifted_against_each_other_are_as_far_apart_as_their_planes(tmp_path):
    """Once, the distance of their voxels, 1.7 mm, made each tumor 13% larger."""
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.8  # each slice is 1.5 mm above the one below, and 0.8 mm further to the front
    source = open_nifti(write(tmp_path / "a.nii", affine=sheared), "a.nii")
    assert source.slab_mm == pytest.approx((1.5,) * 18)
    assert source.read(0).spacing_mm == pytest.approx((0.9, 0.8))


@pytest.mark.parametrize("sform_code", [0, 1])
def test_the_thickness_of_a_slice_of_two_axes_is_unknown(tmp_path, sform_code):
    """Once, it was what the affine has for the axis that is not there: 1 mm, if nothing else."""
    source = open_nifti(write(tmp_path / "a.nii", HEAD[:, :, 5], sform_code=sform_code), "a.nii")
    assert (source.read(0).spacing_mm, source.slab_mm) == (pytest.approx((0.9, 0.8)), None)
    assert "two axes" in source.notes[0]
    whole = open_nifti(write(tmp_path / "b.nii", HEAD[:, :, 5:6]), "b.nii")
    assert (whole.slab_mm, whole.notes) == (pytest.approx((1.5,)), ())


@pytest.mark.parametrize("slope", [0, np.nan, 1])
def test_intensities_without_a_scale_need_no_note(tmp_path, slope):
    inter = np.nan if np.isnan(slope) else 0
    source = open_nifti(write(tmp_path / "a.nii", scl_slope=slope, scl_inter=inter), "a.nii")
    assert source.read(5).pixels.max() == 4000
    assert source.notes == ()


@pytest.mark.parametrize("form", ["sform_code", "qform_code"])
@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_every_code_of_an_orientation_counts(tmp_path, form, code):
    affine = AFFINE @ np.diag([-1.0, 1, 1, 1])  # stored in the other order: a qform needs its qfac of -1
    path = write(tmp_path / "a.nii", affine=affine, **{"sform_code": 0, "qform_code": 0} | {form: code})
    source = open_nifti(path, "a.nii")
    same = open_nifti(write(tmp_path / "b.nii", affine=affine), "b.nii")
    assert source.notes == ()
    assert np.allclose(source.affine, affine, atol=1e-5)
    assert np.array_equal(source.read(5).pixels, same.read(5).pixels)


def test_a_negative_voxel_size_is_a_positive_one(tmp_path):
    path = write(tmp_path / "a.nii", pixdim=[1, -0.8, 0.9, -1.5, 1, 1, 1, 1], sform_code=0, qform_code=0)
    source = open_nifti(path, "a.nii")
    assert source.read(5).spacing_mm == pytest.approx((0.9, 0.8))
    assert source.slab_mm == pytest.approx((1.5,) * 18)


def test_an_sform_of_other_voxels_than_pixdim_has_a_note(tmp_path):
    """An affine registration without resampling writes one: lengths and sides are no longer those of the scan."""
    path = write(tmp_path / "a.nii", affine=AFFINE @ np.diag([1.3, 1.3, 1.3, 1.0]), pixdim=[1, *SPACING, 1, 1, 1, 1])
    assert "its sform and its voxel size (pixdim) differ" in open_nifti(path, "a.nii").notes[0]
    assert open_nifti(write(tmp_path / "b.nii"), "b.nii").notes == ()


@pytest.mark.parametrize("change", ["quatern_b", "dim"])
def test_extreme_numbers_of_a_nifti_2_header_are_an_error_of_the_file(tmp_path, change):
    """They ended the run: a quaternion of 1e300, and a volume of 2 ** 40 slices."""
    image = nib.Nifti2Image(HEAD, AFFINE)
    image.set_qform(AFFINE, 1)
    if change == "dim":
        image.header["dim"][3] = 2**40
    else:
        image.header[change] = 1e300
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + HEAD.tobytes())
    with contextlib.suppress(CascadeError):
        open_nifti(tmp_path / "a.nii", "a.nii")
