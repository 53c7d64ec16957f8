"""Each format of mask opens in readers that share no code with cascade, in the place and with the voxels of its source.

The tumor is where the source is brighter than 200, so these readers count it in the source too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom.seg
import nibabel
import numpy as np
import pytest
import tifffile
from dicom_files import series
from PIL import Image
from stub_cascade import cascade_of

from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[dev]'")

SHAPE = (88, 72, 14)

PIXEL_MM = 0.49
"""At the spacing of the training data, slices are not resampled, so masks have exactly the voxels of the tumor."""

OBLIQUE = np.array([[0.0, 0.0, 3.0, -12.0], [-0.294, 0.392, 0.0, 31.5], [0.392, 0.294, 0.0, -7.25], [0, 0, 0, 1]])
"""Sagittal slices of 0.49 mm pixels, 3 mm apart, rotated in their plane."""


def head():
    """A volume (X, Y, Z) of intensities up to 100, with a tumor of 255 that no mirror image equals."""
    array = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.int16)
    array[20:40, 30:42, 4:9] = 255
    array[40:46, 30:34, 6:9] = 255
    return array


TUMOR = int(np.count_nonzero(head() == 255))


def square_slices():
    """Slices (14, 512, 512), which are not resampled either."""
    slices = np.zeros((14, 512, 512), np.uint8)
    slices[:, 100:188, 200:272] = np.moveaxis(head(), 2, 0)
    return slices


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One input of each kind that has a mask format of its own, and of each that gets a NIfTI mask."""
    scans = tmp_path_factory.mktemp("results") / "scans"
    scans.mkdir()
    nibabel.save(nibabel.Nifti1Image(head(), OBLIQUE), scans / "head.nii.gz")
    nibabel.save(nibabel.MGHImage(head(), OBLIQUE.astype(np.float32)), scans / "head.mgz")
    for name in ("head.nrrd", "head.mha"):
        sitk.WriteImage(sitk.ReadImage(str(scans / "head.nii.gz")), str(scans / name))
    series(scans / "series", np.moveaxis(head(), 2, 0).astype(np.uint16), PixelSpacing=[PIXEL_MM, PIXEL_MM])
    Image.fromarray(square_slices()[7]).save(scans / "slice.png")
    tifffile.imwrite(scans / "stack.tif", square_slices(), photometric="minisblack")
    np.save(scans / "stack.npy", square_slices())
    out = scans.parent / "out"
    options = RunOptions(report=False, overlays=False, probabilities=True)
    assert predict_paths(cascade_of(), [scans], out, options).exit_code == 0
    return scans, out


def read(path):
    return sitk.ReadImage(str(path))


def read_series(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def points(image, threshold):
    """Return the places in the patient of all voxels above a threshold, in millimeters, sorted."""
    indices = np.argwhere(sitk.GetArrayFromImage(image) > threshold)[:, ::-1]
    matrix = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    places = indices @ matrix.T + image.GetOrigin()
    return places[np.lexsort(places.round(2).T)]


@pytest.mark.parametrize("name", ["head.nii.gz", "head.mgz", "head.nrrd", "head.mha"])
@pytest.mark.parametrize(("folder", "threshold"), [("masks", 0), ("probabilities", 0.5)])
def test_simpleitk_finds_a_nifti_file_on_the_grid_of_its_volume(results, name, folder, threshold):
    scans, out = results
    written = read(out / folder / (name if name.endswith(".nii.gz") else f"{name}.nii.gz"))
    source = read(scans / ("head.nii.gz" if name == "head.mgz" else name))  # SimpleITK does not read MGH
    assert written.GetSize() == source.GetSize() == SHAPE
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(written, geometry)() == pytest.approx(getattr(source, geometry)(), abs=1e-4), geometry
    found, expected = points(written, threshold), points(source, 200)
    assert len(found) == len(expected) == TUMOR
    assert np.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("folder", ["masks", "probabilities"])
def test_simpleitk_finds_a_segmentation_in_the_place_of_its_series(results, folder):
    scans, out = results
    segmentation, source = read(next((out / folder).rglob("*.seg.dcm"))), read_series(scans / "series")
    assert segmentation.GetSize() == source.GetSize()
    assert segmentation.GetSpacing() == pytest.approx(source.GetSpacing(), abs=1e-4)
    found, expected = points(segmentation, 127), points(source, 200)
    assert len(found) == len(expected) == TUMOR
    assert np.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("folder", ["masks", "probabilities"])
def test_highdicom_finds_a_segmentation_in_the_place_of_its_series(results, folder):
    scans, out = results
    path = next((out / folder).rglob("*.seg.dcm"))
    volume = highdicom.seg.segread(path).get_volume(combine_segments=False, rescale_fractional=True)
    indices = np.argwhere(volume.array[..., 0] >= 0.5)
    places = indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    expected = points(read_series(scans / "series"), 200)
    assert len(places) == TUMOR
    assert np.allclose(places[np.lexsort(places.round(2).T)], expected, atol=1e-3)


@pytest.mark.parametrize("folder", ["masks", "probabilities"])
def test_dcmqi_converts_a_segmentation_to_the_voxels_of_its_series(results, folder, tmp_path):
    """dcmqi is the library behind the segmentations of 3D Slicer."""
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which("segimage2itkimage") or shutil.which("segimage2itkimage", path=beside_python)
    if program is None:
        pytest.skip("pip install 'cascade-mri[dev]'")
    scans, out = results
    path = next((out / folder).rglob("*.seg.dcm"))
    command = [program, "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nii"]
    subprocess.run(command, check=True, capture_output=True)
    (segment,) = json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"][0]
    assert (segment["SegmentLabel"], segment["SegmentAlgorithmName"]) == ("tumor", "cascade")
    found, expected = points(read(tmp_path / "1.nii.gz"), 0), points(read_series(scans / "series"), 200)
    assert len(found) == len(expected) == TUMOR
    assert np.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("name", ["slice.png", "stack.tif"])
def test_simpleitk_reads_a_picture_or_stack_with_the_pixels_of_its_source(results, name):
    scans, out = results
    source = sitk.GetArrayFromImage(read(scans / name))
    mask, probability = (sitk.GetArrayFromImage(read(out / folder / name)) for folder in ("masks", "probabilities"))
    assert (mask.dtype, probability.dtype) == (np.uint8, np.uint16)
    assert np.array_equal(mask, np.where(source > 200, 255, 0))
    assert np.array_equal(probability, np.where(source > 200, 65535, 0))


def test_numpy_maps_a_mask_into_memory_with_the_shape_of_its_array(results):
    scans, out = results
    source = np.load(scans / "stack.npy")
    mask, probability = (
        np.load(out / folder / "stack.npy", mmap_mode="r", allow_pickle=False) for folder in ("masks", "probabilities")
    )
    assert (mask.dtype, probability.dtype) == (np.uint8, np.float16)
    assert np.array_equal(mask, source > 200)
    assert np.array_equal(probability, source > 200)
