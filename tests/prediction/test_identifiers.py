"""Identifiers of patients in input files do not reach the results unless the user asks for it."""

from __future__ import annotations

import gzip
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_files import TEXTS, series
from hostile_files import HEAD, RAMP, dicom, mat, put, whole_file
from hostile_files import out as out
from hostile_files import scans as scans
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from stub_cascade import cascade_of

from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

PLANTED = (b"PLANTED", b"19410203", b"19990203", b"1941:02:03")


def plant(folder):
    """Names, numbers and dates wherever a format has a place for them. What files are called is repeated: it is no lie
    of theirs that results go by it.
    """
    series(folder / "series", PixelSpacing=[0.98, 0.98])
    put(folder / "frames", whole_file("frames.dcm", 1))
    put(folder / "alone", dicom(number=2, **TEXTS))
    image = nibabel.Nifti1Image(HEAD.T.astype(np.int16), np.diag([0.98, 0.98, 5.0, 1.0]))
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[field] = b"PLANTED^JANE"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"PLANTED^JANE 19410203"))
    nibabel.save(image, folder / "head.nii")
    nibabel.save(image, folder / "head.nii.gz")
    text = PngInfo()
    text.add_text("Patient", "PLANTED^JANE")
    text.add_itxt("Born", "19410203", zip=True)
    exif = Image.Exif()
    exif[0x010E], exif[0x0132], exif[0x013B] = "PLANTED", "1941:02:03 00:00:00", "PLANTED^JANE"
    picture = Image.fromarray(RAMP)
    picture.save(folder / "text.png", pnginfo=text, exif=exif)
    picture.save(folder / "exif.jpg", exif=exif, comment="PLANTED")
    picture.save(folder / "exif.webp", exif=exif, xmp=b"PLANTED")
    tags = {"description": "PLANTED", "software": "PLANTED", "datetime": "1941:02:03 00:00:00"}
    tifffile.imwrite(folder / "tags.tif", RAMP, **tags)
    put(folder / "patient.mat", mat(image=RAMP.astype(np.int16), PID="PLANTED-1"))
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        archive.comment = b"PLANTED"
        archive.write(folder / "text.png", "text.png")
        archive.writestr("deep.dcm", dicom(number=3, **TEXTS))
    put(folder / "broken.dcm", dicom(number=4, **TEXTS, Modality="PLANTED", Rows=None))
    put(folder / "broken.png", b"PLANTED^JANE")


def unpacked(content):
    """Return the bytes of a file, and those it decompresses to."""
    yield content
    if content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content)
    if content.startswith(b"\x89PNG"):
        yield repr(Image.open(io.BytesIO(content)).info).encode()


def planted_in(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        for content in unpacked(path.read_bytes())
        if any(text in content for text in PLANTED)
    }


@pytest.mark.slow
def test_no_patient_data_of_the_files_reaches_the_results(scans, out, tmp_path):
    plant(scans)
    assert len(planted_in(scans)) >= 10
    options = RunOptions(probabilities=True, secondary_capture=True)
    run = predict_paths(cascade_of(), [scans], out, options)
    assert {Path(row.name).name for row in run.failed} == {"broken.dcm", "broken.png"}
    assert len(run.rows) > 20
    assert planted_in(out) == set()
    predict_paths(cascade_of(), [scans], tmp_path / "kept", replace(options, keep_identifiers=True))
    kept = planted_in(tmp_path / "kept")
    assert {name.partition("/")[0] for name in kept} == {"masks", "probabilities", "secondary_captures"}
    assert all(name.endswith(".seg.dcm") or name.startswith("secondary_captures/") for name in kept)
    assert str(pydicom.dcmread(tmp_path / "kept" / "masks/alone.seg.dcm").PatientID) == "PLANTED-1"
