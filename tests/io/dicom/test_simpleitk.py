"""The pixels of pydicom's own test files are those that SimpleITK reads, apart from known differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from cascade.errors import CascadeError
from cascade.io.dicom import header
from cascade.io.dicom.pixels import decode_frame, read_pixels

sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[dev]'")

FOLDER = Path(pydicom.__file__).parent / "data"

DIFFERENT = {
    "693_J2KI.dcm": "SimpleITK keeps padding",
    "JPGExtended.dcm": "decoders of lossy JPEG may round differently",
}
"""Files with different pixels, and why; see the section on DICOM in docs/data.md."""

REFUSED = {
    "JPEG-lossy.dcm": "compressed pixels cannot be read",
    "image_dfl.dcm": "compressed as a whole",
    "liver_1frame.dcm": "1 bit",
    "liver_expb_1frame.dcm": "1 bit",
    "rtdose.dcm": "15 frames",
    "rtdose_expb.dcm": "15 frames",
    "rtdose_rle.dcm": "15 frames",
}
"""Files that only SimpleITK reads, and part of the reason that is given."""


def gray_files():
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix in ("", ".dcm") and path.name != "DICOMDIR":
            dataset = pydicom.dcmread(path, force=True, specific_tags=["PhotometricInterpretation"])
            if dataset.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2"):
                yield path


@pytest.mark.filterwarnings("ignore")
def test_pixels_are_those_of_another_reader(monkeypatch):
    """All modalities count, since few of the files are MRI."""
    monkeypatch.setattr(header, "_check_kind", lambda path, dataset: None)
    monkeypatch.setattr(header, "check_volume_size", lambda *size: None)
    equal, refused = 0, {}
    for path in gray_files():
        try:
            theirs = sitk.GetArrayFromImage(sitk.ReadImage(path)).astype(float)
        except RuntimeError:
            continue
        try:
            own = header.read_header(path)
            dataset = read_pixels(own)
            ours = np.stack([decode_frame(own, index, dataset) for index in range(len(own.frames))])
        except CascadeError as error:
            refused[path.name] = error.problem
            continue
        is_equal = np.allclose(ours, theirs.reshape(ours.shape), rtol=1e-6, atol=1e-3)
        assert is_equal == (path.name not in DIFFERENT), path.name
        equal += is_equal
    assert equal >= 50
    assert refused.keys() == REFUSED.keys()
    assert all(reason in refused[name] for name, reason in REFUSED.items())
