"""Encode the slices of a mask, or of a probability map, as the pages of a TIFF."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mask_tiff(masks: NDArray[np.bool_]) -> bytes:
    """Encode masks (count, H, W) as TIFF of one page per slice: 255 in the tumor, 0 elsewhere."""
    return encode_pages(masks.astype(np.uint8) * np.uint8(255))


def encode_pages(pages: NDArray[Any]) -> bytes:
    """Encode integers (count, H, W) as TIFF of one gray page per slice."""
    from tifffile import imwrite  # not needed for reading most inputs

    content = io.BytesIO()
    imwrite(content, pages, photometric="minisblack", compression="zlib", metadata=None, software=False)
    return content.getvalue()
