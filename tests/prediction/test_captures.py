"""`--secondary-capture` writes pictures of the tumor for DICOM viewers that do not show segmentations."""

from __future__ import annotations

import io
import json

import numpy as np
import pydicom
import pytest
from dicom_files import PLANTED, TEXTS, image, multi_frame, series, write
from PIL import Image
from run_inputs import out as out
from run_inputs import scans as scans
from stub_cascade import cascade_of, rows_of

from cascade.colors import CLASS_COLORS
from cascade.io.slices import Slice
from cascade.prediction.overlay import overlay_png, overlay_rgb
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.result import Prediction

SPACING = [0.98, 0.98]

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def head(*tumors, count=12):
    """Slices of a ramp, with a square in the slices `tumors`."""
    slices = np.tile(np.arange(64, dtype=np.uint16), (count, 64, 1))
    for index in tumors:
        slices[index, 20:30, 20:30] = 255
    return slices


def predict(scans, out, **options):
    return predict_paths(
        cascade_of(), [scans], out, RunOptions(report=False, overlays=False, secondary_capture=True, **options)
    )


def captures(out):
    files = (path for path in (out / "secondary_captures").rglob("*.dcm") if path.is_file())
    return [pydicom.dcmread(path) for path in sorted(files)]


def test_each_slice_of_the_finding_is_captured_and_no_other(scans, out):
    """Slice 9 shows a stray component, which the finding rejects and the mask does not hold."""
    paths = series(scans / "series", head(3, 4, 5, 9), PixelSpacing=SPACING)
    assert predict(scans, out).exit_code == 0
    rows = rows_of(out)
    assert [row["index"] for row in rows if row["status"] == "tumor"] == [3, 4, 5, 9]
    assert [row["index"] for row in rows if row["secondary_capture"]] == [3, 4, 5]
    sources = {pydicom.dcmread(path).SOPInstanceUID: path for path in paths}
    for row in rows[3:6]:
        capture = pydicom.dcmread(out / row["secondary_capture"])
        (reference,) = capture.SourceImageSequence
        assert sources[reference.ReferencedSOPInstanceUID] == scans / row["file"]
        assert capture.StudyInstanceUID == "1.2.3.1"
        assert capture.InstanceNumber == row["index"] + 1
    assert len(captures(out)) == 3
    assert len({capture.SeriesInstanceUID for capture in captures(out)} - {"1.2.3.2"}) == 1


def test_a_viewer_finds_a_color_image_with_an_outline_and_the_note_on_research(scans, out):
    sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[dev]'")
    write(scans / "a.dcm", image(head(0, count=1)[0], PixelSpacing=SPACING, ImageOrientationPatient=list(AXIAL)))
    predict(scans, out)
    (row,), (capture,) = rows_of(out), captures(out)
    assert row["secondary_capture"] == "secondary_captures/a.dcm"
    assert (capture.SOPClassUID.name, capture.Modality) == ("Secondary Capture Image Storage", "OT")
    assert "research" in capture.SeriesDescription
    assert "research" in capture.DerivationDescription
    assert list(capture.PatientOrientation) == ["L", "P"]
    assert list(capture.PixelSpacing) == SPACING
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(out / row["secondary_capture"])))[0]
    assert pixels.shape[1:] == (capture.Columns, 3)
    assert capture.Rows > 64  # the caption lies below the slice
    picture, glioma = pixels[:64, :64], CLASS_COLORS["glioma"]
    outline = (picture == glioma).all(axis=-1)
    assert outline[20, 21:29].all()
    assert not outline[22:28, 22:28].any()
    assert (picture[~outline].std(axis=-1) == 0).all()  # the rest is gray
    assert np.array_equal(pixels, capture.pixel_array)


def test_the_picture_of_a_capture_is_that_of_the_overlay():
    slice_ = Slice(head(0, count=1)[0].astype(np.float32))
    prediction = Prediction(slice_.pixels > 200, probabilities={"glioma": 0.9, "meningioma": 0.1})
    png = Image.open(io.BytesIO(overlay_png(slice_, prediction)))
    assert np.array_equal(np.asarray(png.convert("RGB")), overlay_rgb(slice_, prediction))


def test_a_capture_of_a_frame_names_the_frame(scans, out):
    order = (3, 0, 5, 1, 4, 2)
    write(scans / "frames.dcm", multi_frame(head(2, 3, count=6), order))
    predict(scans, out)
    for row in rows_of(out):
        assert (row["secondary_capture"] is not None) == (row["index"] in (2, 3))
    frames = [capture.SourceImageSequence[0].ReferencedFrameNumber for capture in captures(out)]
    assert frames == [order.index(2) + 1, order.index(3) + 1]


def test_the_patient_is_named_only_on_request(scans, out, tmp_path):
    write(scans / "a.dcm", image(head(0, count=1)[0], PixelSpacing=SPACING))
    predict(scans, out)
    (capture,) = captures(out)
    assert PLANTED not in str(capture)
    assert capture.PatientID in (None, "")
    predict(scans, tmp_path / "kept", keep_identifiers=True)
    (capture,) = captures(tmp_path / "kept")
    for keyword in ("PatientName", "PatientID", "StudyDate", "AccessionNumber"):
        assert str(capture[keyword].value) == TEXTS[keyword]
    assert "PLANTED HOSPITAL" not in str(capture)


@pytest.mark.parametrize("value", ["YES", "NO", None])
def test_burned_in_text_of_the_source_is_in_the_capture_too(scans, out, value):
    """The outline and the caption name nobody, so the capture says what its source says."""
    write(scans / "a.dcm", image(head(0, count=1)[0], PixelSpacing=SPACING, BurnedInAnnotation=value))
    predict(scans, out)
    assert captures(out)[0].get("BurnedInAnnotation") == value


def test_without_the_uid_of_the_study_there_is_a_note_and_no_capture(scans, out):
    write(scans / "a.dcm", image(head(0, count=1)[0], PixelSpacing=SPACING, StudyInstanceUID=None))
    predict(scans, out)
    (row,) = rows_of(out)
    assert (row["status"], row["secondary_capture"]) == ("tumor", None)
    assert "no StudyInstanceUID: it has no secondary capture" in row["notes"]
    assert not (out / "secondary_captures").exists()


def test_a_slice_of_unknown_orientation_is_captured_as_it_is_stored(scans, out):
    nowhere = dict.fromkeys(("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"))
    write(scans / "a.dcm", image(head(0, count=1)[0], **nowhere))
    predict(scans, out)
    (capture,) = captures(out)
    assert not capture.PatientOrientation
    assert "PixelSpacing" not in capture


def test_other_formats_have_no_capture_and_captures_are_never_input(scans, out):
    Image.fromarray(head(0, count=1)[0].astype(np.uint8)).save(scans / "a.png")
    write(scans / "b.dcm", image(head(0, count=1)[0], PixelSpacing=SPACING))
    predict(scans, out)
    assert [bool(row["secondary_capture"]) for row in rows_of(out)] == [False, True]
    second = predict_paths(cascade_of(), [scans.parent], scans.parent / "second")
    assert [row.name for row in second.rows] == ["scans/a.png", "scans/b.dcm"]


def test_the_journal_names_maps_and_captures_before_they_are_written(scans, out):
    """A run that was killed could not remove them otherwise."""
    series(scans / "series", head(3, 4, 5), PixelSpacing=SPACING)
    predict(scans, out, probabilities=True)
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    announced = {path for line in lines for paths in line.get("begun", {}).values() for path in paths}
    (entry,) = [line for line in lines if "rows" in line]
    assert entry["files"].keys() <= announced
    assert {path.partition("/")[0] for path in entry["files"]} == {"masks", "probabilities", "secondary_captures"}


def test_resuming_computes_an_input_again_whose_capture_was_removed(scans, out):
    for name, uid in (("a.dcm", "1.2.1"), ("b.dcm", "1.2.2")):
        write(scans / name, image(head(0, count=1)[0], PixelSpacing=SPACING, SOPInstanceUID=uid, SeriesInstanceUID=uid))
    predict(scans, out)
    (out / "secondary_captures/a.dcm").unlink()
    assert predict(scans, out, resume=True).resumed_rows == 1
    assert len(captures(out)) == 2
