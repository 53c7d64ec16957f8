"""Read TIFF files with tifffile where Pillow would refuse the type of the samples, or reduce it to 8 bits."""

from pathlib import Path

import numpy as np
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG, SAMPLEFORMAT, TiffFile, TiffPage

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.io.color16 import to_rgb
from cascade.io.exif import turn, valid_orientation
from cascade.io.gray import check_size, invert, rgb_to_gray, several_images

COMPRESSIONS = (COMPRESSION.NONE, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.PACKBITS)
PREDICTORS = (1, 2)  # none, horizontal
"""What tifffile decodes without further packages."""

GRAYS = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)

MAX_CHANNELS = 4

MAX_OVERHEAD = 1024
"""Maximum number of bytes by which compression may lengthen a strip or tile."""

ORIENTATION = 274
"""Number of the tag."""


def read_tiff(path: Path) -> tuple[FloatArray, int] | None:
    """Read a TIFF of one image. Raises the exceptions of the decoder.

    Returns:
        Gray values and orientation, as `image_to_gray` returns them. None if Pillow is the one to read the file: it
        has at most 8 bits, or tifffile cannot decompress it.

    Raises:
        CascadeError: If the file is too large, contains several images, is a photo or color map, or has a type that
            nothing reads.
    """
    with TiffFile(path) as tiff:
        page = tiff.pages.first
        check_size(page.imagewidth, page.imagelength, str(path))
        if (count := _count(tiff)) > 1:
            raise several_images(count, str(path))
        if not _is_deep(page):
            if page.is_subsampled and page.compression == COMPRESSION.NONE:
                raise unsupported_type(path)  # Pillow would read it as if it were not
            is_signed = page.bitspersample > 8 and page.sampleformat != SAMPLEFORMAT.UINT
            if is_signed and tiff.byteorder == ">" and page.compression != COMPRESSION.NONE:
                raise unsupported_type(path)  # Pillow would exchange their bytes twice
            return None
        orientation = valid_orientation(page.tags.valueof(ORIENTATION))
        return turn(page_to_gray(page, str(path)), orientation), orientation


def unsupported_type(path: Path) -> CascadeError:
    """Return the error for a TIFF whose samples neither Pillow nor `read_tiff` reads, with their type in its words.

    Raises the exceptions of the decoder if the header is damaged.
    """
    with TiffFile(path) as tiff:
        page = tiff.pages.first
        enums = (SAMPLEFORMAT(page.sampleformat), PHOTOMETRIC(page.photometric), COMPRESSION(page.compression))
        sample_format, photometric, compression = (enum.name for enum in enums)
        bits = f"{page.samplesperpixel} x {page.bitspersample}" if page.samplesperpixel > 1 else page.bitspersample
    return CascadeError(
        f"{path}: has samples of {bits} bits, type {sample_format} {photometric}, compression {compression}, which "
        "cannot be read",
        fix="save the slice as 8 or 16-bit gray, without compression",
    )


def _count(tiff: TiffFile) -> int:
    """Return the number of images: one per page, or several behind one header, as ImageJ and tifffile write a stack.

    Pillow would read the first of these only. Also, a gray image may have further channels of unknown meaning.
    """
    page, pages = tiff.pages.first, len(tiff.pages)
    if pages > 1:
        return pages
    planes = page.imagedepth
    if not tiff.is_ome:  # the series of OME may include other files
        planes *= tiff.series[0].size // max(page.size, 1)
    if page.photometric in GRAYS:
        planes *= 1 + page.extrasamples.count(EXTRASAMPLE.UNSPECIFIED)
    return planes


def _is_deep(page: TiffPage) -> bool:
    """Return True for intensities that `page_to_gray` reads, and of which Pillow would lose a part."""
    return is_decodable(page) and (page.bitspersample > 8 or page.sampleformat != SAMPLEFORMAT.UINT)


def is_decodable(page: TiffPage) -> bool:
    """Return True for intensities that `page_to_gray` reads."""
    return (
        page.photometric in (*GRAYS, PHOTOMETRIC.RGB)
        and page.sampleformat in (SAMPLEFORMAT.UINT, SAMPLEFORMAT.INT, SAMPLEFORMAT.IEEEFP)
        and page.bitspersample in (8, 16, 32, 64)
        and page.samplesperpixel <= MAX_CHANNELS
        and page.compression in COMPRESSIONS
        and page.predictor in PREDICTORS
    )


def page_to_gray(page: TiffPage, name: str) -> FloatArray:
    """Return the gray values (H, W) of a page that `is_decodable`, as stored. Raises the exceptions of the decoder."""
    if 0 in (*page.dataoffsets, *page.databytecounts):
        raise ValueError("a part of its pixels is missing")  # tifffile would read zeros
    if sum(page.databytecounts) > page.nbytes + len(page.databytecounts) * MAX_OVERHEAD:
        raise ValueError("its data are longer than its pixels")  # they might decompress to more than the memory
    stored = page.asarray().reshape(page.shape)
    if page.samplesperpixel == 1:
        with np.errstate(over="ignore"):  # `check_pixels` rejects infinite pixels
            gray = stored.reshape(page.imagelength, page.imagewidth).astype(np.float32)
        return invert(gray) if page.photometric == PHOTOMETRIC.MINISWHITE else gray
    channels = stored if page.planarconfig == PLANARCONFIG.CONTIG else np.moveaxis(stored, 0, -1)
    is_undeclared = page.samplesperpixel in (2, 4) and not page.extrasamples
    has_alpha = is_undeclared or EXTRASAMPLE.UNASSALPHA in page.extrasamples
    return rgb_to_gray(to_rgb(channels, has_alpha=has_alpha), name)
