"""Recognize DICOM files by their first bytes."""

import struct
from pathlib import Path

PREFIX_BYTES = 256
"""Bytes of a file that tell whether it is DICOM."""

LONG_VRS = (b"OB", b"OW", b"SQ", b"UN", b"UT")
"""Value representations whose length has four bytes, of the elements at the beginning of a file."""

MAX_SECOND_GROUP = 0x28
"""Highest group of the second element in a file: that of the image, if the first groups have one element in all."""


def has_dicom_prefix(start: bytes) -> bool:
    """Return True if a file begins like DICOM. Takes its first `PREFIX_BYTES` bytes."""
    return start[128:132] == b"DICM" or _begins_with_elements(start)  # DICOM PS3.10, section 7.1


def first_bytes(path: Path) -> bytes:
    """Return the first `PREFIX_BYTES` bytes of a file; none if it is no regular file. Raises OSError."""
    if not path.is_file():  # opening a pipe would block
        return b""
    with path.open("rb") as file:
        return file.read(PREFIX_BYTES)


def may_contain_dicom(path: Path) -> bool:
    """Return True if the content of a file is DICOM, whatever its name, or cannot be read: its reader says why."""
    try:
        return has_dicom_prefix(first_bytes(path))
    except OSError:
        return True


def _begins_with_elements(start: bytes) -> bool:
    """Return True for two elements of a DICOM header in ascending order, as in old files without preamble.

    The first is of group 2 (file meta information) or 8 (identification). DICOM PS3.5, section 7.1.
    """
    return any(
        (first := _element(start, 0, order)) and first[0] in (2, 8) and _follows(start, first, order) for order in "<>"
    )


def _follows(start: bytes, first: tuple[int, int, int], order: str) -> bool:
    group, element, end = first
    second = _element(start, end, order)
    return second is not None and (group, element) < second[:2] and second[0] <= MAX_SECOND_GROUP


def _element(start: bytes, at: int, order: str) -> tuple[int, int, int] | None:
    """Return the group and element number of the element at an offset, and where it ends; None if it is invalid."""
    if at + 12 > len(start):
        return None
    group, element, vr, short = struct.unpack_from(f"{order}HH2sH", start, at)
    if not (vr.isalpha() and vr.isupper()):  # implicit VR: a length of four bytes, always little-endian
        if order == ">":
            return None
        header, length = 8, struct.unpack_from(f"{order}I", start, at + 4)[0]
    elif vr in LONG_VRS:
        header, length = 12, struct.unpack_from(f"{order}I", start, at + 8)[0]
    else:
        header, length = 8, short
    return None if length % 2 else (group, element, at + header + length)
