"""NIfTI volumes of any orientation are read as radiological slices, and masks are written on the same voxels."""

from __future__ import annotations

import gzip
import itertools
import struct
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from cascade.errors import CascadeError
from cascade.io.nifti import open_nifti
from cascade.io.slices import BlankSlice

sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[dev]'")

SHAPE = (20, 24, 18)
HEAD = np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.int16)  # indexed left-right, posterior-anterior, ...
MARKER = (3, 17, 5)  # of HEAD: left, anterior, inferior
HEAD[MARKER] = 4000
SPACING = (0.8, 0.9, 1.5)
AFFINE = np.diag([*SPACING, 1.0])
AFFINE[:3, 3] = -70, -100, -30
ORIENTATIONS = [
    np.column_stack([order, signs])
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def write(path, array=HEAD, affine=AFFINE, **fields):
    """Write a NIfTI file; `fields` replace fields of its header."""
    image = nib.Nifti1Image(array, affine)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def turned(orientation):
    """Return HEAD with reordered and flipped axes, and the same position in space."""
    image = nib.Nifti1Image(HEAD, AFFINE)
    return image.as_reoriented(orientation)


def place(image, value):
    """Return the position, according to SimpleITK, of the one voxel of this value."""
    (index,) = np.argwhere(sitk.GetArrayFromImage(image) == value)
    return image.TransformIndexToPhysicalPoint([int(number) for number in index[::-1]])


def read_all(path):
    source = open_nifti(path, path.name)
    for index in range(source.count):
        source.read(index)


def refusal(path):
    """Return the problem of opening the file or reading its slices."""
    with pytest.raises(CascadeError) as raised:
        read_all(path)
    assert str(path) in raised.value.problem
    assert raised.value.fix
    return raised.value.problem


def test_axial_slices_are_seen_from_the_feet_with_the_face_up(tmp_path):
    source = open_nifti(write(tmp_path / "a.nii"), "a.nii")
    slice_ = source.read(MARKER[2])
    assert (source.count, slice_.pixels.shape, slice_.pixels.dtype) == (18, (24, 20), np.float32)
    row, column = np.unravel_index(slice_.pixels.argmax(), slice_.pixels.shape)
    assert (row, column) == (24 - 1 - 17, 20 - 1 - 3)  # anterior is up, the patient's left at the right
    assert slice_.spacing_mm == pytest.approx((0.9, 0.8))
    assert source.slab_mm == pytest.approx((1.5,) * 18)


def test_coronal_and_sagittal_slices_have_the_head_up_and_the_face_at_the_left(tmp_path):
    path = write(tmp_path / "a.nii")
    coronal, sagittal = open_nifti(path, "a", axis=1).read(17), open_nifti(path, "a", axis=0).read(3)
    assert np.unravel_index(coronal.pixels.argmax(), (18, 20)) == (18 - 1 - 5, 20 - 1 - 3)
    assert np.unravel_index(sagittal.pixels.argmax(), (18, 24)) == (18 - 1 - 5, 24 - 1 - 17)
    assert coronal.spacing_mm == pytest.approx((1.5, 0.8))
    assert sagittal.spacing_mm == pytest.approx((1.5, 0.9))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda kept: "".join(nib.orientations.ornt2axcodes(kept)))
def test_all_48_orientations_give_the_same_slices_and_the_mask_has_the_same_voxel(tmp_path, orientation):
    expected = open_nifti(write(tmp_path / "straight.nii"), "straight.nii")
    image = turned(orientation)
    nib.save(image, tmp_path / "turned.nii.gz")
    source = open_nifti(tmp_path / "turned.nii.gz", "turned.nii.gz")
    masks = np.zeros((source.count, 24, 20), bool)
    for index in range(source.count):
        slice_ = source.read(index)
        assert slice_.pixels.tolist() == expected.read(index).pixels.tolist()
        assert slice_.spacing_mm == pytest.approx((0.9, 0.8))
        masks[index] = slice_.pixels == 4000
    back = nib.Nifti1Image.from_bytes(gzip.decompress(source.mask_bytes(masks)))
    assert np.array_equal(np.asarray(back.dataobj) == 1, np.asarray(image.dataobj) == 4000)
    assert back.get_data_dtype() == np.uint8


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7], ids=str)
def test_another_reader_finds_the_same_geometry_in_mask_and_volume(tmp_path, orientation):
    image = turned(orientation)
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    image = nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 2)
    nib.save(image, tmp_path / "a.nii")
    source = open_nifti(tmp_path / "a.nii", "a.nii")
    masks = np.stack([source.read(index).pixels == 4000 for index in range(source.count)])
    (tmp_path / "mask.nii.gz").write_bytes(source.mask_bytes(masks))
    volume, mask = sitk.ReadImage(tmp_path / "a.nii"), sitk.ReadImage(tmp_path / "mask.nii.gz")
    for getter in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(mask, getter)() == getattr(volume, getter)()
    assert place(mask, 1) == place(volume, 4000)
    header = nib.load(tmp_path / "mask.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 2)


def test_the_slice_axis_is_the_thickest_or_the_axial_one_if_none_is_thickest(tmp_path):
    def count(spacing, array=HEAD):
        return open_nifti(write(tmp_path / "a.nii", array, np.diag([*spacing, 1.0])), "a").count

    assert count((5, 1, 1)) == 20
    assert count((1, 5, 1)) == 24
    assert count((1, 1, 5)) == 18
    assert count((1, 1, 1)) == count((1, 1.009, 1)) == 18
    assert count((1, 1, 1), HEAD[:, 7:8]) == 1


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 1), (20, 24, 1, 1)])
def test_a_single_slice_is_one_slice_and_its_mask_keeps_the_shape(tmp_path, shape):
    array = HEAD[:, :, 5].reshape(shape)
    source = open_nifti(write(tmp_path / "a.nii", array), "a.nii")
    assert source.count == 1
    assert source.read(0).pixels.tolist() == HEAD[::-1, ::-1, 5].T.tolist()
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(source.mask_bytes(np.ones((1, 24, 20), bool))))
    assert mask.shape == shape


def test_big_endian_nifti_2_is_read_and_its_mask_is_nifti_2(tmp_path):
    header = nib.Nifti2Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti2Image(HEAD, AFFINE, header), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == struct.pack(">i", 540)
    source = open_nifti(tmp_path / "a.nii", "a.nii")
    assert source.read(5).pixels.max() == 4000
    assert nib.Nifti2Image.from_bytes(gzip.decompress(source.mask_bytes(np.ones((18, 24, 20), bool)))).shape == SHAPE


def test_the_scale_of_the_header_is_applied(tmp_path):
    source = open_nifti(write(tmp_path / "a.nii", scl_slope=0.5, scl_inter=-10), "a.nii")
    assert source.read(5).pixels.max() == 4000 * 0.5 - 10


def test_lengths_in_meters_are_converted_to_millimeters(tmp_path):
    path = write(tmp_path / "a.nii", affine=np.diag([0.001, 0.002, 0.004, 1]), xyzt_units=1)
    assert open_nifti(path, "a.nii").read(0).spacing_mm == pytest.approx((2, 1))


def test_quirks_of_common_writers_are_accepted(tmp_path):
    for quirk in ({"qform_code": 1, "sform_code": 0, "pixdim": [0, *SPACING, 0, 0, 0, 0]}, {"vox_offset": 0}):
        assert open_nifti(write(tmp_path / "a.nii", **quirk), "a.nii").read(5).pixels.max() == 4000


def test_a_volume_of_unknown_orientation_has_a_note(tmp_path):
    path = write(tmp_path / "a.nii", sform_code=0, qform_code=0)
    assert "gives no orientation" in open_nifti(path, "a.nii").notes[0]
    assert open_nifti(write(tmp_path / "a.nii"), "a.nii").notes == ()


def test_voxels_are_loaded_by_the_first_read_and_again_after_closing(tmp_path):
    path = write(tmp_path / "a.nii.gz")
    source = open_nifti(path, "a.nii.gz")
    first = source.read(0).pixels.tolist()
    path.write_bytes(b"gone")
    assert source.read(0).pixels.tolist() == first
    source.close()
    with pytest.raises(CascadeError, match="shorter than its header declares"):
        source.read(0)


def test_a_volume_that_cannot_be_decompressed_is_not_loaded_again_for_each_slice(tmp_path):
    whole = write(tmp_path / "a.nii.gz").read_bytes()
    source = open_nifti(tmp_path / "a.nii.gz", "a.nii.gz")
    (tmp_path / "a.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CascadeError, match="voxels cannot be read"):
        source.read(0)
    (tmp_path / "a.nii.gz").write_bytes(whole)
    with pytest.raises(CascadeError, match="voxels cannot be read"):
        source.read(1)
    source.close()
    assert source.read(1).pixels.shape == (24, 20)


def test_a_blank_slice_raises_another_error_than_a_damaged_one(tmp_path):
    array = HEAD.astype(np.float32)
    array[:, :, 0] = 7
    array[4, 4, 1] = np.inf
    source = open_nifti(write(tmp_path / "a.nii", array), "a.nii")
    with pytest.raises(BlankSlice, match="slice 1 of 18: every pixel"):
        source.read(0)
    with pytest.raises(CascadeError, match="slice 2 of 18: contains NaN") as raised:
        source.read(1)
    assert not isinstance(raised.value, BlankSlice)


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


def test_nan_around_the_head_is_replaced_by_the_lowest_value_of_the_slice(tmp_path):
    """SPM and ANTs write NaN there; once, every slice failed."""
    array = np.full((40, 40, 3), np.nan, np.float32)
    array[8:32, 8:32] = np.arange(576).reshape(24, 24, 1) + 5
    array[..., 2] = np.nan
    source = open_nifti(write(tmp_path / "a.nii.gz", array), "a.nii.gz")
    slice_ = source.read(1)
    assert slice_.pixels.min() == slice_.pixels[0, 0] == 5
    assert np.count_nonzero(slice_.pixels == 5) == 40 * 40 - 575
    assert "NaN" in slice_.notes[0]
    with pytest.raises(BlankSlice):
        source.read(2)


def test_a_slice_whose_head_is_nan_to_a_large_part_is_refused(tmp_path):
    array = np.full((40, 40, 3), np.nan, np.float32)
    array[8:32, 8:32] = np.arange(576).reshape(24, 24, 1) + 5
    array[14:24, 14:24] = np.nan
    assert "17% of the head" in refusal(write(tmp_path / "a.nii", array))


def test_a_small_file_that_decompresses_to_gigabytes_is_read_as_far_as_its_header_declares(tmp_path):
    honest = gzip.decompress(write(tmp_path / "a.nii.gz").read_bytes())
    more = gzip.compress(bytes(2**20)) * 4096  # 4 GB in 4 MB
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(honest) + more)
    assert open_nifti(tmp_path / "a.nii.gz", "a").read(5).pixels.max() == 4000
    (tmp_path / "a.nii.gz").write_bytes(more)
    assert "does not begin like a NIfTI file" in refusal(tmp_path / "a.nii.gz")


def test_a_file_that_is_not_nifti_is_refused_by_name(tmp_path):
    (tmp_path / "empty.nii").touch()
    (tmp_path / "text.nii.gz").write_text("no volume")
    (tmp_path / "folder.nii").mkdir()
    for name in ("empty.nii", "text.nii.gz", "folder.nii", "nowhere.nii"):
        refusal(tmp_path / name)
    with pytest.raises(CascadeError, match="not 3"):
        open_nifti(write(tmp_path / "a.nii"), "a.nii", axis=3)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_damaged_volume_is_read_or_refused_by_name_and_never_crashes(tmp_path, name):
    whole = write(tmp_path / name).read_bytes()
    random = np.random.default_rng(0)
    problems = []
    for trial in range(150):
        damaged = bytearray(whole)
        if trial % 3 == 0:
            del damaged[random.integers(len(whole)) :]
        else:
            for at in random.integers(min(len(whole), 352), size=4):
                damaged[at] = random.integers(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            source = open_nifti(tmp_path / name, name)
            source.read(0)
            source.mask_bytes(np.zeros((source.count, *source.read(0).pixels.shape), bool))
        except CascadeError as error:
            problems.append(error.problem)
    assert len(problems) >= 60
    assert all(problem.startswith(str(tmp_path / name)) for problem in problems)


def test_nothing_is_printed_about_quirks(tmp_path):
    path = write(tmp_path / "a.nii", qform_code=77, pixdim=[0, *SPACING, 0, 0, 0, 0], vox_offset=0, bitpix=3, cal_max=1)
    code = (
        "import sys, numpy, pathlib; from cascade.io.nifti import open_nifti;"
        "source = open_nifti(pathlib.Path(sys.argv[1]), 'a'); source.read(0);"
        "source.mask_bytes(numpy.zeros((18, 24, 20), bool))"
    )
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert result.stdout + result.stderr == ""
