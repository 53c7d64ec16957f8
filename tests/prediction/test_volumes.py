"""`cascade predict` gives one finding for each volume."""

import csv
import json

import nibabel
import numpy as np
import pytest
import tifffile
from dicom_files import HEAD, image, position, write
from PIL import Image
from stub_cascade import MODELS, AlwaysGlioma, BrightIsTumor, cascade_of

from cascade.contract import CLASS_NAMES
from cascade.pipeline import Cascade
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.prediction.volumes import volume_record, volume_result
from cascade.runtime.cpu import CpuBackend
from cascade.volume.diameters import Diameters
from cascade.volume.finding import VolumeFinding, VolumeRule


def save_volume(path, *tumors, count=20, affine=(0.98, 0.98, 5.0, 1.0)):
    """A volume of `count` slices, with squares of 10 x 10 pixels in the slices `tumors`."""
    array = np.tile(np.linspace(0, 100, 64), (64, 1))[..., None].repeat(count, axis=2)
    for index in tumors:
        array[20:30, 20:30, index] = 255
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.diag(affine)), path)
    return array


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


def predict(scans, **options):
    out = scans.parent / "out"
    run = predict_paths(cascade_of(), [scans], out, RunOptions(report=False, overlays=False, **options))
    return run, json.loads((out / "results.json").read_text()), out


def test_each_volume_has_one_finding_and_a_picture_has_none(scans):
    save_volume(scans / "tumor.nii.gz", 5, 6, 7)
    save_volume(scans / "stray.nii.gz", 5)
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(scans / "a.png")
    run, content, out = predict(scans)
    assert len(run.volumes) == 2
    stray, tumor = content["volumes"]
    assert (stray["input"], stray["status"], stray["class"], stray["key_slice"]) == (
        "stray.nii.gz",
        "no_tumor",
        None,
        None,
    )
    assert stray["volume_ml"] == 0
    assert (tumor["input"], tumor["status"], tumor["class"]) == ("tumor.nii.gz", "tumor", "glioma")
    assert (tumor["slices"], tumor["tumor_slices"]) == (20, 3)
    assert tumor["volume_ml"] == pytest.approx(3 * 100 * 0.98**2 * 5 / 1000, abs=0.3)
    assert tumor["longest_mm"] == pytest.approx(np.hypot(9.8, 9.8), rel=0.2)
    assert tumor["mask"] == "masks/tumor.nii.gz"
    with (out / "volumes.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"], row["status"], row["probability_glioma"]) for row in rows] == [
        ("stray.nii.gz", "no_tumor", ""),
        ("tumor.nii.gz", "tumor", "0.5"),
    ]


def test_the_area_of_a_slice_counts_both_sides_of_its_pixels(scans):
    save_volume(scans / "a.nii.gz", 2, 3, count=6, affine=(0.5, 1.0, 5.0, 1.0))
    row = predict(scans)[1]["slices"][2]
    assert row["mask_pixels"] > 0
    assert row["mask_mm2"] == pytest.approx(row["mask_pixels"] * 0.5, abs=0.01)


def test_the_standards_of_the_loaded_models_decide(scans):
    save_volume(scans / "a.nii", 5, 6)

    def decided(name, **standards):
        loaded = Cascade(CpuBackend(BrightIsTumor(), AlwaysGlioma()), MODELS, **standards)
        run = predict_paths(loaded, [scans], scans.parent / name, RunOptions(report=False, overlays=False))
        return run.volumes[0].status, run.volumes[0].uncertain

    assert decided("1") == ("tumor", False)
    assert decided("2", uncertain_below=0.65) == ("tumor", True)
    assert decided("3", volume_rule=VolumeRule(min_support=9.0)) == ("no_tumor", False)


def test_the_row_of_a_volume_has_the_values_of_its_finding():
    finding = VolumeFinding(
        "tumor",
        dict(zip(CLASS_NAMES, (0.1, 0.8, 0.1), strict=True)),
        True,
        8.1234,
        20,
        3,
        5,
        1.23456,
        Diameters(12.345678, 6.789012),
    )
    record = volume_record(volume_result("a.nii", finding, "mask", None, ()))
    keys = ("uncertain", "support", "slices", "tumor_slices", "key_slice", "volume_ml", "longest_mm")
    assert [record[key] for key in keys] == [True, 8.123, 20, 3, 5, 1.235, 12.35]
    assert record["perpendicular_mm"] == 6.79


@pytest.mark.parametrize("keep", [False, True])
def test_the_mask_holds_what_the_finding_accepts_and_the_rest_only_on_request(scans, keep):
    save_volume(scans / "a.nii.gz", 3, 10, 11)
    _, content, out = predict(scans, keep_all_components=keep)
    mask = nibabel.load(out / "masks/a.nii.gz").get_fdata().any(axis=(0, 1))
    assert np.flatnonzero(mask).tolist() == ([3, 10, 11] if keep else [10, 11])
    stray, kept = content["slices"][3], content["slices"][10]
    assert (stray["status"], stray["accepted_pixels"]) == ("tumor", 0)
    assert kept["accepted_pixels"] == kept["mask_pixels"] > 0


def test_a_tumor_may_hide_in_slices_that_cannot_be_read(scans):
    """Infinite pixels stand for what cannot be read. A volume without a tumor in the others was one without a tumor."""
    for name, tumors in (("hidden.nii", ()), ("seen.nii", (10, 11))):
        array = save_volume(scans / name, *tumors)
        array[..., [4, 6]] = np.inf
        nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.diag([0.98, 0.98, 5.0, 1.0])), scans / name)
    hidden, seen = predict(scans)[1]["volumes"]
    assert (hidden["status"], hidden["class"]) == ("error", None)
    assert "hidden.nii, slice 5" in hidden["problem"]
    assert hidden["fix"]
    assert (hidden["mask"], hidden["support"]) == ("masks/hidden.nii.nii.gz", 0)
    assert hidden["tumor_slices"] is hidden["volume_ml"] is None
    assert "2 of its slices failed" in hidden["notes"]
    assert (seen["status"], seen["problem"]) == ("tumor", None)
    assert "2 of its slices failed" in seen["notes"]


def test_a_volume_of_which_no_slice_can_be_read_has_the_problem_of_the_first(scans):
    array = np.full((64, 64, 3), np.inf, np.float32)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), scans / "a.nii")
    content = predict(scans)[1]
    (volume,) = content["volumes"]
    assert "a.nii, slice 1" in volume["problem"]
    assert "other slices" not in volume["problem"]
    assert len({row["problem"] for row in content["slices"]}) == 3


def test_without_a_spacing_no_slice_of_a_volume_has_an_area_in_millimeters(scans):
    """Nothing is known about the size of a pixel, so that not even a slice without a tumor has 0 mm²."""
    np.save(scans / "a.npy", np.tile(np.linspace(0, 100, 64, dtype=np.float32), (3, 64, 1)))
    rows = predict(scans)[1]["slices"]
    assert [(row["mask_pixels"], row["mask_mm2"]) for row in rows] == 3 * [(0, None)]


def test_a_resumed_run_keeps_the_findings(scans):
    save_volume(scans / "a.nii.gz", 10, 11)
    before = predict(scans)[1]["volumes"]
    run, content, _ = predict(scans, resume=True)
    assert run.resumed_rows == 20
    assert content["volumes"] == before


def test_a_nifti_file_of_one_slice_is_a_volume_whether_it_can_be_read_or_not(scans):
    """Only the damaged ones had a row in the table of volumes."""
    array = save_volume(scans / "tumor.nii", 0, count=1)
    save_volume(scans / "healthy.nii", count=1)
    array[...] = np.inf
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), scans / "unreadable.nii")
    (scans / "cut.nii").write_bytes((scans / "tumor.nii").read_bytes()[:200])
    content = predict(scans)[1]
    cut, healthy, tumor, unreadable = content["volumes"]
    assert (cut["status"], unreadable["status"], healthy["status"]) == ("error", "error", "no_tumor")
    assert [volume["slices"] for volume in (cut, healthy, tumor, unreadable)] == [0, 1, 1, 1]
    assert (tumor["status"], tumor["class"], tumor["key_slice"]) == ("tumor", "glioma", 0)
    assert tumor["volume_ml"] == pytest.approx(100 * 0.98**2 * 5 / 1000, abs=0.1)
    row = next(row for row in content["slices"] if row["slice"] == "tumor.nii")
    assert (row["index"], row["accepted_pixels"]) == (None, row["mask_pixels"])
    assert row["mask_pixels"] > 0


def test_a_volume_that_cannot_be_opened_is_a_volume_too(scans):
    (scans / "a.nii").write_bytes(b"no volume")
    (volume,) = predict(scans)[1]["volumes"]
    assert (volume["input"], volume["status"], volume["slices"]) == ("a.nii", "error", 0)
    assert volume["problem"]
    assert volume["fix"]


def test_a_volume_of_any_format_that_cannot_be_opened_is_a_volume_too(scans):
    """A stack, NRRD or MetaImage file had a row in results.csv only, so that volumes.csv lacked it."""
    np.save(scans / "4d.npy", np.zeros((2, 3, 20, 20)))
    np.save(scans / "complex.npy", np.zeros((3, 20, 20), complex))
    (scans / "short.npy").write_bytes((scans / "4d.npy").read_bytes().replace(b"(2, 3, 20, 20)", b"(2222, 20, 20)"))
    tifffile.imwrite(scans / "color.tif", np.zeros((3, 20, 20, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(scans / "times.tif", np.zeros((3, 4, 20, 20), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    (scans / "a.nrrd").write_bytes(b"NRRD0004\ndimension: 4\nsizes: 20 20 3 4\ntype: short\n\n")
    (scans / "b.mha").write_bytes(b"ObjectType = Image\n")
    np.save(scans / "slice.npy", np.zeros((20, 20), complex))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(scans / "slice.tif")
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(scans / "z.png")
    content = predict(scans)[1]
    failed = ["4d.npy", "a.nrrd", "b.mha", "color.tif", "complex.npy", "short.npy", "times.tif"]
    assert [(row["input"], row["status"], row["slices"]) for row in content["volumes"]] == [
        (name, "error", 0) for name in failed
    ]
    assert [row["slice"] for row in content["slices"] if row["status"] == "error"] == sorted(
        [*failed, "slice.npy", "slice.tif"]
    )


def test_a_series_that_cannot_be_opened_is_one_volume_with_an_error(scans):
    """It was missing in volumes.csv, so that the series were fewer than the patients, and nothing said why."""
    for index, pixels in enumerate(HEAD):
        for echo_ms in (12, 99):
            uid = f"1.2.3.{echo_ms}.{index + 1}"
            position_mm = {"ImagePositionPatient": position(index), "InstanceNumber": index + 1}
            write(scans / f"{echo_ms}-{index}", image(pixels, SOPInstanceUID=uid, EchoTime=echo_ms, **position_mm))
    run, content, _ = predict(scans)
    (volume,) = content["volumes"]
    assert (volume["status"], volume["slices"]) == ("error", 2 * len(HEAD))
    assert "EchoTime" in volume["problem"]
    assert volume["input"] in {row.name for row in run.failed}


def test_notes_on_single_slices_are_not_of_the_volume(scans):
    """Its first slice is blank, as is common at the ends of a volume."""
    array = save_volume(scans / "a.nii", 10, 11)
    array[..., 0] = array[..., 19] = 0
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.diag([0.98, 0.98, 5.0, 1.0])), scans / "a.nii")
    content = predict(scans)[1]
    assert content["slices"][0]["notes"] == "blank"
    assert content["volumes"][0]["notes"] is None
