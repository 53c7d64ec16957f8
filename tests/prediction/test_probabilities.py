"""`cascade predict --probabilities` writes the tumor probability of each pixel on the grid of the mask."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import highdicom.seg
import nibabel
import numpy as np
import pytest
import tifffile
from dicom_files import image, series, write
from PIL import Image
from stub_cascade import cascade_of, rows_of

from cascade.contract import PROBABILITY, THRESHOLD
from cascade.errors import CascadeError
from cascade.prediction.output_dir import remove_previous
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

OPTIONS = RunOptions(report=False, overlays=False, probabilities=True, keep_all_components=True)

AFFINE = np.array([[0, 0, -5.0, 40], [0, -0.98, 0, 30], [0.98, 0, 0, -20], [0, 0, 0, 1]])
"""Sagittal slices along the last axis: the stored array differs from the slices in the order and direction of axes."""


class Graded:
    """A segmenter whose probability is the gray value over 255."""

    def run(self, slice):
        return {PROBABILITY: np.clip(slice / 255, 0, 1).astype(np.float32)}


CASCADE = cascade_of(Graded())


def write_scans(folder):
    """One input of each kind, of gray values from 0 to 255. About half of the pixels of some slices are tumor."""
    folder.mkdir()
    random = np.random.default_rng(0)
    head = np.clip(random.normal(110, 30, (64, 48, 6)), 0, 255).astype(np.float32)
    picture = head[:, :, 0].astype(np.uint8)
    Image.fromarray(picture).save(folder / "a.png")
    np.save(folder / "slice.npy", head[:, :, 0])
    np.save(folder / "stack.npy", np.moveaxis(head, 2, 0))
    tifffile.imwrite(folder / "stack.tif", np.moveaxis(head, 2, 0).astype(np.uint8), photometric="minisblack")
    nibabel.save(nibabel.Nifti1Image(head, AFFINE), folder / "head.nii.gz")
    nibabel.save(nibabel.MGHImage(head, AFFINE.astype(np.float32)), folder / "head.mgz")
    series(folder / "series", np.moveaxis(head, 2, 0).astype(np.uint16), PixelSpacing=[0.98, 0.98])
    write(folder / "unplaced.dcm", image(picture.astype(np.uint16), PixelSpacing=None, ImagePositionPatient=None))
    return folder


def predict(scans, options=OPTIONS):
    out = scans.parent / "out"
    return predict_paths(CASCADE, [scans], out, options), out


@pytest.fixture
def scans(tmp_path):
    return write_scans(tmp_path / "scans")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The inputs and the results of a run, to look at only."""
    scans = write_scans(tmp_path_factory.mktemp("finished") / "scans")
    run, out = predict(scans)
    assert run.exit_code == 0
    return scans, out


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def read(path):
    """Return a mask or a map as a reader that knows nothing of cascade does."""
    if path.name.endswith(".seg.dcm"):
        return highdicom.seg.segread(path).get_volume(combine_segments=False, rescale_fractional=True).array[..., 0]
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    return np.asanyarray(nibabel.load(path).dataobj)


FULL = {".png": 65535, ".tif": 65535}
"""Suffix → the value that stands for a probability of 1; 1 for the others."""


def test_the_mask_is_where_the_probability_of_each_format_reaches_the_threshold(finished):
    _, out = finished
    masks, maps = files_of(out / "masks"), files_of(out / "probabilities")
    assert maps.keys() == masks.keys()
    assert len(maps) == 8
    for name, path in maps.items():
        mask, probability = read(masks[name]) > 0, read(path) / FULL.get(path.suffix, 1)
        assert mask.any(), name
        assert np.array_equal(probability >= THRESHOLD, mask), name
        assert 0 <= probability.min() < 0.4 < 0.6 < probability.max() <= 1, name


def test_the_map_of_a_volume_has_the_grid_of_its_mask_and_the_values_of_the_models(finished):
    scans, out = finished
    volume = CASCADE.predict_volume(scans / "head.nii.gz", probability_map=True)
    for name in ("head.nii.gz", "head.mgz.nii.gz"):
        mask, probability = (nibabel.load(out / folder / name) for folder in ("masks", "probabilities"))
        assert np.array_equal(probability.affine, mask.affine)
        assert probability.get_data_dtype() == np.uint16
        assert probability.dataobj.slope == np.float32(1 / 65535)
    probability = nibabel.load(out / "probabilities/head.nii.gz").get_fdata()
    # Sagittal slices from left to right, rows from superior to inferior, columns from anterior to posterior.
    turned = probability.transpose(2, 0, 1)[::-1, ::-1]
    assert np.abs(turned - volume.probability_map).max() < 1 / 65535


def test_a_dicom_series_gets_a_fractional_segmentation_with_the_references_of_the_mask(finished):
    scans, out = finished
    mask, probability = (
        highdicom.seg.segread(next((out / folder).rglob("*.seg.dcm"))) for folder in ("masks", "probabilities")
    )
    assert (probability.SegmentationType, probability.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert probability.get_source_image_uids() == mask.get_source_image_uids()
    assert probability.StudyInstanceUID == mask.StudyInstanceUID
    assert probability.SeriesInstanceUID != mask.SeriesInstanceUID
    assert probability.get_volume().affine == pytest.approx(mask.get_volume().affine)
    volume = CASCADE.predict_volume(scans / "series", probability_map=True)
    stored = probability.get_volume(combine_segments=False, rescale_fractional=True).array[..., 0]
    assert np.sort(stored, axis=None) == pytest.approx(np.sort(volume.probability_map, axis=None), abs=0.51 / 255)


def test_rows_of_slices_and_volumes_name_the_map(finished):
    _, out = finished
    content = json.loads((out / "results.json").read_text())
    for row in content["slices"] + content["volumes"]:
        assert row["probability_map"] == row["mask"].replace("masks/", "probabilities/")
        assert (out / row["probability_map"]).is_file()
    for table, records in (("results.csv", content["slices"]), ("volumes.csv", content["volumes"])):
        with (out / table).open(newline="", encoding="utf-8-sig") as file:
            cells = [row["probability_map"] for row in csv.DictReader(file)]
        assert cells == [record["probability_map"] for record in records]


def test_without_the_option_there_are_no_maps_and_the_masks_are_the_same(scans, finished):
    _, out = predict(scans, replace(OPTIONS, probabilities=False))
    assert not (out / "probabilities").exists()
    assert {row["probability_map"] for row in rows_of(out)} == {None}
    masks, others = files_of(out / "masks"), files_of(finished[1] / "masks")
    assert masks.keys() == others.keys()
    for name, path in masks.items():
        if not name.endswith(".dcm"):  # their UIDs are new in each run
            assert path.read_bytes() == others[name].read_bytes(), name
        assert np.array_equal(read(path), read(others[name])), name


def test_the_map_also_holds_what_the_finding_rejects(tmp_path):
    array = np.zeros((64, 64, 20), np.float32)
    array[20:40, 20:40, 3:8] = array[20:40, 20:40, 14] = 250
    scans = tmp_path / "scans"
    scans.mkdir()
    nibabel.save(nibabel.Nifti1Image(array + np.float32(np.eye(64))[..., None], AFFINE), scans / "head.nii.gz")
    _, out = predict(scans, replace(OPTIONS, keep_all_components=False))
    mask, probability = (read(out / folder / "head.nii.gz") for folder in ("masks", "probabilities"))
    assert np.flatnonzero(mask.any((0, 1))).tolist() == [3, 4, 5, 6, 7]
    assert np.flatnonzero((probability >= THRESHOLD).any((0, 1))).tolist() == [3, 4, 5, 6, 7, 14]


def test_resuming_computes_only_inputs_whose_map_is_missing_or_changed(scans):
    run, out = predict(scans)
    (out / "probabilities/a.png").unlink()
    (out / "probabilities/stack.npy").write_bytes(b"edited")
    resumed, out = predict(scans, replace(OPTIONS, resume=True))
    assert resumed.resumed_rows == len(run.rows) - 1 - 6
    assert read(out / "probabilities/stack.npy").dtype == np.float16
    with pytest.raises(CascadeError, match="probabilities was True, is False"):
        predict(scans, replace(OPTIONS, resume=True, probabilities=False))


def test_maps_are_output_and_never_input(tmp_path):
    """A run over a folder that contains the results of another one leaves out its maps, as it does its masks."""
    scans = tmp_path / "scans"
    scans.mkdir()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(scans / "a.png")
    _, out = predict(scans)
    assert (out / "probabilities/a.png").is_file()
    assert [row.name for row in predict_paths(CASCADE, [tmp_path], tmp_path / "second", OPTIONS).rows] == [
        "scans/a.png"
    ]
    predict(scans, replace(OPTIONS, probabilities=False, overwrite=True))
    assert not (out / "probabilities").exists()


def test_a_file_of_another_program_among_the_maps_stays(tmp_path):
    for name in ("masks/a.png", "probabilities/a.png", "probabilities/other.png"):
        write_bytes(tmp_path / name)
    remove_previous(tmp_path, ["masks/a.png", "probabilities/a.png"])
    assert [path.name for path in tmp_path.rglob("*.png")] == ["other.png"]


def write_bytes(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_in_python_a_prediction_has_its_probabilities_on_request(scans):
    assert CASCADE.predict(scans / "a.png").probability_map is None
    prediction = CASCADE.predict(scans / "a.png", probability_map=True)
    assert prediction.probability_map.dtype == np.float32
    assert np.array_equal(prediction.probability_map >= THRESHOLD, prediction.mask)
    (other,) = CASCADE.predict_batch([scans / "a.png"], probability_map=True)
    assert np.array_equal(other.probability_map, prediction.probability_map)
    array = np.zeros((3, 64, 48), np.float32)
    array[1, 20:30, 20:30] = 200
    volume = CASCADE.predict_volume(array, probability_map=True)
    assert volume.probability_map.shape == array.shape
    assert volume.probability_map.any(axis=(1, 2)).tolist() == [False, True, False]  # the others are blank
    assert CASCADE.predict_volume(array).probability_map is None
