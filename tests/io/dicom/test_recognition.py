"""DICOM is recognized by its content, whatever the suffix, with or without preamble."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from dicom_files import HEAD, image, write
from input_files import pack
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices
from cascade.io.open import open_sources


def encoded(*, meta=True, implicit=False, big_endian=False):
    """Encode an image without preamble, and perhaps without file meta information."""
    dataset, content = image(HEAD[4]), io.BytesIO()
    if big_endian:
        dataset.PixelData = HEAD[4].astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    if not meta:
        dataset.file_meta, dataset.preamble = FileMetaDataset(), None
        pydicom.dcmwrite(content, dataset, implicit_vr=implicit, little_endian=not big_endian)
        return content.getvalue()
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    return content.getvalue()[132:]


BARE = {
    "meta first": encoded(),
    "meta first, big-endian": encoded(big_endian=True),
    "explicit": encoded(meta=False),
    "implicit": encoded(meta=False, implicit=True),
    "big-endian": encoded(meta=False, big_endian=True),
}


def opened_names(folder, **options):
    opened = open_sources(find_slices([folder], formats=FORMATS, **options))
    assert opened.problems == {}
    for source in opened.sources:
        assert source.read(0).pixels.tolist() == HEAD[4].tolist()
    return [source.name for source in opened.sources]


def test_any_suffix_is_read(tmp_path):
    """Only .dcm, .ima, no suffix and digits were read; the others were no slices, with exit code 0."""
    names = ["1.2.3.4f", "a.MR", "b.dicom", "c.img", "d.raw", "e.png", "f.nii", "g.mat", "h.jpg"]
    for number, name in enumerate(names):
        write(tmp_path / name, image(HEAD[4], SeriesInstanceUID=f"1.2.{number}"))
    assert opened_names(tmp_path) == names


@pytest.mark.parametrize("kind", BARE)
@pytest.mark.parametrize("name", ["bare", "a.dcm", "a.img"])
def test_files_without_preamble_are_read(tmp_path, kind, name):
    (tmp_path / name).write_bytes(BARE[kind])
    assert opened_names(tmp_path) == [name]


@pytest.mark.parametrize("kind", ["meta first", "implicit"])
def test_files_without_preamble_are_read_from_a_zip(tmp_path, kind):
    pack(tmp_path / "study.zip", ("a.img", BARE[kind]), ("notes.txt", b"text"))
    inputs = find_slices([tmp_path / "study.zip"], formats=FORMATS, unpack_into=tmp_path / "unpacked")
    opened = open_sources(inputs)
    assert [source.name for source in opened.sources] == ["study.zip/a.img"]
    assert opened.problems == {}


def test_a_deflated_file_without_preamble_is_refused_before_it_is_decompressed(tmp_path):
    dataset, content = image(np.zeros((4000, 4000), np.uint16)), io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    (tmp_path / "a.dcm").write_bytes(content.getvalue()[132:])
    (error,) = open_sources(find_slices([tmp_path], formats=FORMATS)).problems.values()
    assert "compressed as a whole" in error.problem
