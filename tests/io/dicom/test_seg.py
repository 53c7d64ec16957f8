"""Masks of DICOM images are segmentations that other readers show in the same place, without patient data."""

from __future__ import annotations

import io

import highdicom.seg
import numpy as np
import pydicom
import pytest
from dicom_files import (
    HEAD,
    MARKER,
    PLANTED,
    SECONDARY_CAPTURE,
    TEXTS,
    image,
    multi_frame,
    position,
    series,
    write,
)
from PIL import Image

from cascade.io.dicom.series import open_dicom

sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[dev]'")


def opened(paths, root, **options):
    (source,), problems, _ = open_dicom(paths, root, **options)
    assert problems == {}
    return source


def marked(source):
    """Return masks of the one pixel of value 4000."""
    return np.stack([source.read(index).pixels >= 4000 for index in range(source.count)])


def place(volume, value):
    """Return the position, according to SimpleITK, of the one voxel of this value. Masks have the values 0 and 255."""
    (index,) = np.argwhere(sitk.GetArrayFromImage(volume) == value)
    return np.array(volume.TransformIndexToPhysicalPoint([int(number) for number in index[::-1]]))


def read_series(paths):
    """Read the files with SimpleITK, in the order that it determines itself."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(paths[0].parent)))
    return reader.Execute()


def elements(dataset):
    """Yield all elements at any depth."""
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item)


def test_another_reader_finds_the_tumor_at_its_position_in_the_series(tmp_path):
    paths = series(tmp_path / "scan")
    source = opened(paths, tmp_path)
    (tmp_path / "mask.dcm").write_bytes(source.mask_bytes(marked(source)))
    volume, mask = read_series(paths), sitk.ReadImage(tmp_path / "mask.dcm")
    assert mask.GetSize() == volume.GetSize()
    assert mask.GetSpacing() == pytest.approx(volume.GetSpacing())
    rows_and_columns = np.s_[:, :2]  # frames may follow each other either way, each with its position
    directions = [np.reshape(image.GetDirection(), (3, 3))[rows_and_columns] for image in (mask, volume)]
    assert np.allclose(*directions)
    assert place(mask, 255) == pytest.approx(place(volume, 4000), abs=1e-4)


def test_each_frame_refers_to_its_source_file_of_enhanced_mr(tmp_path):
    paths = [
        write(tmp_path / f"{index}", multi_frame(order=[index], SOPInstanceUID=f"1.2.3.4.{index + 1}"))
        for index in range(len(HEAD))
    ]
    source = opened(paths, tmp_path)
    seg = highdicom.seg.segread(io.BytesIO(source.mask_bytes(marked(source))))
    uids = [f"1.2.3.4.{index + 1}" for index in range(len(HEAD))]
    frames = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.argwhere(frames).tolist() == [list(MARKER)]
    references = [element.value for element in elements(seg) if element.keyword == "ReferencedSOPClassUID"]
    assert set(references) == {multi_frame().SOPClassUID}
    assert len(references) >= len(HEAD)


def test_each_frame_refers_to_its_source_file(tmp_path):
    source = opened(series(tmp_path / "scan"), tmp_path)
    seg = highdicom.seg.segread(io.BytesIO(source.mask_bytes(marked(source))))
    uids = [f"1.2.3.4.{index + 1}" for index in range(len(HEAD))]
    frames = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.argwhere(frames).tolist() == [list(MARKER)]
    assert (seg.FrameOfReferenceUID, seg.StudyInstanceUID) == ("1.2.3.3", "1.2.3.1")
    assert seg.SeriesInstanceUID != "1.2.3.2"


def test_its_segment_is_a_neoplasm_found_by_an_algorithm(tmp_path):
    source = opened(series(tmp_path / "scan"), tmp_path)
    seg = highdicom.seg.segread(io.BytesIO(source.mask_bytes(marked(source))))
    (segment,) = seg.SegmentSequence
    assert (
        segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    )  # morphologically abnormal structure
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"  # neoplasm
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentAlgorithmName == "cascade"
    assert seg.SegmentationType == "BINARY"


def test_frames_of_a_multi_frame_file_keep_their_stored_order(tmp_path):
    path = write(tmp_path / "a.dcm", multi_frame())
    source = opened([path], tmp_path)
    content = source.mask_bytes(marked(source))
    (tmp_path / "mask.dcm").write_bytes(content)
    seg = highdicom.seg.segread(io.BytesIO(content))
    frames = seg.get_pixels_by_source_frame("1.2.3.4.1", range(1, 7), combine_segments=True)
    assert np.argwhere(frames).tolist() == [[4, *MARKER[1:]]]  # slice 4 is stored as the fifth frame
    sitk_mask = place(sitk.ReadImage(tmp_path / "mask.dcm"), 255)
    assert sitk_mask == pytest.approx(place(read_series(series(tmp_path / "scan")), 4000), abs=1e-4)


def test_a_single_image_has_a_segmentation_too(tmp_path):
    path = write(tmp_path / "a.dcm", image(HEAD[4]))
    source = opened([path], tmp_path)
    (tmp_path / "mask.dcm").write_bytes(source.mask_bytes(marked(source)))
    assert place(sitk.ReadImage(tmp_path / "mask.dcm"), 255) == pytest.approx(place(sitk.ReadImage(path), 4000))


def test_a_mask_without_tumor_is_valid_and_has_every_slice(tmp_path):
    source = opened(series(tmp_path / "scan"), tmp_path)
    (tmp_path / "mask.dcm").write_bytes(source.mask_bytes(np.zeros((6, 20, 24), bool)))
    assert sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "mask.dcm")).shape == (6, 20, 24)
    assert highdicom.seg.segread(tmp_path / "mask.dcm").NumberOfFrames == 6


@pytest.mark.parametrize("kind", ["series", "multi-frame"])
def test_it_contains_nothing_of_patient_and_study_but_uids(tmp_path, kind):
    paths = series(tmp_path / "scan") if kind == "series" else [write(tmp_path / "a.dcm", multi_frame())]
    source = opened(paths, tmp_path)
    content = source.mask_bytes(marked(source))
    assert PLANTED.encode() in paths[0].read_bytes()
    for text in {*TEXTS.values(), PLANTED} - {"F"}:
        assert text.encode() not in content
    seg = pydicom.dcmread(io.BytesIO(content))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID"):
        assert not seg[keyword].value
    days = {element.value[:8] for element in elements(seg) if element.VR in ("DA", "DT") and element.value}
    assert days == {seg.ContentDate}  # when the mask was made


def test_identifiers_are_copied_only_on_request(tmp_path):
    paths = series(tmp_path / "scan", PatientName="PLANTED^JÖRG", SpecificCharacterSet="ISO_IR 100")
    source = opened(paths, tmp_path, keep_identifiers=True)
    seg = pydicom.dcmread(io.BytesIO(source.mask_bytes(marked(source))))
    assert seg.PatientName == "PLANTED^JÖRG"
    for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        assert seg[keyword].value == TEXTS[keyword]
    assert seg.AccessionNumber == TEXTS["AccessionNumber"]
    assert seg.ReferringPhysicianName == TEXTS["ReferringPhysicianName"]
    assert "InstitutionName" not in seg
    assert not any("PLANTED" in note for note in source.notes)


@pytest.mark.filterwarnings("ignore")  # pydicom warns of such values when the test writes them
def test_identifiers_out_of_order_are_kept_as_they_are(tmp_path):
    odd = {"PatientSex": "UNKNOWN", "PatientBirthDate": "someday", "PatientID": ["1", "2"], "StudyTime": "noon"}
    source = opened([write(tmp_path / "a.dcm", image(HEAD[4], **odd))], tmp_path, keep_identifiers=True)
    seg = pydicom.dcmread(io.BytesIO(source.mask_bytes(marked(source))))
    assert {keyword: seg[keyword].value for keyword in odd} == odd


@pytest.mark.parametrize(
    "changes",
    [
        {"SliceThickness": None},
        {"SOPClassUID": SECONDARY_CAPTURE},
        {"LossyImageCompression": "01"},
        {"SOPInstanceUID": "1.2"},
    ],
    ids=str,
)
def test_incomplete_headers_are_sufficient_for_a_segmentation(tmp_path, changes):
    paths = series(tmp_path / "scan", **changes)
    source = opened(paths[:2] + paths[3:], tmp_path)  # and one slice is missing
    (tmp_path / "mask.dcm").write_bytes(source.mask_bytes(marked(source)))
    seg = highdicom.seg.segread(tmp_path / "mask.dcm")
    places = [group.PlanePositionSequence[0].ImagePositionPatient for group in seg.PerFrameFunctionalGroupsSequence]
    tumor = [place for place, frame in zip(places, seg.pixel_array, strict=True) if frame.any()]
    assert tumor == [position(4)]


def test_a_missing_thickness_is_the_median_distance_between_slices(tmp_path):
    """With one missing slice, the distances are 3, 3, 6 and 3 mm."""
    paths = series(tmp_path / "scan", SliceThickness=None)
    source = opened(paths[:2] + paths[3:], tmp_path)
    seg = highdicom.seg.segread(io.BytesIO(source.mask_bytes(marked(source))))
    (measures,) = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == 3


def spacing_of(source):
    seg = highdicom.seg.segread(io.BytesIO(source.mask_bytes(np.ones((source.count, 20, 24), bool))))
    (measures,) = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    return measures.get("SpacingBetweenSlices")


def test_the_spacing_is_that_of_the_grid_even_if_a_slice_is_missing(tmp_path):
    """Without it, viewers take the thickness for the distance, and put a volume of such a mask together wrongly."""
    paths = series(tmp_path / "scan", SliceThickness=2)
    assert spacing_of(opened(paths, tmp_path)) == 3
    assert spacing_of(opened(paths[:2] + paths[3:], tmp_path)) == 3


def test_slices_on_no_grid_have_no_spacing(tmp_path):
    paths = [
        write(
            tmp_path / f"{number}",
            image(HEAD[number], SOPInstanceUID=f"1.2.3.4.{number}", ImagePositionPatient=position(place)),
        )
        for number, place in enumerate((0, 1, 2.5))
    ]
    assert spacing_of(opened(paths, tmp_path)) is None


def test_the_spacing_of_a_single_slice_is_its_thickness(tmp_path):
    """It was 1 mm, whatever the thickness: a tumor of this slice had a wrong volume in other programs."""
    assert spacing_of(opened([write(tmp_path / "a.dcm", image(HEAD[4], SliceThickness=5))], tmp_path)) == 5


@pytest.mark.parametrize("missing", ["FrameOfReferenceUID", "ImagePositionPatient", "SliceThickness", "SOPInstanceUID"])
def test_an_image_without_geometry_has_a_png_mask_and_a_note(tmp_path, missing):
    dataset = image(HEAD[4], **{missing: None})
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2"
    source = opened([write(tmp_path / "a.dcm", dataset)], tmp_path)
    assert source.mask_suffix == ".png"
    assert any(f"gives no {missing}: its mask is a PNG" in note for note in source.notes)
    mask = np.asarray(Image.open(io.BytesIO(source.mask_bytes(marked(source)))))
    assert np.argwhere(mask).tolist() == [list(MARKER[1:])]


@pytest.mark.filterwarnings("ignore")  # pydicom warns of it when the test writes it
def test_a_name_instead_of_a_uid_is_not_copied(tmp_path):
    source = opened([write(tmp_path / "a.dcm", image(HEAD[4], FrameOfReferenceUID="PLANTED"))], tmp_path)
    assert source.mask_suffix == ".png"
    assert PLANTED.encode() not in source.mask_bytes(marked(source))


@pytest.mark.parametrize("lossy", [None, "00", "01"])
def test_lossy_compression_of_the_image_is_stated(tmp_path, lossy):
    source = opened([write(tmp_path / "a.dcm", image(HEAD[4], LossyImageCompression=lossy))], tmp_path)
    seg = pydicom.dcmread(io.BytesIO(source.mask_bytes(np.ones((1, 20, 24), bool))))
    assert seg.LossyImageCompression == (lossy or "00")
