"""Read the image size from the header of a JPEG, JPEG-LS or JPEG 2000 stream, before a decoder allocates memory."""

import struct

J2K_START = b"\xff\x4f\xff\x51"
"""The markers SOC and SIZ, with which a JPEG 2000 codestream begins (ISO/IEC 15444-1, A.3)."""

JP2_SIGNATURES = (b"\x00\x00\x00\x0cjP  ", b"\x0d\x0a\x87\x0a")
"""First bytes of the JP2 file format, which wraps a codestream in boxes."""

JPEG_START = b"\xff\xd8"
"""The marker SOI, with which JPEG and JPEG-LS streams begin (ITU-T T.81, B.1)."""

FILL, STUFFED, TEM, START_OF_SCAN, JPEG_LS_FRAME = 0xFF, 0x00, 0x01, 0xDA, 0xF7
FRAMES = {*range(0xC0, 0xD0), JPEG_LS_FRAME} - {0xC4, 0xC8, 0xCC}
"""The second bytes of the markers that start a frame header, SOF0 to SOF15 and that of JPEG-LS."""

STANDALONE = {STUFFED, TEM, *range(0xD0, 0xD9)}
"""The second bytes of markers without a segment."""


def encoded_size(encoded: bytes) -> tuple[int, int] | None:
    """Return the size that a compressed frame declares.

    Decoders allocate memory of this size before anything compares it with the DICOM header, so that a small file could
    fill the memory.

    Args:
        encoded: The bytes of one frame.

    Returns:
        Rows and columns; None if the encoding is another one, or the header is incomplete.
    """
    if encoded.startswith((J2K_START, *JP2_SIGNATURES)):
        return _jpeg2000_size(encoded)
    if encoded.startswith(JPEG_START):
        return _jpeg_size(encoded)
    return None


def _jpeg2000_size(encoded: bytes) -> tuple[int, int] | None:
    start = encoded.find(J2K_START)
    if start < 0 or start + 24 > len(encoded):
        return None
    right, bottom, left, top = struct.unpack_from(">4I", encoded, start + 8)  # ISO/IEC 15444-1, A.5.1
    return bottom - top, right - left


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    position = len(JPEG_START)
    while 0 <= (position := encoded.find(b"\xff", position)) <= len(encoded) - 9:  # decoders skip bytes before a marker
        marker = encoded[position + 1]
        if marker in FRAMES:  # marker, length, precision, rows, columns
            rows, columns = struct.unpack_from(">HH", encoded, position + 5)
            return rows, columns
        if marker == START_OF_SCAN:
            return None
        if marker == FILL:
            position += 1
        elif marker in STANDALONE:
            position += 2
        else:
            position += 2 + int(struct.unpack_from(">H", encoded, position + 2)[0])
    return None
