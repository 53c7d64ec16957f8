"""Stored values that are not signal never reach the models."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import HEAD, image, opened, refusal, write
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

SLICE = HEAD[4]
CORNER = np.s_[:3, :5]


def read(path):
    return opened([path], path.parent).read(0).pixels


def padded(value, dtype=np.uint16):
    """Return the slice with a corner of padding, and the same with the lowest intensity there."""
    pixels, expected = SLICE.astype(dtype), SLICE.astype(np.float32)
    pixels[CORNER] = value
    expected[CORNER] = expected[3:].min()
    expected[CORNER] = np.delete(pixels.ravel(), np.flatnonzero(pixels == value)).min()
    return pixels, expected


@pytest.mark.parametrize(
    ("value", "dtype", "declared"),
    [
        (65535, np.uint16, 65535),
        (0, np.uint16, 0),
        (-2000, np.int16, -2000),
        (-1, np.int16, 65535),  # the same bits, written with the wrong sign
        (63536, np.uint16, -2000),
    ],
)
@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_padding_is_replaced_by_the_lowest_other_value(tmp_path, value, dtype, declared, syntax):
    """A padding of 65535, brighter than any tissue, hid a meningioma."""
    pixels, expected = padded(value, dtype)
    dataset = image(pixels)
    dataset.add_new("PixelPaddingValue", "SS" if declared < 0 else "US", declared)
    if syntax == "implicit":
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        path = tmp_path / "a.dcm"
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    else:
        path = write(tmp_path / "a.dcm", dataset)
    assert read(path).tolist() == expected.tolist()


def test_a_range_of_padding_is_replaced_in_either_order(tmp_path):
    pixels, expected = padded(65535)
    pixels[0, 0], pixels[1, 1] = 65000, 65300
    for values in ((65000, 65535), (65535, 65000)):
        dataset = image(pixels, PixelPaddingValue=values[0], PixelPaddingRangeLimit=values[1])
        assert read(write(tmp_path / "a.dcm", dataset)).tolist() == expected.tolist()


def test_padding_is_found_before_the_rescale_and_is_dark_in_an_inverted_image(tmp_path):
    pixels, expected = padded(65535)
    rescaled = image(pixels, PixelPaddingValue=65535, RescaleSlope=0.5, RescaleIntercept=-100)
    assert read(write(tmp_path / "a.dcm", rescaled)).tolist() == (expected * 0.5 - 100).tolist()
    inverted = read(
        write(tmp_path / "b.dcm", image(pixels, PixelPaddingValue=65535, PhotometricInterpretation="MONOCHROME1"))
    )
    assert inverted[CORNER].max() == inverted.min() == 65535 - 4000


def test_padding_outside_the_stored_bits_is_found(tmp_path):
    """Some scanners pad images of 12 bits with -2000 in 16 bits."""
    pixels, expected = padded(63536)
    dataset = image(pixels, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    assert read(write(tmp_path / "a.dcm", dataset)).tolist() == expected.tolist()


def test_an_image_of_padding_only_is_blank_and_not_a_crash(tmp_path):
    path = write(tmp_path / "a.dcm", image(np.full((20, 24), 7, np.uint16), PixelPaddingValue=7))
    assert "same value" in refusal(path)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("high_bit", [11, 13, 15])
def test_bits_outside_the_stored_ones_are_ignored(tmp_path, dtype, high_bit):
    """Old files keep overlays there."""
    values = SLICE.astype(int) if dtype == np.uint16 else SLICE.astype(int) - 2048
    values = np.clip(values, -2048, 4095)
    shift = high_bit - 11
    words = (values & 0xFFF) << shift
    words |= ~(0xFFF << shift) & 0xFFFF & np.random.default_rng(0).integers(0, 65536, words.shape)
    dataset = image(
        words.astype(np.uint16), BitsStored=12, HighBit=high_bit, PixelRepresentation=int(dtype == np.int16)
    )
    assert read(write(tmp_path / "a.dcm", dataset)).tolist() == values.tolist()
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    assert read(write(tmp_path / "b.dcm", dataset)).tolist() == values.tolist()


def test_a_modality_lookup_table_is_applied(tmp_path):
    """Padding is compared with stored values, and a MONOCHROME1 image inverted after the table."""
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4001, 0, 16])
    table.add_new("ModalityLUTType", "LO", "US")
    values = (np.arange(4001) ** 2 // 300).astype(np.uint16)
    table.add_new("LUTData", "OW", values.tobytes())
    dataset = image(SLICE, ModalityLUTSequence=[table])
    assert read(write(tmp_path / "a.dcm", dataset)).tolist() == values[SLICE].tolist()
    dataset = image(SLICE, ModalityLUTSequence=[table], PhotometricInterpretation="MONOCHROME1")
    expected = values[SLICE].astype(int)
    assert read(write(tmp_path / "b.dcm", dataset)).tolist() == (expected.max() + expected.min() - expected).tolist()


@pytest.mark.parametrize(
    ("keyword", "dtype", "bits"), [("FloatPixelData", "<f4", 32), ("DoubleFloatPixelData", "<f8", 64)]
)
def test_pixels_of_floating_point_numbers_are_read(tmp_path, keyword, dtype, bits):
    changes = {"PixelData": None, "BitsStored": None, "HighBit": None, "PixelRepresentation": None}
    values = SLICE / np.float32(8)
    values[CORNER] = -999.5
    prefix = keyword.removesuffix("PixelData")
    changes |= {keyword: values.astype(dtype).tobytes(), "BitsAllocated": bits, f"{prefix}PixelPaddingValue": -999.5}
    expected = values.copy()
    expected[CORNER] = values[values > 0].min()
    assert read(write(tmp_path / "a.dcm", image(SLICE, **changes))).tolist() == expected.tolist()
    values[10, 10] = np.nan
    expected[10, 10] = expected.min()
    path = write(tmp_path / "b.dcm", image(SLICE, **{**changes, keyword: values.astype(dtype).tobytes()}))
    assert read(path).tolist() == expected.tolist()
    values[5:-5, 5:-5] = np.nan
    path = write(tmp_path / "c.dcm", image(SLICE, **{**changes, keyword: values.astype(dtype).tobytes()}))
    assert "NaN" in refusal(path)


def test_a_palette_is_refused_as_color(tmp_path):
    assert "contains color" in refusal(
        write(tmp_path / "a.dcm", image(SLICE, PhotometricInterpretation="PALETTE COLOR"))
    )
