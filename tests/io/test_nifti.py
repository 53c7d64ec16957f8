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
from nifti_files import AFFINE, HEAD, MARKER, SHAPE, SPACING, refusal, write

from cascade.errors import CascadeError
from cascade.io.nifti import open_nifti
from cascade.io.slices import BlankSlice

sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[dev]'")

ORIENTATIONS = [
    np.column_stack([order, signs])
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def turned(orientation):
    """Return HEAD with reordered and flipped axes, and the same position in space."""
    image = nib.Nifti1Image(HEAD, AFFINE)
    return image.as_reoriented(orientation)


def place(image, value):
    """Return the position, according to SimpleITK, of the one voxel of this value."""
    (index,) = np.argwhere(sitk.GetArrayFromImage(image) == value)
    return image.TransformIndexToPhysicalPoint([int(number) for number in index[::-1]])


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


@pytest.mark.parametrize("code", ["RAS", "PIR", "LIA", "SPL"])
def test_a_head_of_cubes_has_the_same_slices_however_its_axes_are_stored(tmp_path, code):
    image = nib.Nifti1Image(HEAD, np.eye(4))
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(np.eye(4)), nib.orientations.axcodes2ornt(tuple(code))
    )
    nib.save(image.as_reoriented(turn), tmp_path / "turned.nii")
    source = open_nifti(tmp_path / "turned.nii", "turned.nii")
    expected = open_nifti(write(tmp_path / "a.nii", affine=np.eye(4)), "a.nii")
    assert source.count == 18
    assert np.array_equal(source.read(5).pixels, expected.read(5).pixels)


def test_voxels_that_are_nearly_cubes_are_cut_across_the_head(tmp_path):
    path = write(tmp_path / "a.nii", HEAD, np.diag([0.9, 1.0, 1.0, 1.0]))
    assert open_nifti(path, "a.nii").count == 18
