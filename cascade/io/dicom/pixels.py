"""Read and decode the pixels of DICOM frames."""

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, RLELossless

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.io.dicom.elements import count_frames, damaged_error, get_int, read_dataset
from cascade.io.dicom.frame import Frame
from cascade.io.dicom.header import Header
from cascade.io.dicom.jpeg import encoded_size
from cascade.io.dicom.padding import fill_padding, is_padding

FLOAT_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")
"""The elements that hold pixels as floating point numbers, without BitsStored."""

MAX_OVERHEAD_BYTES = 2**18
"""Maximum size of the metadata in a compressed frame, such as a color profile."""

PIXEL_KEYWORDS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelData",
    *FLOAT_PIXELS,
    "ModalityLUTSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)


def read_pixels(header: Header) -> Dataset:
    """Read the encoded pixels of all frames of a file.

    Raises:
        CascadeError: If they cannot be read, or the file has changed since its header was read.
    """
    try:
        dataset = read_dataset(header.path, PIXEL_KEYWORDS, pixels=True)
        frames = count_frames(dataset, set())
        shape = (frames, int(dataset.Rows), int(dataset.Columns))
        dataset.NumberOfFrames = frames  # for the decoder, which would raise an exception for an invalid value
    except CascadeError:
        raise
    except Exception:
        raise damaged_error(header.path, "its pixels cannot be read") from None
    if shape != (len(header.frames), header.rows, header.columns):
        raise CascadeError(f"{header.path}: has changed during the run", fix="run again")
    if not any(keyword in dataset for keyword in ("PixelData", *FLOAT_PIXELS)):
        raise CascadeError(
            f"{header.path}: its pixels cannot be read: it has a header only",
            fix="export the image itself; the file contains no pixel data",
        )
    declared = math.prod(shape) * int(dataset.BitsAllocated) // 8
    if not UID(header.transfer_syntax_uid).is_encapsulated and header.path.stat().st_size < declared:
        raise damaged_error(header.path, "it is shorter than its header declares")
    return dataset


class PixelFile:
    """The encoded pixels of one file. Those of a multi-frame file stay in memory until they are freed."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._lock = threading.Lock()
        self._loaded: Dataset | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the file without its pixels and the lock."""
        return PixelFile, (self._header,)

    def load(self) -> Dataset:
        """Return what `read_pixels` returns."""
        if len(self._header.frames) == 1:
            return read_pixels(self._header)
        with self._lock:
            if self._loaded is None:
                self._loaded = read_pixels(self._header)
            return self._loaded

    def free(self) -> None:
        """Free the memory. `load` reads the pixels again."""
        with self._lock:
            self._loaded = None


def decode_frame(header: Header, index: int, dataset: Dataset) -> FloatArray:
    """Decode a frame, replace its padding, and apply its intensity scale.

    Args:
        header: The header of the file.
        index: Index of the frame in the file.
        dataset: The encoded pixels, from `read_pixels`.

    Returns:
        (H, W) float32 intensities in stored orientation, which may contain NaN and infinity.

    Raises:
        CascadeError: If the frame is damaged.
    """
    try:
        allocated = _decode(header, index, dataset)
        stored = _stored_values(allocated, header, dataset)
        padding = is_padding(allocated, header.padding) | is_padding(stored, header.padding)
        intensities = _intensities(stored, header.frames[index], header, dataset)
    except CascadeError:
        raise
    except Exception:  # on damaged bytes, decoders raise nearly every exception
        raise _undecodable(header) from None
    with np.errstate(over="ignore", invalid="ignore"):  # `slice_of` rejects infinite pixels
        return fill_padding(intensities, padding).astype(np.float32)


def _undecodable(header: Header) -> CascadeError:
    if not UID(header.transfer_syntax_uid).is_encapsulated:
        return damaged_error(header.path, "its pixels cannot be read")
    return CascadeError(
        f"{header.path}: its compressed pixels cannot be read",
        fix="store it uncompressed with another program, for example dcmdjpeg; if that fails too, export it again",
    )


def _decode(header: Header, index: int, dataset: Dataset) -> NDArray[Any]:
    """Return the values (H, W) as allocated: with the bits that BitsStored excludes, if the encoding has them."""
    if UID(header.transfer_syntax_uid).is_encapsulated:
        encoded = get_frame(dataset.PixelData, index, number_of_frames=len(header.frames))
        raw_size = header.rows * header.columns * int(dataset.BitsAllocated) // 8
        if len(encoded) > 2 * raw_size + MAX_OVERHEAD_BYTES:
            raise damaged_error(header.path, "its compressed pixels take more space than uncompressed ones")
        if encoded_size(encoded) not in (None, (header.rows, header.columns)):
            raise damaged_error(header.path, "its compressed pixels have another size than its header declares")
    decoder = "pydicom" if header.transfer_syntax_uid == RLELossless else ""  # pylibjpeg panics on damaged RLE
    return pixel_array(
        dataset, index=index, decoding_plugin=decoder, correct_unused_bits=not _has_unused_bits(header, dataset)
    )


def _has_unused_bits(header: Header, dataset: Dataset) -> bool:
    """Return True if values may have bits outside BitsStored. JPEG encodes values, not words with unused bits."""
    is_words = not UID(header.transfer_syntax_uid).is_encapsulated or header.transfer_syntax_uid == RLELossless
    return is_words and not any(keyword in dataset for keyword in FLOAT_PIXELS)


def _stored_values(allocated: NDArray[Any], header: Header, dataset: Dataset) -> NDArray[Any]:
    """Keep the bits from HighBit down, BitsStored in number (DICOM PS3.5, section 8.1.1). Others may be overlays."""
    if not _has_unused_bits(header, dataset):
        return allocated
    width, bits = 8 * allocated.dtype.itemsize, int(dataset.BitsStored)
    high_bit = get_int(dataset, "HighBit", set())
    if high_bit is None or not bits - 1 <= high_bit < width:
        high_bit = bits - 1
    # Shifting right repeats the sign bit of signed integers.
    return (allocated << (width - 1 - high_bit)) >> (width - bits)


def _intensities(stored: NDArray[Any], frame: Frame, header: Header, dataset: Dataset) -> NDArray[np.float64]:
    """Apply the modality lookup table or rescale slope and intercept, and make high values bright."""
    has_table = bool(dataset.get("ModalityLUTSequence"))
    if has_table or stored.dtype.kind == "f":
        values = np.asarray(apply_modality_lut(stored, dataset) if has_table else stored, dtype=np.float64)
        if header.inverted:
            values = np.nanmax(values) + np.nanmin(values) - values
        return values if has_table else values * frame.slope + frame.intercept
    values = stored.astype(np.float64)
    if header.inverted:
        highest = -1.0 if int(dataset.PixelRepresentation) else 2.0 ** int(dataset.BitsStored) - 1
        values = highest - values
    return values * frame.slope + frame.intercept
