"""The size of a compressed frame is read from its header, without decoding it."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from cascade.io.dicom.jpeg import encoded_size

PIXELS = np.add.outer(np.arange(20), np.arange(24)).astype(np.uint8)  # 20 rows, 24 columns


def encode(form, **options):
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, form, **options)
    return content.getvalue()


def frame_header(marker, rows, columns):
    """A JPEG frame header: marker, length, precision, rows, columns, components."""
    return struct.pack(">BBHBHHB3x", 0xFF, marker, 11, 8, rows, columns, 1)


@pytest.mark.parametrize(
    "encoded",
    [
        encode("JPEG"),
        encode("JPEG", progressive=True),
        encode("JPEG2000", no_jp2=True),
        encode("JPEG2000", no_jp2=False),
        b"\xff\xd8" + frame_header(0xF7, 20, 24),  # JPEG-LS
        b"\xff\xd8" + frame_header(0xC3, 20, 24),  # lossless
    ],
    ids=["jpeg", "progressive", "jpeg 2000", "jp2", "jpeg-ls", "lossless"],
)
def test_each_jpeg_format_gives_rows_and_columns(encoded):
    assert encoded_size(encoded) == (20, 24)


def test_the_offset_of_a_jpeg_2000_image_does_not_count():
    encoded = bytearray(encode("JPEG2000", no_jp2=True))
    struct.pack_into(">4I", encoded, 8, 124, 220, 100, 200)  # right, bottom, left, top
    assert encoded_size(bytes(encoded)) == (20, 24)


@pytest.mark.parametrize(
    "before",
    [
        b"\xff\xff\xff",  # fill bytes
        b"\xff\x01",  # a marker without a segment
        b"\x00\x12",  # bytes that decoders skip
        b"\xff\x00",
        b"\xff\xfe\x00\x04\xff\xc0",  # a comment that contains a marker
        b"\xff\xc4\x00\x04\x00\x00",  # Huffman tables: in the range of the frame markers
    ],
    ids=["fill", "standalone", "garbage", "stuffed", "comment", "tables"],
)
def test_the_frame_header_of_a_jpeg_is_found_behind_whatever_decoders_skip(before):
    """Otherwise such bytes would hide the size of an image that fills the memory."""
    assert encoded_size(b"\xff\xd8" + before + frame_header(0xC0, 60_000, 50_000)) == (60_000, 50_000)


def test_a_long_box_before_the_codestream_does_not_hide_the_size():
    whole = encode("JPEG2000", no_jp2=False)
    box = struct.pack(">I4s", 8 + 10_000, b"free") + bytes(10_000)
    assert encoded_size(whole[:12] + box + whole[12:]) == (20, 24)


@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
def test_a_truncated_header_gives_no_size_and_no_error(form):
    whole = encode(form, **({"no_jp2": True} if form == "JPEG2000" else {}))
    sizes = [encoded_size(whole[:length]) for length in range(len(whole))]
    assert sizes[0] is None
    assert set(sizes) <= {None, (20, 24)}


def test_the_compressed_data_of_a_jpeg_is_not_searched():
    assert encoded_size(b"\xff\xd8" + b"\xff\xda\x00\x08" + bytes(6) + frame_header(0xC0, 1, 1)) is None


@pytest.mark.parametrize("encoded", [b"", b"\xff", struct.pack("<16I", 2, 64, 80, *[0] * 13) + b"\xff\x4f\xff\x51" * 9])
def test_other_encodings_give_no_size(encoded):
    """Run lengths may contain the bytes of a JPEG 2000 header."""
    assert encoded_size(encoded) is None
