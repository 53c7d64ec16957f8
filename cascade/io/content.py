"""Recognize files by their first bytes, since they are often named wrongly."""

import gzip
import zlib
from pathlib import Path

from cascade.discovery.companions import PAIRS, companion_of
from cascade.discovery.dicom_prefix import first_bytes, has_dicom_prefix
from cascade.discovery.filters import Format

PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of PNG, JPEG, and of TIFF and BigTIFF in both byte orders."""

NIFTI_SIZES = (348, 540)
"""First number in a NIfTI file: the length of its header."""


def content_format(path: Path) -> Format | None:
    """Return the format of a file by its content, or None if only the name shows it."""
    if path.suffix.lower() in PAIRS and companion_of(path):
        return "pair"  # the .img holds nothing but voxels, which may begin like any format
    try:
        start = first_bytes(path)
    except OSError:
        return None  # the reader of its format says why it cannot be read
    if has_dicom_prefix(start):  # first of all: any bytes may stand before its prefix, even the first ones of a TIFF
        return "dicom"
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                start = file.read(4)
        except (OSError, EOFError, zlib.error):
            return None
    if start.startswith(PICTURES) or (start[:2] == b"BM" and start[6:10] == bytes(4)) or start[8:12] == b"WEBP":
        return "image"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith((b"NRRD000", b"ObjectType")):
        return "itk"
    is_nifti = any(int.from_bytes(start[:4], order) in NIFTI_SIZES for order in ("little", "big"))
    return "nifti" if is_nifti and path.suffix.lower() not in PAIRS else None
