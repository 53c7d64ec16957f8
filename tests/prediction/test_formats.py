"""Whole runs over volumes of other formats than NIfTI and DICOM: rows, masks, `left_out` and `--resume`."""

import sys

import nibabel
import numpy as np
import pytest
import tifffile
from stub_cascade import cascade_of, rows_of

from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

AFFINE = np.diag([0.98, 0.98, 5.0, 1.0])
HEAD = np.tile(np.linspace(0, 100, 64), (64, 1))[..., None].repeat(20, axis=2).astype(np.float32)
HEAD[20:30, 20:30, 5:8] = 255


def predict(scans, **options):
    out = scans.parent / "out"
    return predict_paths(cascade_of(), [scans], out, RunOptions(report=False, overlays=False, **options)), out


def masks_of(out):
    return {path.name: path for path in sorted((out / "masks").iterdir())}


def test_volumes_of_nibabel_have_one_finding_each_and_masks_as_nifti(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    nibabel.save(nibabel.MGHImage(HEAD, AFFINE.astype(np.float32)), scans / "a.mgz")
    nibabel.save(nibabel.AnalyzeImage(HEAD, AFFINE), scans / "b.hdr")
    nibabel.save(nibabel.Nifti1Image(np.stack([0 * HEAD, HEAD], axis=-1), AFFINE), scans / "c.nii.gz")
    run, out = predict(scans, volume=1)
    assert [(row.name, row.label is not None, row.tumor_slices) for row in run.volumes] == [
        (name, True, 3) for name in ("a.mgz", "b.hdr", "c.nii.gz")
    ]
    assert (run.exit_code, run.left_out) == (0, {})
    assert {row["file"] for row in rows_of(out)} == {None}
    masks = {name: nibabel.load(path) for name, path in masks_of(out).items()}
    assert list(masks) == ["a.mgz.nii.gz", "b.hdr.nii.gz", "c.nii.gz"]
    for mask in masks.values():
        assert mask.shape == HEAD.shape
        assert np.array_equal(np.flatnonzero(mask.get_fdata().any((0, 1))), [5, 6, 7])
    assert np.allclose(masks["a.mgz.nii.gz"].affine, AFFINE)
    again, _ = predict(scans, volume=1, resume=True)
    assert again.resumed_rows == 60


def test_without_a_number_a_file_of_several_volumes_is_refused_and_the_fix_names_the_option(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    nibabel.save(nibabel.Nifti1Image(HEAD, AFFINE), scans / "a.nii")
    nibabel.save(nibabel.Nifti1Image(np.stack([HEAD, HEAD], axis=-1), AFFINE), scans / "b.nii")
    run, _ = predict(scans)
    assert run.exit_code == 2
    (row,) = run.failed
    assert row.name == "b.nii"
    assert "--volume" in row.fix


def test_arrays_and_tiff_stacks_have_one_finding_each_and_masks_in_their_own_format(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    stack = np.moveaxis(HEAD, 2, 0)
    np.save(scans / "slice.npy", stack[5])
    np.save(scans / "stack.npy", stack)
    tifffile.imwrite(
        scans / "a.tif",
        stack.astype(np.uint16),
        imagej=True,
        resolution=(1, 1),
        metadata={"spacing": 5.0, "unit": "mm"},
    )
    tifffile.imwrite(scans / "b.tiff", stack.astype(np.uint8), truncate=True, photometric="minisblack")
    run, out = predict(scans)
    assert (run.exit_code, run.left_out) == (0, {})
    assert [(row.name, row.slices, row.tumor_slices) for row in run.volumes] == [
        (name, 20, 3) for name in ("a.tif", "b.tiff", "stack.npy")
    ]
    volumes_ml = [row.volume_ml for row in run.volumes]
    assert volumes_ml == [pytest.approx(1.5, rel=0.03), None, None]  # 3 slices of 100 mm² and 5 mm
    masks = masks_of(out)
    assert list(masks) == ["a.tif", "b.tiff.tif", "slice.npy.png", "stack.npy"]
    expected = stack == 255
    assert np.array_equal(np.load(masks["stack.npy"]) > 0, expected)
    assert np.array_equal(tifffile.imread(masks["b.tiff.tif"]), 255 * expected)
    assert np.array_equal(np.flatnonzero(tifffile.imread(masks["a.tif"]).any((1, 2))), [5, 6, 7])
    again, _ = predict(scans, resume=True)
    assert again.resumed_rows == 61


def test_nrrd_and_metaimage_have_one_finding_each_and_masks_as_nifti(tmp_path):
    sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[formats]'")
    scans = tmp_path / "scans"
    scans.mkdir()
    image = sitk.GetImageFromArray(np.ascontiguousarray(HEAD.T))
    image.SetSpacing((0.98, 0.98, 5.0))
    for name in ("a.nrrd", "b.mha", "c.mhd"):
        sitk.WriteImage(image, str(scans / name))
    run, out = predict(scans)
    assert (run.exit_code, run.left_out) == (0, {})
    assert [(row.name, row.slices, row.tumor_slices) for row in run.volumes] == [
        (name, 20, 3) for name in ("a.nrrd", "b.mha", "c.mhd")
    ]
    assert {row["file"] for row in rows_of(out)} == {None}
    for name, path in masks_of(out).items():
        assert name.endswith(".nii.gz")
        mask = sitk.ReadImage(str(path))
        assert mask.GetSpacing() == pytest.approx(image.GetSpacing())
        assert mask.GetDirection() == pytest.approx(image.GetDirection())
        assert np.array_equal(np.flatnonzero(sitk.GetArrayFromImage(mask).any((1, 2))), [5, 6, 7])
    again, _ = predict(scans, resume=True)
    assert again.resumed_rows == 60


@pytest.mark.parametrize("name", ["a.mhd", "head_old.mhd"])
def test_of_two_headers_of_the_same_voxels_one_may_be_wrong(tmp_path, name):
    """The voxels counted as read and as left out, which was an internal error."""
    sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[formats]'")
    scans = tmp_path / "scans"
    scans.mkdir()
    image = sitk.GetImageFromArray(np.ascontiguousarray(HEAD.T))
    image.SetSpacing((0.98, 0.98, 5.0))
    sitk.WriteImage(image, str(scans / "head.mhd"))
    header = (scans / "head.mhd").read_text()
    assert "= 64 64 20\n" in header
    (scans / name).write_text(header.replace("= 64 64 20\n", "= 64 64 60\n"))
    run, _ = predict(scans)
    assert run.exit_code == 2
    assert {row.name: row.slices for row in run.volumes if row.status != "error"} == {"head.mhd": 20}
    assert [row.name for row in run.failed] == [name]
    assert run.left_out == {}


def test_without_simpleitk_such_a_file_is_an_error_row_and_the_others_are_processed(tmp_path, monkeypatch):
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 20 20 20\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        + bytes(8000)
    )
    nibabel.save(nibabel.Nifti1Image(HEAD, AFFINE), scans / "b.nii")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    run, _ = predict(scans)
    (row,) = run.failed
    assert row.name == "a.mha"
    assert "cascade-mri[formats]" in row.fix
    assert len(run.rows) == 21
