"""Maps of labels are refused: with the shipped models, a segmentation of a tumor had a finding like its scan."""

import json

import nibabel
import numpy as np
import pytest
import tifffile
from dicom_files import series
from PIL import Image
from stub_cascade import cascade_of, rows_of

from cascade.errors import CascadeError
from cascade.io.arrays import ArrayVolume
from cascade.io.labels import check_scan
from cascade.io.open import open_source
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

SHAPE = (6, 40, 48)


def labels(*values):
    """Boxes of values, one inside the other, in four of six slices."""
    stored = np.zeros(SHAPE, np.uint8)
    for margin, value in enumerate(values):
        stored[1:5, 5 + margin : 30 - margin, 8 + margin : 36 - margin] = value
    return stored


def save_nifti(path, stored):
    nibabel.save(nibabel.Nifti1Image(stored.transpose(2, 1, 0), np.diag([1.0, 1.0, 4.0, 1.0])), path)
    return path


def save_as(folder, kind, stored):
    folder.mkdir()
    path = folder / f"a.{kind}"
    match kind:
        case "nii.gz":
            save_nifti(path, stored)
        case "npy":
            np.save(path, stored)
        case "tif":
            tifffile.imwrite(path, stored, photometric="minisblack")
        case "nrrd":
            sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[dev]'")
            sitk.WriteImage(sitk.GetImageFromArray(stored), path)
        case "dcm":
            series(folder, stored, PixelSpacing=[1, 1])
    return folder


@pytest.mark.parametrize("values", [(1,), (255,), (2, 4, 1), range(1, 11)], ids=str)
def test_a_volume_of_few_class_numbers_is_no_scan(tmp_path, values):
    path = save_nifti(tmp_path / "a.nii", labels(*values))
    with pytest.raises(CascadeError) as raised:
        check_scan(open_source(path))
    assert str(path) in raised.value.problem
    assert raised.value.fix
    with pytest.raises(CascadeError):
        check_scan(ArrayVolume(labels(*values)))


@pytest.mark.parametrize("kind", ["nii.gz", "npy", "tif", "nrrd", "dcm"])
def test_a_map_of_labels_of_any_format_gets_an_error_and_other_inputs_are_done(tmp_path, kind):
    scans = save_as(tmp_path / "scans", kind, labels(2, 4, 1))
    save_nifti(scans / "z.nii", np.random.default_rng(0).integers(0, 200, SHAPE, np.uint8))
    predict_paths(cascade_of(), [scans], tmp_path / "out", RunOptions(report=False, overlays=False))
    volumes = json.loads((tmp_path / "out/results.json").read_text())["volumes"]
    assert [volume["status"] for volume in volumes] == ["error", "no_tumor"]
    assert "labels" in volumes[0]["problem"]
    assert volumes[0]["fix"]
    assert {row["status"] for row in rows_of(tmp_path / "out") if row["input"] != "z.nii"} == {"error"}


def test_in_python_a_map_of_labels_is_refused(tmp_path):
    for volume in (labels(1), save_nifti(tmp_path / "a.nii", labels(1))):
        with pytest.raises(CascadeError, match="labels"):
            cascade_of().predict_volume(volume)


def test_a_nifti_file_of_one_slice_is_checked_and_a_picture_is_not(tmp_path):
    (tmp_path / "scans").mkdir()
    save_nifti(tmp_path / "scans/a.nii", labels(1)[1:2])
    Image.fromarray(255 * labels(1)[1]).save(tmp_path / "scans/b.png")
    predict_paths(cascade_of(), [tmp_path / "scans"], tmp_path / "out", RunOptions(report=False, overlays=False))
    nifti, picture = rows_of(tmp_path / "out")
    assert nifti["status"] == "error"
    assert picture["status"] != "error"


def test_one_slice_with_another_value_shows_that_it_is_a_scan():
    for value in (11, 0.5, -1, 255):
        scan = labels(1, 2).astype(np.float32)
        scan[1, 2, 3] = value
        check_scan(ArrayVolume(scan))


@pytest.mark.parametrize(
    "scan",
    [
        np.random.default_rng(0).integers(0, 30, SHAPE, np.uint8),
        labels(1) * np.random.default_rng(0).integers(0, 30, SHAPE, np.uint8),
        labels(1, 1) * np.float32(0.5),
        labels(60, 80, 200),
        labels(1) - np.int16(1000),
        10 - labels(1),
        labels(1)[1:2],
        np.zeros(SHAPE),
    ],
    ids=["noise", "few gray values on 0", "fractions", "gray values", "negative", "not on 0", "one slice", "blank"],
)
def test_a_scan_passes(scan):
    check_scan(ArrayVolume(scan))


def test_a_scan_is_recognized_by_the_slice_in_its_middle(tmp_path):
    """A skull-stripped volume begins with blank slices. Reading a series costs nothing but one slice more."""
    scan = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.uint16)
    source = open_source(series(tmp_path / "scan", scan)[0].parent)
    read = []
    source.read = lambda index: read.append(index) or type(source).read(source, index)
    check_scan(source)
    assert read == [3]
