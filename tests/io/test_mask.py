"""A mask is read onto the slices of its volume, wherever both store their axes; another grid is refused."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from dicom_files import HEAD, MARKER, SPACING, STEP_MM, series, series_affine
from PIL import Image

from cascade.errors import CascadeError
from cascade.io.mask import read_volume_mask
from cascade.io.open import open_source

AFFINE = np.array([[-1.0, 0, 0, 60], [0, -1.2, 0, 70], [0, 0, 5, -30], [0, 0, 0, 1.0]])


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def volume(tmp_path):
    """A NIfTI volume, stored as (columns, rows, slices) of the display: 20 x 24 x 6 voxels."""
    return open_source(save(tmp_path / "head.nii.gz", np.arange(20 * 24 * 6).reshape(20, 24, 6).astype(np.int16)))


def marked(shape=(20, 24, 6), value=1):
    """A mask of one voxel: column 17, row 3, slice 4."""
    array = np.zeros(shape, np.uint8)
    array[17, 3, 4] = value
    return array


def test_a_mask_has_the_order_of_the_slices(volume, tmp_path):
    mask = read_volume_mask(save(tmp_path / "mask.nii.gz", marked(value=255)), volume)
    assert mask.shape == (6, 24, 20)
    assert np.argwhere(mask).tolist() == [[4, 3, 17]]


@pytest.mark.parametrize("code", ["RAS", "LPI", "SAR", "ILA"])
def test_a_mask_may_be_stored_with_other_axes(volume, tmp_path, code):
    """Tools turn a volume to RAS before they save its mask."""
    image = nib.Nifti1Image(marked(), AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(AFFINE), nib.orientations.axcodes2ornt(tuple(code))
    )
    nib.save(image.as_reoriented(turn), tmp_path / "mask.nii.gz")
    assert np.argwhere(read_volume_mask(tmp_path / "mask.nii.gz", volume)).tolist() == [[4, 3, 17]]


@pytest.mark.parametrize("name", ["mask.mgz", "mask.nrrd", "mask.mha", "mask.hdr"])
def test_a_mask_may_be_of_any_format_that_says_where_its_voxels_are(volume, tmp_path, name):
    """FreeSurfer saves MGH, 3D Slicer NRRD. Their axes are stored otherwise than those of the volume."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(marked(), AFFINE))
    nib.save(turned, tmp_path / "turned.nii")
    if name.endswith(("nrrd", "mha")):
        sitk = pytest.importorskip("SimpleITK")
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "turned.nii")), str(tmp_path / name))
    elif name.endswith("mgz"):
        nib.save(nib.MGHImage(np.asarray(turned.dataobj), turned.affine), tmp_path / name)
    else:
        nib.save(nib.Nifti1Pair(np.asarray(turned.dataobj), turned.affine), tmp_path / name)
    assert np.argwhere(read_volume_mask(tmp_path / name, volume)).tolist() == [[4, 3, 17]]


def test_a_picture_is_no_mask_of_a_volume(volume, tmp_path):
    Image.new("L", (20, 24)).save(tmp_path / "mask.png")
    with pytest.raises(CascadeError, match=r"mask\.png: is not a volume") as error:
        read_volume_mask(tmp_path / "mask.png", volume)
    assert "NIfTI" in error.value.fix


@pytest.mark.parametrize("spacing", [SPACING, (STEP_MM, STEP_MM)])
def test_a_mask_of_a_dicom_series_is_nifti_also_if_its_voxels_are_cubes(tmp_path, spacing):
    """NIfTI volumes of equal spacing are cut into axial slices; the slices of the series are sagittal."""
    series(tmp_path / "series", PixelSpacing=list(spacing))
    volume = open_source(tmp_path / "series")
    path = save(tmp_path / "mask.nii.gz", (HEAD[MARKER] == HEAD).T.astype(np.uint8), series_affine(spacing))
    brightest = np.stack([volume.read(index).pixels for index in range(volume.count)])
    mask = read_volume_mask(path, volume)
    assert mask.sum() == 1
    assert brightest[mask] == HEAD[MARKER]


def test_a_mask_of_another_shape_is_refused_with_both_shapes(volume, tmp_path):
    path = save(tmp_path / "mask.nii.gz", marked((20, 24, 7)))
    with pytest.raises(CascadeError, match=r"mask\.nii\.gz: mask \(7, 24, 20\) and volume \(6, 24, 20\)"):
        read_volume_mask(path, volume)


@pytest.mark.parametrize("moved", [np.diag([0.8, 0.8, 1, 1]), np.diag([-1, -1, 1, 1]), np.linalg.inv(AFFINE)])
def test_a_mask_that_lies_elsewhere_is_refused(volume, tmp_path, moved):
    """A smaller size; on the other side of the scanner; and an affine that a program has lost."""
    path = save(tmp_path / "mask.nii.gz", marked(), moved @ AFFINE)
    with pytest.raises(CascadeError, match=r"mask\.nii\.gz: "):
        read_volume_mask(path, volume)


def test_an_affine_rounded_by_another_program_is_the_same_grid(volume, tmp_path):
    path = save(tmp_path / "mask.nii.gz", marked(), AFFINE + 1e-3)
    assert read_volume_mask(path, volume).sum() == 1


@pytest.mark.parametrize("values", [(1, 2), (-1, -1), (np.nan, 1), (np.inf, 1)])
def test_a_map_of_several_values_is_no_mask(volume, tmp_path, values):
    array = np.zeros((20, 24, 6), np.float32)
    array[1, 1, 1], array[2, 2, 2] = values
    with pytest.raises(CascadeError, match=r"mask\.nii\.gz: .*values other than 0"):
        read_volume_mask(save(tmp_path / "mask.nii.gz", array), volume)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_that_lies_one_voxel_off_is_refused(volume, tmp_path, axis):
    shifted = AFFINE.copy()
    shifted[:3, 3] += AFFINE[:3, axis]
    with pytest.raises(CascadeError, match="lies elsewhere"):
        read_volume_mask(save(tmp_path / "mask.nii.gz", marked(), shifted), volume)


def test_a_mask_with_other_voxels_around_the_same_middle_is_refused(volume, tmp_path):
    smaller = AFFINE @ np.diag([0.9, 0.9, 1, 1])
    smaller[:3, 3] += (AFFINE[:3, :3] - smaller[:3, :3]) @ [9.5, 11.5, 2.5]
    with pytest.raises(CascadeError, match="lies elsewhere"):
        read_volume_mask(save(tmp_path / "mask.nii.gz", marked(), smaller), volume)
