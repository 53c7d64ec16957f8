"""Read the images of one TIFF file as a stack, and write its mask as a TIFF of as many pages."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import PHOTOMETRIC, TiffFile, TiffPage, TiffPageSeries

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.exif import orientation_notes, turn, valid_orientation
from cascade.io.gray import invert, several_images
from cascade.io.imagej import read_scale
from cascade.io.lazy import LazyArray
from cascade.io.nifti_header import damaged_error
from cascade.io.probability import Uint16Array
from cascade.io.silence import silence_decoders
from cascade.io.slices import MAX_SLICES, Slice, check_volume_size, slice_of
from cascade.io.source import HeaderSource
from cascade.io.tiff import GRAYS, ORIENTATION, is_decodable, page_to_gray, unsupported_type
from cascade.io.tiff_pages import encode_pages, mask_tiff
from cascade.io.voxels import VoxelFile

KINDS = ("generic", "imagej", "shaped", "uniform")
"""Kinds of TIFF, as tifffile names them, whose images are all in the file, in the order of the pages."""

AXES = {"C": "channels", "S": "channels", "T": "time points"}
"""Axis of a series, as tifffile names it → what lies along it, if that is not a stack of slices."""

STACK_AXES = "ZIQ"
"""Names of axes of slices: depth, images, and unknown."""

PILLOW_MODES = ("1", "L", "I;16", "I;16B")
"""Modes of gray pages that Pillow decompresses where tifffile cannot."""


def open_stack(path: Path, name: str) -> "TiffStack | None":
    """Open a TIFF of several images. Reads the headers only; raises the exceptions of the decoder.

    Returns:
        The stack; None for a file of one image.

    Raises:
        CascadeError: If the images are no slices of one stack: channels, time points or different sizes.
    """
    with TiffFile(path) as tiff:
        page, count = tiff.pages.first, len(tiff.pages)
        check_last_page(path, tiff)
        if count > MAX_SLICES:
            raise several_images(count, str(path))
        pages = _pages(tiff)  # before the series: these would replace pages by references to the first one
        imagej = tiff.imagej_metadata or {}
        if count == 1 and (tiff.is_ome or page.imagedepth > 1 or tiff.series[0].size <= page.size):
            if imagej.get("images", 1) != 1:
                raise damaged_error(path, "it has fewer images than its header declares")
            return None
        if tiff.is_ome or len(tiff.series) > 1 or tiff.series[0].kind not in KINDS:
            raise several_images(count, str(path))
        series = tiff.series[0]
        if page.samplesperpixel > 1 or page.photometric not in GRAYS or page.imagedepth > 1:
            raise CascadeError(f"{path}: is a stack of images in color", fix="save it as gray values")
        _check_axes(path, series, imagej)
        count = series.size // page.size
        if len(pages) not in (1, count):
            raise damaged_error(path, "it has fewer images than its header declares")
        voxels = None
        if len(pages) == 1:
            voxels = _behind_one_header(path, tiff, count)
        orientation = valid_orientation(page.tags.valueof(ORIENTATION))
        height, width = turn(np.empty((page.imagelength, page.imagewidth), bool), orientation).shape
        spacing_mm, slab_mm, notes = read_scale(tiff, (height, width), is_turned=orientation >= 5)
        check_volume_size(path, count, height, width, spacing_mm)
        if voxels:
            voxels.check()
        elif not all(is_decodable(page) or page.bitspersample <= 16 for page in pages):
            raise unsupported_type(path)
    notes = (*notes, *orientation_notes(orientation))
    return TiffStack(path, name, count, voxels, spacing_mm, slab_mm, notes)


def check_last_page(path: Path, tiff: TiffFile) -> None:
    """Check that no page follows the last one that could be read: tifffile ends where a file is cut off.

    Raises:
        CascadeError: The file is truncated.
    """
    file = tiff.filehandle
    file.seek(tiff.pages.next_page_offset or 0)  # where the last page says which one follows; 0 means none
    if any(file.read(tiff.tiff.offsetsize)):
        raise damaged_error(path, "it is truncated")


def _pages(tiff: TiffFile) -> list[TiffPage]:
    return [page.aspage() for page in tiff.pages]


def _check_axes(path: Path, series: TiffPageSeries, imagej: dict[str, Any]) -> None:
    """Raise CascadeError unless all images lie along one axis of slices.

    Programs that do not know what their slices are write them as channels of an ImageJ file in gray values.
    """
    axes = [axis for axis, size in zip(series.axes, series.shape, strict=True) if size > 1 and axis not in "YX"]
    if len(axes) == 1 and (axes[0] in STACK_AXES or (axes[0] == "C" and imagej.get("mode") == "grayscale")):
        return
    what = " and ".join(dict.fromkeys(AXES.get(axis, "images") for axis in axes)) or "images"
    raise CascadeError(
        f"{path}: contains {series.size // math.prod(series.shape[-2:]):,} images ({what}), which are not one stack",
        fix="save one slice per file, or a stack of the slices of one sequence",
    )


def _behind_one_header(path: Path, tiff: TiffFile, count: int) -> VoxelFile:
    """Return where the images are that follow the one of the header, as ImageJ and tifffile write a stack."""
    page = tiff.pages.first
    if page.dtype is None or not page.is_contiguous:
        raise several_images(count, str(path))
    dtype = page.dtype.newbyteorder(tiff.byteorder)
    return VoxelFile(path, dtype, (page.imagewidth, page.imagelength, count), page.dataoffsets[0])


class TiffStack(HeaderSource):
    """The images of a TIFF file as slices, in the order of the pages; a `Source`."""

    mask_suffix = ".tif"

    def __init__(
        self,
        path: Path,
        name: str,
        count: int,
        voxels: VoxelFile | None,
        spacing_mm: tuple[float, float] | None,
        distance_mm: float | None,
        notes: tuple[str, ...],
    ) -> None:
        """Take the description of a stack.

        Args:
            path: The file.
            name: Its name in the results.
            count: Number of slices.
            voxels: Where all slices are, if they follow a single header; None if each has a page.
            spacing_mm: Spacing of the pixels, see `Slice`.
            distance_mm: Distance of the slices.
            notes: Warnings for the user.
        """
        self.name = name
        self.files = (path.absolute(),)
        self.count = count
        self.notes = notes
        self.slab_mm = None if distance_mm is None else (distance_mm,) * count
        self._voxels = voxels
        self._spacing_mm = spacing_mm
        self._slices = LazyArray(self._read_all)

    def read(self, index: int) -> Slice:
        """Read a slice, turned as viewers show it, see `Source.read`."""
        name = f"{self.files[0]}, slice {index + 1} of {self.count}"
        return slice_of(self._slices.get()[index], name, self._spacing_mm)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode masks (count, H, W) as TIFF, see `mask_tiff`."""
        return mask_tiff(masks)

    def probability_bytes(self, values: Uint16Array) -> bytes:
        """Encode probabilities as TIFF of one page of 16 bits per slice, see `Source.probability_bytes`."""
        return encode_pages(values)

    def close(self) -> None:
        """Free the slices, see `Source.close`."""
        self._slices.free()

    def _read_all(self) -> FloatArray:
        """Read all slices (count, H, W). If one is damaged, the pages behind it may be wrong."""
        path = self.files[0]
        with silence_decoders(), read_errors(path, lambda error: damaged_error(path, f"cannot be read ({error})")):
            with TiffFile(path) as tiff:
                pages = _pages(tiff)
                orientation = valid_orientation(pages[0].tags.valueof(ORIENTATION))
                if self._voxels:
                    stored = self._voxels.read().T
                    is_inverted = pages[0].photometric == PHOTOMETRIC.MINISWHITE
                    return np.stack([turn(_to_float(image, is_inverted=is_inverted), orientation) for image in stored])
                if all(is_decodable(page) for page in pages):
                    return np.stack([turn(page_to_gray(page, str(path)), orientation) for page in pages])
            return _read_with_pillow(path, pages)


def _to_float(stored: NDArray[Any], *, is_inverted: bool) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):  # `check_pixels` rejects infinite pixels
        pixels: FloatArray = stored.astype(np.float32)
    return invert(pixels) if is_inverted else pixels


def _read_with_pillow(path: Path, pages: list[TiffPage]) -> FloatArray:
    """Read pages in a compression that only Pillow knows. It turns them, and inverts those of 8 bits."""
    slices = []
    with Image.open(path) as image:
        image.filename = ""  # see `image_to_gray`
        for index, page in enumerate(pages):
            image.seek(index)
            if image.mode not in PILLOW_MODES:
                raise unsupported_type(path)
            is_inverted = image.mode.startswith("I") and page.photometric == PHOTOMETRIC.MINISWHITE
            gray = image if image.mode.startswith("I") else image.convert("L")
            slices.append(_to_float(np.asarray(gray), is_inverted=is_inverted))
    return np.stack(slices)
