"""Files that are not DICOM are not taken for it. That DICOM is recognized, tests/io/dicom/test_recognition.py shows."""

from __future__ import annotations

import io

import nibabel
import numpy as np
import pytest
from PIL import Image

from cascade.discovery.dicom_prefix import PREFIX_BYTES, first_bytes, has_dicom_prefix


def other_files():
    """Yield the beginnings of files that are not DICOM."""
    for picture_format in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "ICO", "TGA", "GIF"):
        content = io.BytesIO()
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(content, picture_format)
        yield picture_format, content.getvalue()
    yield "NIfTI", nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes()
    yield "text", b"patient,age\n" * 100
    yield "UTF-16", "patient".encode("utf-16") * 100
    yield "zeros", bytes(1000)
    yield "eights", b"\x08\0" * 500
    yield "short integers", np.arange(8, 508, dtype="<u2").tobytes()
    yield "empty", b""
    yield "short", b"\x08\0"


@pytest.mark.parametrize(("name", "content"), list(other_files()))
def test_other_files_are_not_taken_for_dicom(name, content):
    assert not has_dicom_prefix(content[:PREFIX_BYTES])


def test_random_bytes_after_a_group_number_are_not_taken_for_dicom():
    random = np.random.default_rng(0)
    starts = [b"\x08\0" + random.bytes(PREFIX_BYTES) for _ in range(10_000)]
    assert not any(has_dicom_prefix(start[:PREFIX_BYTES]) for start in starts)


def test_only_the_beginning_of_an_unknown_file_is_read(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(10_000))
    assert len(first_bytes(tmp_path / "a.bin")) == PREFIX_BYTES <= 256
