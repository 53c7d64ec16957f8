"""A table may list volumes instead of slices: NIfTI files and DICOM series, each with a NIfTI mask."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from dicom_files import HEAD, MARKER, SPACING, STEP_MM, series, series_affine
from PIL import Image

from cascade.datasets.reader import scan
from cascade.datasets.volumes import VolumeInfo, list_volumes, lists_volumes, read_label
from cascade.errors import CascadeError


def write_table(folder, *rows):
    (folder / "volumes.csv").write_text("\n".join(["path,mask,label,patient", *rows]) + "\n")


@pytest.mark.parametrize("path", ["a.nii", "a.nii.gz", "a.dcm", "series"])
def test_folders_and_files_of_volumes_make_a_table_of_volumes(tmp_path, path):
    (tmp_path / "series").mkdir()
    write_table(tmp_path, "unknown,,none,p1", f"{path},,none,p2")
    assert lists_volumes(tmp_path)


def test_a_dicom_file_without_a_suffix_is_a_volume_and_a_name_may_be_too_long(tmp_path):
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    write_table(tmp_path, f"{'x' * 300},,none,p1", "IM0001,,none,p2")
    assert lists_volumes(tmp_path)


def test_pictures_mat_files_and_an_empty_folder_are_no_volumes(tmp_path, write_mat):
    assert not lists_volumes(tmp_path)
    write_mat(tmp_path / "1.mat")
    assert not lists_volumes(tmp_path)
    write_table(tmp_path, "a.png,a_mask.nii,glioma,p1", "unknown,b.png,glioma,p2")
    assert not lists_volumes(tmp_path)


def test_a_table_of_both_is_refused_for_either_use(tmp_path):
    write_table(tmp_path, "a.png,m.png,glioma,p1", "b.nii,m.nii,glioma,p2")
    for use in (lists_volumes, lambda folder: list(scan(folder))):
        with pytest.raises(CascadeError, match=r"b\.nii.*a\.png"):
            use(tmp_path)


def test_what_reads_slices_says_that_the_table_lists_volumes(tmp_path):
    """`cascade data inspect` and `cascade train` said of each volume that it is no picture."""
    write_table(tmp_path, "a.nii,m.nii,glioma,p1")
    with pytest.raises(CascadeError, match=r"volumes\.csv: lists volumes") as raised:
        list(scan(tmp_path))
    assert "cascade evaluate" in raised.value.fix


def test_a_head_without_a_tumor_has_the_label_none_and_needs_no_mask(tmp_path):
    write_table(
        tmp_path, "a.nii,,None,p1", "b.nii,m.nii,Glioma,p2", "c.nii,,glioma,p3", "d.nii,,none,", "a.nii,,none,p1"
    )
    healthy, tumor, *problems = list_volumes(tmp_path)
    assert healthy == VolumeInfo("a.nii", "", "none", "p1")
    assert not healthy.has_tumor
    assert tumor == VolumeInfo("b.nii", "m.nii", "glioma", "p2")
    assert tumor.has_tumor
    assert [error.problem.partition(": ")[0].rpartition("line ")[2] for error in problems] == ["4", "5", "6"]


def test_the_label_of_a_dicom_series_has_the_order_of_its_slices_and_their_volume(tmp_path):
    series(tmp_path / "case 1")
    mask = nib.Nifti1Image((HEAD[MARKER] == HEAD).T.astype(np.uint8), series_affine())
    nib.save(mask, tmp_path / "mask.nii.gz")
    label = read_label(tmp_path, VolumeInfo("case 1", "mask.nii.gz", "glioma", "p1"))
    assert label.mask.shape[0] == len(HEAD)
    assert label.mask.sum() == 1
    assert label.pixel_ml == pytest.approx([SPACING[0] * SPACING[1] * STEP_MM / 1000] * len(HEAD))


def test_a_folder_of_a_picture_is_no_volume(tmp_path):
    (tmp_path / "case").mkdir()
    Image.fromarray(np.arange(600).reshape(20, 30).astype(np.uint16)).save(tmp_path / "case" / "a.png")
    with pytest.raises(CascadeError, match="case: is a picture"):
        read_label(tmp_path, VolumeInfo("case", "", "none", "p1"))
