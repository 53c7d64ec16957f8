"""However a DICOM slice is stored, it is read as a radiologist's viewer shows it, and its mask fits the stored pixels.

Before, pixels went to the models as stored: a pituitary tumor in an image stored upside down was a meningioma.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import ENHANCED_MR, HEAD, groups, image, multi_frame, opened, write
from PIL import Image

from cascade.io.nifti import open_nifti
from cascade.pipeline import Cascade

SAMPLES = Path(__file__).parents[3] / "samples"

PLANES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.6, 0.8, 0, 0, 0, -1),
    "doubly oblique": (0.936, 0.352, 0, 0.2112, -0.5616, -0.8),
    "halfway": (0.70710678, 0, -0.70710678, 0, 1, 0),
    "turned in plane by 45 degrees": (0.70710678, 0.70710678, 0, -0.70710678, 0.70710678, 0),
}
"""Directions of rows and columns of a slice; all but the last two are displayed as they are stored."""

FORMS = list(itertools.product((False, True), repeat=3))
ORIGIN = np.array([-20.0, 31.5, 7.25])
SPACING = (0.8, 0.9)
SLICE = HEAD[4]


def stored_form(pixels, orientation, form, origin=ORIGIN):
    """Store a slice in one of eight forms. Returns the pixels and the elements that describe them.

    Args:
        pixels: (H, W) as displayed.
        orientation: Directions of its rows and columns.
        form: Whether rows are reversed, columns are reversed, and rows and columns are exchanged.
        origin: Position of its first pixel.
    """
    rows_reversed, columns_reversed, exchanged = form
    along_row, along_column = np.reshape(np.array(orientation, float), (2, 3))
    spacing, origin = SPACING, origin.copy()
    if rows_reversed:
        origin += along_column * spacing[0] * (len(pixels) - 1)
        pixels, along_column = pixels[::-1], -along_column
    if columns_reversed:
        origin += along_row * spacing[1] * (pixels.shape[1] - 1)
        pixels, along_row = pixels[:, ::-1], -along_row
    if exchanged:
        pixels, along_row, along_column, spacing = pixels.T, along_column, along_row, spacing[::-1]
    elements = {
        "ImageOrientationPatient": [*along_row.tolist(), *along_column.tolist()],
        "ImagePositionPatient": origin.round(6).tolist(),
        "PixelSpacing": list(spacing),
    }
    return np.ascontiguousarray(pixels), elements


def places(content):
    """Return the positions in the patient of all pixels of a segmentation that are set, sorted."""
    seg = pydicom.dcmread(io.BytesIO(content))
    shared = seg.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float), (2, 3))
    spacing = [float(number) for number in shared.PixelMeasuresSequence[0].PixelSpacing]
    positions = []
    masks = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for mask, frame in zip(masks, seg.PerFrameFunctionalGroupsSequence, strict=True):
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        for at_row, at_column in np.argwhere(mask):
            positions.append(origin + at_row * spacing[0] * column + at_column * spacing[1] * row)
    return sorted(np.round(positions, 3).tolist())


@pytest.mark.parametrize("plane", PLANES)
def test_all_eight_stored_forms_of_a_slice_are_read_alike_and_their_masks_lie_in_one_place(tmp_path, plane):
    results = []
    for number, form in enumerate(FORMS):
        pixels, elements = stored_form(SLICE, PLANES[plane], form)
        source = opened([write(tmp_path / f"{number}.dcm", image(pixels, **elements))], tmp_path)
        slice_ = source.read(0)
        results.append(
            (slice_.pixels.tolist(), slice_.spacing_mm, places(source.mask_bytes((slice_.pixels > 900)[None])))
        )
    assert all(result == results[0] for result in results)
    assert len(results[0][2]) == (SLICE > 900).sum()
    if plane not in ("halfway", "turned in plane by 45 degrees"):
        assert results[0][:2] == (SLICE.tolist(), SPACING)


@pytest.mark.parametrize("form", FORMS)
def test_a_png_mask_is_on_the_stored_grid(tmp_path, form):
    pixels, elements = stored_form(SLICE, PLANES["sagittal"], form)
    source = opened([write(tmp_path / "a.dcm", image(pixels, FrameOfReferenceUID=None, **elements))], tmp_path)
    mask = np.asarray(Image.open(io.BytesIO(source.mask_bytes((source.read(0).pixels > 900)[None]))))
    assert (mask > 0).tolist() == (pixels > 900).tolist()


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "oblique", "doubly oblique"])
@pytest.mark.parametrize("form", FORMS)
def test_a_series_is_read_as_the_nifti_volume_of_it(tmp_path, plane, form):
    """The slices have the same order too: from inferior to superior, posterior to anterior, or left to right."""
    normal = np.cross(PLANES[plane][:3], PLANES[plane][3:])
    paths, stored = [], []
    for index, pixels in enumerate(HEAD):
        pixels, elements = stored_form(pixels, PLANES[plane], form, ORIGIN + 3 * index * normal)
        stored.append(pixels)
        paths.append(write(tmp_path / f"{index}.dcm", image(pixels, SOPInstanceUID=f"1.2.{index}", **elements)))
    first = pydicom.dcmread(paths[0])
    along_row, along_column = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    spacing = [float(number) for number in first.PixelSpacing]
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([along_row * spacing[1], along_column * spacing[0], 3 * normal])
    affine[:3, 3] = first.ImagePositionPatient
    affine = np.diag([-1, -1, 1, 1]) @ affine
    nibabel.save(nibabel.Nifti1Image(np.stack(stored).transpose(2, 1, 0), affine), tmp_path / "a.nii")
    series, volume = opened(paths, tmp_path), open_nifti(tmp_path / "a.nii", "a.nii", 2)
    assert series.count == volume.count == 6
    for index in range(6):
        assert series.read(index).pixels.tolist() == volume.read(index).pixels.tolist()
        assert series.read(index).spacing_mm == pytest.approx(volume.read(index).spacing_mm, abs=1e-5)
    masks = np.stack([series.read(index).pixels >= 4000 for index in range(6)])
    (place,) = places(series.mask_bytes(masks))
    (voxel,) = np.argwhere(np.stack(stored).transpose(2, 1, 0) == 4000)
    assert place == pytest.approx((affine @ [*voxel, 1])[:3] * (-1, -1, 1), abs=2e-3)


@pytest.mark.parametrize("shared", [True, False])
def test_the_orientation_of_an_enhanced_file_is_found_in_shared_and_in_per_frame_groups(tmp_path, shared):
    pixels, elements = stored_form(SLICE, PLANES["sagittal"], (True, True, False))
    sequences = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": elements["ImageOrientationPatient"]},
        "PixelMeasuresSequence": {"PixelSpacing": elements["PixelSpacing"], "SliceThickness": 3},
    }
    position = {"PlanePositionSequence": {"ImagePositionPatient": elements["ImagePositionPatient"]}}
    frames = multi_frame(
        head=pixels[None],
        order=[0],
        SharedFunctionalGroupsSequence=[groups(**(sequences if shared else {}))],
        PerFrameFunctionalGroupsSequence=[groups(**position, **({} if shared else sequences))],
    )
    assert frames.SOPClassUID == ENHANCED_MR
    source = opened([write(tmp_path / "a.dcm", frames)], tmp_path)
    assert source.read(0).pixels.tolist() == SLICE.tolist()
    pixels, elements = stored_form(SLICE, PLANES["sagittal"], (False, False, False))
    upright = opened([write(tmp_path / "b.dcm", image(pixels, **elements))], tmp_path)
    mask = (SLICE > 900)[None]
    assert places(source.mask_bytes(mask)) == places(upright.mask_bytes(mask))


def test_without_orientation_a_slice_is_read_as_stored_with_a_note(tmp_path):
    path = write(tmp_path / "a.dcm", image(SLICE, ImageOrientationPatient=None))
    source = opened([path], tmp_path)
    assert source.read(0).pixels.tolist() == SLICE.tolist()
    assert any("left and right" in note for note in source.notes)


@pytest.mark.slow
def test_the_models_give_one_answer_for_all_eight_forms(tmp_path):
    pixels = np.asarray(Image.open(SAMPLES / "sagittal_pituitary_tumor_1.png"))
    slices = []
    for number, form in enumerate(FORMS):
        stored, elements = stored_form(pixels, PLANES["sagittal"], form)
        path = write(tmp_path / f"{number}.dcm", image(stored, **elements | {"PixelSpacing": [0.49, 0.49]}))
        slices.append(opened([path], tmp_path).read(0))
    predictions = Cascade.open(backend="onnxruntime").predict_batch(slices)
    for prediction in predictions:
        assert prediction.label == "pituitary tumor"
        assert prediction.probabilities == pytest.approx(predictions[0].probabilities, abs=1e-3)
        assert (prediction.mask == predictions[0].mask).all()
