"""Files that are not MRI are refused; impossible values of a header are refused or noted."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pydicom.pixels.decoders
import pytest
from dicom_files import (
    HEAD,
    PLANTED,
    SECONDARY_CAPTURE,
    SPACING,
    TEXTS,
    image,
    opened,
    refusal,
    series,
    write,
)
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cascade.io.dicom.series import open_dicom


def test_files_that_are_not_mri_are_one_problem_per_folder_and_modality(tmp_path):
    mri = series(tmp_path / "mri")
    tomography = series(
        tmp_path / "ct", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", SeriesInstanceUID="1.5"
    )
    sources, problems, _ = open_dicom([*mri, *tomography], tmp_path)
    assert [source.name for source in sources] == ["mri/series-003"]
    (error,) = problems.values()
    assert error.problem.startswith(f"{min(tomography)}: its modality is CT, not MR (and 5 similar files")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Modality": PLANTED}, "its modality is unknown, not MR"),
        ({"Modality": "SEG"}, "its modality is SEG, not MR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.2"}, "not that of an MRI image"),  # spectroscopy
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "mosaic"),
        ({"Modality": None, "SOPClassUID": SECONDARY_CAPTURE}, "gives no modality"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "contains color"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "contains color"),
        ({"Rows": 65535, "Columns": 65535, "PixelData": b""}, "too large for an MRI volume"),
        ({"Rows": 65535, "Columns": 64, "PixelData": b""}, "shorter than its header declares"),
        ({"Rows": None}, "does not describe its pixels"),
        ({"PhotometricInterpretation": ""}, "does not describe its pixels"),
        ({"SOPClassUID": None}, "no SOP class"),
        ({"Columns": 0}, "does not describe its pixels"),
        ({"Rows": 8}, "too small"),
        ({"BitsAllocated": 1}, "does not describe its pixels"),
        ({"NumberOfFrames": 1_000_000}, "too large for an MRI volume"),
        ({"NumberOfFrames": 2}, "cannot be read"),
        ({"NumberOfFrames": 2, "SOPClassUID": SECONDARY_CAPTURE}, "contains 2 frames"),
        ({"NumberOfFrames": 2, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"NumberOfFrames": 2, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "contains color"),
        ({"NumberOfFrames": -1}, "does not describe its pixels"),
        ({"PixelData": b"\0" * 400}, "cannot be read"),
        ({"PixelData": None}, "cannot be read"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_an_invalid_header_is_refused_at_once_without_patient_data(tmp_path, changes, problem):
    dataset = image(HEAD[4], **changes)
    path = write(tmp_path / "a.dcm", dataset)
    began = time.monotonic()
    assert problem in refusal(path)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelSpacing": [0, 1]},
        {"PixelSpacing": [-1, 1]},
        {"PixelSpacing": [1]},
        {"PixelSpacing": [1000, 1000]},  # a slice of 20 m
        {"PixelSpacing": "wide"},
        {"ImagePositionPatient": ["nan", 0, 0]},
        {"ImagePositionPatient": ["1e300", 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [0] * 6},
        {"SliceThickness": -1},
        {"SliceThickness": "thick"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")  # pydicom warns of such values when the test writes them
def test_an_impossible_value_counts_as_missing_with_a_note_that_names_it(tmp_path, changes):
    """The rest of the header is enough to read the image, though not to write a DICOM segmentation."""
    ((keyword, value),) = changes.items()
    dataset = image(HEAD[4], **{keyword: None})
    dataset.add(_raw_element(keyword, value))
    source = opened([write(tmp_path / "a.dcm", dataset)], tmp_path)
    assert sum(f"invalid {keyword}" in note for note in source.notes) == 1
    assert source.mask_suffix == ".png"
    assert any(f"gives no {keyword}" in note for note in source.notes)
    slice_ = source.read(0)
    assert slice_.pixels.tolist() == HEAD[4].tolist()
    assert slice_.spacing_mm == (None if keyword == "PixelSpacing" else SPACING)


def _raw_element(keyword, value):
    """Make an element as a file contains it, without the checks of pydicom."""
    text = "\\".join(map(str, value)) if isinstance(value, list) else str(value)
    content = text.encode() + b" " * (len(text) % 2)
    return RawDataElement(Tag(keyword), "DS", len(content), content, 0, False, True)


@pytest.mark.parametrize(
    "changes", [{"RescaleSlope": 0, "RescaleIntercept": 7}, {"EchoTime": "short"}, {"InstanceNumber": "one"}], ids=str
)
@pytest.mark.filterwarnings("ignore")
def test_an_impossible_value_that_no_mask_needs_leaves_the_segmentation(tmp_path, changes):
    keyword, value = next(iter(changes.items()))
    dataset = image(HEAD[4], **{**changes, keyword: None})
    dataset.add(_raw_element(keyword, value))
    source = opened([write(tmp_path / "a.dcm", dataset)], tmp_path)
    assert source.read(0).pixels.tolist() == HEAD[4].tolist()
    assert source.mask_suffix == ".seg.dcm"
    assert sum(f"invalid {keyword}" in note for note in source.notes) == 1


def test_a_deflated_file_is_refused_before_it_is_decompressed(tmp_path):
    dataset = image(np.zeros((4000, 4000), np.uint16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = write(tmp_path / "a.dcm", dataset)
    assert path.stat().st_size < 100_000
    assert "compressed as a whole" in refusal(path)


def test_a_renamed_dicomdir_is_refused_as_an_index(tmp_path):
    """It was called damaged."""
    dataset = image(HEAD[4])
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    del dataset.SOPClassUID
    pydicom.dcmwrite(tmp_path / "index.dcm", dataset, enforce_file_format=True, overwrite=True)
    assert "DICOMDIR" in refusal(tmp_path / "index.dcm")


def test_a_file_that_is_not_dicom_is_refused_by_name(tmp_path):
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("no image" * 100)
    (tmp_path / "folder.dcm").mkdir()
    for name in ("empty.dcm", "text.dcm", "folder.dcm", "missing.dcm"):
        assert refusal(tmp_path / name)


def test_nothing_is_printed_about_the_faults_of_a_header(tmp_path):
    """The warnings of pydicom quote them."""
    path = write(tmp_path / "a.dcm", image(HEAD[4], PixelData=HEAD[4].tobytes() + b"more"))
    content = path.read_bytes().replace(b"19410203", b"PLANTED?").replace(b"1.2.3.3\0", b"PLANTED\0")
    path.write_bytes(content.replace(TEXTS["StudyTime"].encode(), b"PLANTE"))
    code = (
        "import sys, numpy, pathlib; from cascade.io.dicom.series import open_dicom;"
        "path = pathlib.Path(sys.argv[1]);"
        "(source,), _, _ = open_dicom([path], path.parent, keep_identifiers=True);"
        "source.read(0); source.mask_bytes(numpy.zeros((1, 20, 24), bool)); print(source.mask_suffix)"
    )
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (result.stdout.split(), result.stderr) == ([".png"], "")
