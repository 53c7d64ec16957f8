"""A TIFF of several gray images is a stack of slices in the order of its pages."""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from itertools import product

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.errors import CascadeError
from cascade.io.exif import turn
from cascade.io.imagej import slice_distance_mm
from cascade.io.open import open_source
from cascade.io.tiff_stack import TiffStack

STACK = np.random.default_rng(0).integers(1, 200, (3, 40, 48)).astype(np.uint8)
MM = {"axes": "ZYX", "spacing": 5.0, "unit": "mm"}


def written(folder, stack=STACK, **options):
    tifffile.imwrite(folder / "a.tif", stack, **options)
    return folder / "a.tif"


def pixels_of(source):
    return np.stack([source.read(index).pixels for index in range(source.count)])


def refusal(path):
    with pytest.raises(CascadeError, match=r"a\.tif") as raised:
        pixels_of(open_source(path))
    return raised.value.problem


@pytest.mark.parametrize(
    "options",
    [
        {"truncate": True, "photometric": "minisblack"},
        {"truncate": True, "imagej": True},
        {"imagej": True},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"photometric": "minisblack"},
        {"photometric": "minisblack", "metadata": None},
        {"photometric": "minisblack", "bigtiff": True},
        {"photometric": "minisblack", "compression": "zlib"},
        {"photometric": "minisblack", "byteorder": ">"},
        {"photometric": "minisblack", "byteorder": ">", "truncate": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_every_page_is_a_slice(tmp_path, options, kind):
    """Once, a stack behind one header was its first slice only, then it was refused."""
    source = open_source(written(tmp_path, STACK.astype(kind), **options))
    assert isinstance(source, TiffStack)
    assert (source.count, source.mask_suffix, source.slab_mm, source.notes) == (3, ".tif", None, ())
    assert np.array_equal(pixels_of(source), STACK)
    assert source.read(0).spacing_mm is None


GRAY_COMPRESSIONS = ["tiff_lzw", "packbits", "tiff_adobe_deflate"]


@pytest.mark.parametrize(("mode", "compression"), [*product(["L", "I;16"], GRAY_COMPRESSIONS), ("1", "group4")])
def test_pages_that_pillow_compressed_are_read(tmp_path, mode, compression):
    kind = np.uint16 if mode == "I;16" else np.uint8
    first, *others = (Image.fromarray(page.astype(kind)).convert(mode) for page in STACK)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, compression=compression)
    expected = np.stack([np.asarray(page.convert("L") if mode == "1" else page) for page in (first, *others)])
    assert np.array_equal(pixels_of(open_source(tmp_path / "a.tif")), expected)


def test_imagej_gives_the_spacing(tmp_path):
    source = open_source(written(tmp_path, imagej=True, resolution=(2, 4), metadata=MM))
    assert source.read(0).spacing_mm == pytest.approx((0.25, 0.5))
    assert source.slab_mm == pytest.approx((5.0,) * 3)
    microns = {"axes": "ZYX", "spacing": 5000.0, "unit": "um"}
    source = open_source(written(tmp_path, imagej=True, resolution=(0.002, 0.004), metadata=microns))
    assert source.read(0).spacing_mm == pytest.approx((0.25, 0.5), rel=1e-3)
    assert source.slab_mm == pytest.approx((5.0,) * 3)


def test_the_resolution_of_a_screen_or_of_a_microscope_is_no_spacing(tmp_path):
    source = open_source(written(tmp_path, photometric="minisblack", resolution=(72, 72), resolutionunit="inch"))
    assert (source.read(0).spacing_mm, source.notes) == (None, ())
    microscope = {"axes": "ZYX", "spacing": 1.0, "unit": "micron"}
    source = open_source(written(tmp_path, imagej=True, resolution=(3, 3), metadata=microscope))
    assert (source.read(0).spacing_mm, source.slab_mm) == (None, None)
    assert "scale" in source.notes[0]


def test_a_mask_has_one_page_per_slice(tmp_path):
    source = open_source(written(tmp_path, imagej=True))
    content = source.mask_bytes(STACK > 150)
    mask = tifffile.imread(io.BytesIO(content))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, 255 * (STACK > 150))
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    assert content == source.mask_bytes(STACK > 150)


@pytest.mark.parametrize("options", [{"truncate": True}, {}, {"compression": "zlib"}])
def test_slices_are_turned_as_the_header_says(tmp_path, options):
    path = written(tmp_path, photometric="minisblack", extratags=[(274, "H", 1, 6, True)], **options)
    source = open_source(path)
    assert np.array_equal(pixels_of(source), np.stack([turn(page, 6) for page in STACK]))
    assert "turned" in source.notes[0]


def test_white_is_low_in_a_negative(tmp_path):
    for options in ({"truncate": True}, {}):
        source = open_source(written(tmp_path, photometric="miniswhite", **options))
        for page, pixels in zip(STACK.astype(int), pixels_of(source), strict=True):
            assert np.array_equal(pixels, page.max() + page.min() - page)


@pytest.mark.parametrize(
    ("stack", "options", "reason"),
    [
        (STACK, {"imagej": True, "metadata": {"axes": "TYX"}}, "time points"),
        (STACK, {"photometric": "minisblack", "metadata": {"axes": "TYX"}}, "time points"),
        (STACK, {"photometric": "minisblack", "metadata": {"axes": "CYX"}}, "channels"),
        (STACK, {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}}, "channels"),
        (np.stack([STACK, STACK]), {"imagej": True, "metadata": {"axes": "TZYX"}}, "time points"),
        (np.stack([STACK, STACK]), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "channels"),
        (np.stack([STACK] * 3, axis=-1), {"photometric": "rgb"}, "color"),
    ],
)
def test_channels_and_time_series_are_refused_with_the_reason(tmp_path, stack, options, reason):
    assert reason in refusal(written(tmp_path, stack, **options))


def test_pages_of_different_sizes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (STACK[0], STACK[1][:20, :20]):
            tiff.write(page, metadata=None)
    assert "2 images" in refusal(tmp_path / "a.tif")


def test_a_description_that_promises_more_slices_than_the_file_has_is_refused(tmp_path):
    path = written(tmp_path, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    for number in (b"9", b"99999999"):
        content = path.read_bytes().replace(b"images=3\nslices=3\n", b"images=%b\nslices=%b\n" % (number, number))
        path.write_bytes(content)
        with pytest.raises(CascadeError, match=r"a\.tif"):
            pixels_of(open_source(path))


def test_a_truncated_stack_is_refused(tmp_path):
    for options in ({"truncate": True}, {}, {"compression": "zlib"}):
        path = written(tmp_path, photometric="minisblack", **options)
        path.write_bytes(path.read_bytes()[:-1500])
        with pytest.raises(CascadeError, match=r"a\.tif"):
            pixels_of(open_source(path))


def test_a_damaged_stack_is_read_or_refused_and_never_crashes(tmp_path):
    random = np.random.default_rng(0)
    for options in ({"imagej": True}, {"truncate": True}, {"compression": "zlib"}):
        whole = written(tmp_path, photometric="minisblack", **options).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for place in random.integers(min(len(whole), 600), size=3):
                damaged[place] = random.integers(256)
            (tmp_path / "a.tif").write_bytes(damaged)
            with suppress(CascadeError):
                pixels_of(open_source(tmp_path / "a.tif"))


def test_a_stack_travels_to_another_process(tmp_path):
    source = open_source(written(tmp_path, imagej=True))
    assert np.array_equal(pixels_of(pickle.loads(pickle.dumps(source))), pixels_of(source))


@pytest.mark.parametrize("description", [None, "ImageJ=1.53t\nimages=3\nslices=3\n"])
def test_a_truncated_stack_is_never_a_shorter_one(tmp_path, description):
    """The pages that were left made a complete volume, in which a tumor of the others was missing."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(STACK):
            text = None if number else description
            writer.write(page, photometric="minisblack", contiguous=False, metadata=None, description=text)
    whole = path.read_bytes()
    assert open_source(path).count == len(STACK)
    for part in range(1, 20):
        path.write_bytes(whole[: len(whole) * part // 20])
        refusal(path)


@pytest.mark.parametrize(
    ("metadata", "slab_mm"),
    [({}, 1.0), ({"spacing": -2.0}, 2.0), ({"spacing": 0.2, "zunit": "cm"}, 2.0), ({"zunit": "inch"}, None)],
    ids=str,
)
def test_the_distance_of_slices_is_read_as_imagej_writes_it(metadata, slab_mm):
    """ImageJ omits a distance of 1, and states another unit of it apart."""
    assert slice_distance_mm({"ImageJ": "1.53t", **metadata}, 1.0) == (
        None if slab_mm is None else pytest.approx(slab_mm)
    )
    assert slice_distance_mm({"ImageJ": "1.11a"}, 1.0) is None  # by tifffile
