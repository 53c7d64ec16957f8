"""Encode masks and overlays as PNG."""

import struct

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BITS, GRAY, INDEXED = 8, 0, 3
"""Bit depth and color types, as section 11.2.1 of the PNG specification (W3C) numbers them."""


def encode_png(
    pixels: NDArray[np.uint8], *, level: int, palette: bytes = b"", text: dict[str, str] | None = None
) -> bytes:
    """Encode 8-bit pixels as PNG without filters.

    Pillow tries five filters on each row, which takes longer than compressing a mask; a palette rarely gains from them.

    Args:
        pixels: (H, W), gray values, or indices into the palette.
        level: 0 for no compression, to 9 for the smallest file.
        palette: Red, green and blue of each index.
        text: Keys and values in Latin-1.
    """
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row begins with its filter: 0 leaves it as it is
    rows[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, BITS, INDEXED if palette else GRAY, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header)]
    if palette:
        chunks.append(_chunk(b"PLTE", palette))
    chunks += [_chunk(b"tEXt", f"{key}\0{value}".encode("latin-1")) for key, value in (text or {}).items()]
    chunks += [_chunk(b"IDAT", zlib_ng.compress(rows, level)), _chunk(b"IEND", b"")]
    return b"".join((SIGNATURE, *chunks))


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib_ng.crc32(content, zlib_ng.crc32(name))
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)))
