"""TIFF files hold samples of many types, and stacks that Pillow does not see."""

from __future__ import annotations

import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.errors import CascadeError
from cascade.io.image import read_gray, read_slice

RAMP = np.arange(20 * 28, dtype=np.float64).reshape(20, 28)  # 0 .. 559
STACK = np.stack([RAMP, RAMP[::-1], RAMP]).astype(np.uint8)


def refusal(path):
    """Return the problem of reading a file that is refused."""
    with pytest.raises(CascadeError) as raised:
        read_slice(path)
    assert raised.value.problem.startswith(f"{path}: ")
    assert raised.value.fix
    return raised.value.problem


KINDS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", "<>")
def test_every_type_of_integers_and_floats_keeps_its_values(tmp_path, kind, order):
    """Pillow refuses 64 bits and float16, and reads int8 as if it had no sign."""
    lowest = 0 if kind.startswith("u") else -100
    stored = (RAMP % 200 + lowest).clip(None, 127 if kind == "int8" else None).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=order)
    assert np.array_equal(read_gray(tmp_path / "a.tif"), stored.astype(np.float32))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(("orientation", "spacing_mm"), [(1, (0.25, 0.5)), (6, (0.5, 0.25))])
def test_imagej_gives_the_spacing_of_a_single_slice(tmp_path, kind, orientation, spacing_mm):
    """Once, a stack had its spacing, and one slice of it had none."""
    options = {"imagej": True, "extratags": [(274, "H", 1, orientation, True)]}
    slice_ = np.tile(STACK[0], (8, 8)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", slice_, resolution=(2, 4), metadata={"unit": "mm"}, **options)
    assert read_slice(tmp_path / "a.tif").spacing_mm == pytest.approx(spacing_mm)
    tifffile.imwrite(tmp_path / "a.tif", slice_, resolution=(2000, 4000), metadata={"unit": "mm"}, **options)
    microscope = read_slice(tmp_path / "a.tif")
    assert microscope.spacing_mm is None
    assert "scale" in microscope.notes[0]


@pytest.mark.parametrize("kind", ["int8", "uint16", "uint64", "float16", "float64"])
def test_compressed_samples_keep_their_values(tmp_path, kind):
    stored = (RAMP % 120).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, compression="zlib")
    assert np.array_equal(read_gray(tmp_path / "a.tif"), stored.astype(np.float32))


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw", "lzma"])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_gray_in_compressions_of_libtiff_keeps_its_depth(tmp_path, kind, compression):
    stored = (RAMP * 100).astype(kind)
    Image.fromarray(stored).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(read_gray(tmp_path / "a.tif"), stored.astype(np.float32))


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.float16, np.float64])
def test_the_lowest_value_is_white_in_a_tiff_that_says_so(tmp_path, kind):
    stored = (RAMP % 100).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    assert np.array_equal(read_gray(tmp_path / "a.tif"), 99 - stored.astype(np.float32))


@pytest.mark.parametrize("form", ["1-bit", "palette", "YCbCr", "CMYK", "CMYK LZW", "YCbCr JPEG"])
def test_what_pillow_converts_to_gray_is_read(tmp_path, form):
    mode, _, compression = form.partition(" ")
    image = Image.fromarray(255 * (RAMP >= 200).astype(np.uint8))
    options = {"LZW": {"compression": "tiff_lzw"}, "JPEG": {"compression": "jpeg", "quality": 100}}.get(compression, {})
    image.convert({"1-bit": "1", "palette": "P"}.get(mode, mode)).save(tmp_path / "a.tif", **options)
    pixels = read_gray(tmp_path / "a.tif")
    assert pixels[RAMP < 150].max() < 20
    assert pixels[RAMP >= 250].min() > 180


@pytest.mark.parametrize(
    ("stored", "options", "name"),
    [
        (RAMP.astype(np.complex64), {}, "COMPLEXIEEEFP"),
        (np.zeros((20, 28, 4), np.uint16), {"photometric": "separated"}, "SEPARATED"),
        (np.zeros((20, 28, 3), np.float32), {"photometric": "cielab"}, "CIELAB"),
        (RAMP.astype(np.uint16), {"photometric": "palette", "colormap": np.zeros((3, 2**16), np.uint16)}, "PALETTE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_type_that_nothing_reads_is_named(tmp_path, stored, options, name):
    """Once, such a file was called truncated or damaged, and CMYK of 16 bits was read as RGB."""
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    problem = refusal(tmp_path / "a.tif")
    assert name in problem
    assert str(stored.dtype.itemsize * 8) in problem


def test_color_of_16_bits_in_a_compression_that_only_pillow_reads_names_both(tmp_path):
    """Pillow keeps the upper 8 bits: values up to 2,000 would have become 0 to 7."""
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RAMP.astype(np.uint16)] * 3, axis=-1), photometric="rgb")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        place = tiff.pages.first.tags["Compression"].valueoffset
    content[place : place + 2] = (5).to_bytes(2, "little")  # LZW
    (tmp_path / "a.tif").write_bytes(content)
    problem = refusal(tmp_path / "a.tif")
    assert "16" in problem
    assert "LZW" in problem


def test_uncompressed_color_of_fewer_samples_than_gray_is_not_read_as_if_it_had_all(tmp_path):
    image = Image.fromarray(RAMP.astype(np.uint8)).convert("YCbCr")
    image.save(tmp_path / "a.tif", tiffinfo={530: (2, 2)})
    assert "YCBCR" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "options",
    [
        {"truncate": True, "photometric": "minisblack"},
        {"truncate": True, "imagej": True},
        {"photometric": "minisblack"},
        {"photometric": "minisblack", "planarconfig": "separate"},
        {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)},
    ],
    ids=["one header", "ImageJ", "pages", "channels", "volume"],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_no_slice_of_a_stack_disappears(tmp_path, options, kind):
    """Once, the first slice behind a single header was processed, and the others were not mentioned."""
    tifffile.imwrite(tmp_path / "a.tif", STACK.astype(kind), **options)
    assert "contains 3 images" in refusal(tmp_path / "a.tif")


def test_a_single_image_of_imagej_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.float32), imagej=True)
    assert np.array_equal(read_gray(tmp_path / "a.tif"), RAMP)


def test_transparent_pixels_of_16_bits_are_black(tmp_path):
    stored = np.stack([RAMP * 100, RAMP * 100, RAMP * 100, 65_535.0 * (RAMP >= 300)], axis=-1).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unassalpha"])
    assert np.allclose(read_gray(tmp_path / "a.tif"), 100 * RAMP * (RAMP >= 300), rtol=1e-5)


def test_nan_around_the_head_is_replaced_in_float_tiff(tmp_path):
    stored = np.full((40, 40), np.nan, np.float32)
    stored[8:32, 8:32] = np.arange(576).reshape(24, 24) + 5
    tifffile.imwrite(tmp_path / "a.tif", stored)
    slice_ = read_slice(tmp_path / "a.tif")
    assert slice_.pixels[0, 0] == slice_.pixels.min() == 5
    assert "NaN" in slice_.notes[0]
    tifffile.imwrite(tmp_path / "b.tif", np.full((40, 40), np.nan, np.float32), photometric="miniswhite")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "every pixel has the same value" in refusal(tmp_path / "b.tif")


@pytest.mark.parametrize("tag", ["StripOffsets", "StripByteCounts"])
def test_a_tiff_that_lacks_a_part_of_its_pixels_is_refused(tmp_path, tag):
    """tifffile reads zeros in its place."""
    tifffile.imwrite(tmp_path / "a.tif", RAMP, rowsperstrip=4)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        field = tiff.pages.first.tags[tag]
        field.overwrite((*field.value[:-1], 0))
    assert "missing" in refusal(tmp_path / "a.tif")


def test_a_small_tiff_that_decompresses_to_much_more_than_its_pixels_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        page = tiff.pages.first
        page.tags["StripOffsets"].overwrite(tiff.filehandle.size)
        page.tags["StripByteCounts"].overwrite(len(zlib.compress(bytes(2**23))))
    with (tmp_path / "a.tif").open("ab") as file:
        file.write(zlib.compress(bytes(2**23)))
    assert "longer than its pixels" in refusal(tmp_path / "a.tif")


def test_a_damaged_tiff_is_read_or_refused_and_never_crashes(tmp_path):
    random = np.random.default_rng(0)
    for kind in (np.uint8, np.float64):
        tifffile.imwrite(tmp_path / "whole.tif", RAMP.astype(kind), metadata=None)
        whole = (tmp_path / "whole.tif").read_bytes()
        for trial in range(100):
            damaged = bytearray(whole)
            if trial % 3 == 0:
                del damaged[random.integers(len(whole)) :]
            else:
                for place in random.integers(min(len(whole), 300), size=3):
                    damaged[place] = random.integers(256)
            (tmp_path / "a.tif").write_bytes(damaged)
            with suppress(CascadeError):
                read_slice(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", ["i2", "i4", "f4"])
def test_compressed_samples_in_the_other_byte_order_are_right_or_refused(tmp_path, dtype):
    """Pillow exchanged the bytes of signed ones twice: noise was predicted."""
    pixels = np.arange(400).reshape(20, 20).astype(f">{dtype}")
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=">", compression="lzma")
    with pytest.raises(CascadeError, match="cannot be read"):
        read_gray(tmp_path / "a.tif")
