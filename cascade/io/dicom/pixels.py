"""Read and decode the pixels of DICOM frames."""

import numpy as np
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, RLELossless

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.io.dicom.elements import damaged_error, read_dataset
from cascade.io.dicom.header import Header
from cascade.io.dicom.jpeg import encoded_size

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
        shape = (int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns))
    except CascadeError:
        raise
    except Exception:
        raise damaged_error(header.path, "its pixels cannot be read") from None
    if shape != (len(header.frames), header.rows, header.columns):
        raise CascadeError(f"{header.path}: has changed during the run", fix="run again")
    return dataset


def decode_frame(header: Header, index: int, dataset: Dataset) -> FloatArray:
    """Decode a frame and apply its intensity scale.

    Args:
        header: The header of the file.
        index: Index of the frame in the file.
        dataset: The encoded pixels, from `read_pixels`.

    Returns:
        (H, W) float32 intensities, which may contain infinity.

    Raises:
        CascadeError: If the frame is damaged.
    """
    frame = header.frames[index]
    try:
        if UID(header.transfer_syntax_uid).is_encapsulated:
            encoded = get_frame(dataset.PixelData, index, number_of_frames=len(header.frames))
            raw_size = header.rows * header.columns * int(dataset.BitsAllocated) // 8
            if len(encoded) > 2 * raw_size + MAX_OVERHEAD_BYTES:
                raise damaged_error(header.path, "its compressed pixels take more space than uncompressed ones")
            if encoded_size(encoded) not in (None, (header.rows, header.columns)):
                raise damaged_error(header.path, "its compressed pixels have another size than its header declares")
        decoder = "pydicom" if header.transfer_syntax_uid == RLELossless else ""  # pylibjpeg panics on damaged RLE
        stored = pixel_array(dataset, index=index, decoding_plugin=decoder).astype(np.float64)
        bits = int(dataset.BitsStored)
        highest = -1.0 if int(dataset.PixelRepresentation) else 2.0**bits - 1
    except CascadeError:
        raise
    except Exception:  # on damaged bytes, decoders raise nearly every exception
        raise damaged_error(header.path, "its pixels cannot be read") from None
    if header.inverted:
        stored = highest - stored
    with np.errstate(over="ignore", invalid="ignore"):  # `check_pixels` rejects infinite pixels
        return np.asarray(stored * frame.slope + frame.intercept).astype(np.float32)
