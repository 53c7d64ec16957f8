"""Images of every kind are read as float32 slices, or refused with the reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.errors import CascadeError
from cascade.io.image import read_gray, read_slice
from cascade.io.slices import MIN_SIDE, check_pixels, check_volume_size, slabs_mm

RAMP = np.arange(400, dtype=np.float32).reshape(20, 20)  # 0 .. 399
BYTES = (RAMP // 2).astype(np.uint8)  # 0 .. 199


def png(path, width, height, bits, color, rows):
    """Write a PNG that Pillow cannot write. `rows` are bytes; each row begins with its filter, 0."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp", "a.PNG"])
def test_8_bit_gray_keeps_its_values(tmp_path, name):
    Image.fromarray(BYTES).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    slice_ = read_slice(tmp_path / name)
    assert slice_.pixels.dtype == np.float32
    assert slice_.pixels.tolist() == BYTES.tolist()
    assert slice_.spacing_mm is None


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_gray_keeps_its_full_range(tmp_path, name):
    Image.fromarray((RAMP * 164).astype(np.uint16)).save(tmp_path / name)  # up to 65,436
    assert read_gray(tmp_path / name).tolist() == (RAMP * 164).tolist()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_tiff_whose_lowest_values_are_white_is_inverted_in_every_depth(tmp_path, kind):
    stored = RAMP.astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    pixels = read_gray(tmp_path / "a.tif")
    assert (pixels - pixels.min()).tolist() == (stored.max() - stored).tolist()


def test_big_endian_16_bit_tiff_is_read_in_its_own_byte_order(tmp_path):
    pixels = (RAMP * 100).astype(">u2").tobytes()
    tags = [(256, 20), (257, 20), (258, 16), (259, 1), (262, 1), (273, 122), (277, 1), (278, 20), (279, len(pixels))]
    directory = b"".join(struct.pack(">HHI", tag, 4, 1) + struct.pack(">I", value) for tag, value in tags)
    header = b"MM\x00*" + struct.pack(">I", 8) + struct.pack(">H", len(tags)) + directory + bytes(4)
    assert len(header) == 122
    (tmp_path / "a.tif").write_bytes(header + pixels)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == "I;16B"
    assert read_gray(tmp_path / "a.tif").tolist() == (RAMP * 100).tolist()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_float_and_signed_tiff_keep_negative_values(tmp_path, kind):
    Image.fromarray((RAMP - 200).astype(kind)).save(tmp_path / "a.tif")
    assert read_gray(tmp_path / "a.tif").tolist() == (RAMP - 200).tolist()


def test_unsigned_32_bit_tiff_keeps_its_highest_values(tmp_path):
    """Pillow reads them as signed: once, the brightest pixels became the darkest."""
    stored = RAMP.astype(np.uint32) * 10_000_000  # up to 3.99e9
    tifffile.imwrite(tmp_path / "a.tif", stored)
    assert read_gray(tmp_path / "a.tif").tolist() == stored.astype(np.float32).tolist()


def test_1_bit_and_palette_images_have_the_values_that_a_viewer_shows(tmp_path):
    Image.fromarray(RAMP >= 200).save(tmp_path / "bit.png")
    assert read_gray(tmp_path / "bit.png").tolist() == (255.0 * (RAMP >= 200)).tolist()
    image = Image.frombytes("P", (20, 20), (RAMP >= 200).tobytes())
    image.putpalette([10, 10, 10, 90, 90, 90])
    image.save(tmp_path / "palette.png")
    assert np.unique(read_gray(tmp_path / "palette.png")).tolist() == [10, 90]


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "RGBA", "LA"])
def test_gray_stored_as_color_keeps_its_values(tmp_path, mode):
    Image.fromarray(BYTES).convert(mode).save(tmp_path / "a.tif")
    assert read_gray(tmp_path / "a.tif").tolist() == BYTES.tolist()


def marked(pixels, color):
    """Convert (H, W) to (H, W, 3) with a first row in color."""
    channels = np.stack([pixels] * 3, axis=-1)
    channels[0] = color
    return channels


def test_colored_marks_become_their_luma(tmp_path):
    Image.fromarray(marked(BYTES, (200, 100, 50))).save(tmp_path / "a.png")
    pixels = read_gray(tmp_path / "a.png")
    assert np.unique(pixels[0]).tolist() == [124]  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert pixels[1:].tolist() == BYTES[1:].tolist()


def colored(fraction, deep=False):
    """Make a 40 x 40 image with a fraction of red pixels, the others gray. `deep` gives 16 bits with 12-bit values."""
    pixels = np.repeat(np.arange(1600)[:, None] // 8, 3, axis=1)
    pixels[: round(fraction * 1600)] = (200, 0, 0)
    return (pixels.astype(np.uint16) * 16 if deep else pixels.astype(np.uint8)).reshape(40, 40, 3)


@pytest.mark.parametrize("deep", [False, True])
def test_more_color_than_marks_is_refused(tmp_path, deep):
    def save(fraction):
        tifffile.imwrite(tmp_path / "a.tif", colored(fraction, deep), photometric="rgb")
        return tmp_path / "a.tif"

    assert read_gray(save(0.1)).shape == (40, 40)
    with pytest.raises(CascadeError, match=r"a\.tif: 11% of the pixels") as raised:
        read_gray(save(0.11))
    assert "in gray" in raised.value.fix


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_a_color_photo_is_refused_however_it_is_stored(tmp_path, mode):
    red, green = np.meshgrid(np.arange(0, 240, 6), np.arange(0, 240, 6))
    photo = np.stack([red, green, 239 - red], axis=-1).astype(np.uint8)
    Image.fromarray(photo).convert(mode).save(tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}")
    with pytest.raises(CascadeError, match="in color"):
        read_gray(next(tmp_path.iterdir()))


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_jpeg_noise_in_gray_images_does_not_count_as_color(tmp_path, quality):
    noise = np.random.default_rng(0).normal(0, 5, (64, 64, 3))
    gray = np.add.outer(np.arange(64), np.arange(64))[..., None] * 1.5 + 30
    Image.fromarray((gray + noise).astype(np.uint8)).save(tmp_path / "a.jpg", quality=quality)
    assert read_gray(tmp_path / "a.jpg").std() > 20


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_black_whatever_their_color(tmp_path, mode):
    """Once, a mask on a transparent layer was read as tumor everywhere: its hidden pixels were white."""
    white, alpha = Image.new("L", (20, 20), 255), Image.fromarray(255 * (RAMP >= 200).astype(np.uint8))
    Image.merge(mode, [white] * (len(mode) - 1) + [alpha]).save(tmp_path / "a.png")
    assert read_gray(tmp_path / "a.png").tolist() == (255.0 * (RAMP >= 200)).tolist()


@pytest.mark.parametrize("color", [2, 4, 6])  # RGB, gray with alpha, RGB with alpha
def test_16_bit_color_keeps_its_depth(tmp_path, color):
    """Once, a slice of 0 to 1,995 was read as 0 to 7: Pillow keeps the upper 8 bits."""
    channels = {2: 3, 4: 2, 6: 4}[color]
    rows = b"".join(b"\0" + np.repeat(row * 5, channels).astype(">u2").tobytes() for row in RAMP)
    pixels = read_gray(png(tmp_path / "a.png", 20, 20, 16, color, rows))
    opaque = 1 if color == 2 else RAMP * 5 / 65_535  # the last channel contains the ramp too
    assert np.allclose(pixels, RAMP * 5 * opaque, rtol=1e-5)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_color_tiff_becomes_its_luma_in_full_depth(tmp_path, planar):
    channels = marked(np.full((20, 24), 700, dtype=np.uint16), (2000, 1000, 500))
    stored = channels if planar == "contig" else np.moveaxis(channels, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    pixels = read_gray(tmp_path / "a.tif")
    assert np.allclose(pixels[0], 1242)  # 0.299 * 2000 + 0.587 * 1000 + 0.114 * 500
    assert np.allclose(pixels[1:], 700)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp"])
def test_several_images_in_one_file_are_refused(tmp_path, name):
    others = [Image.fromarray(255 - BYTES), Image.fromarray(BYTES)]
    Image.fromarray(BYTES).save(tmp_path / name, save_all=True, append_images=others)
    with pytest.raises(CascadeError, match=rf"{name}: contains 3 images"):
        read_gray(tmp_path / name)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [4097, 9_500, 100_000])  # our limit; where Pillow warns; where Pillow raises
def test_an_image_far_larger_than_a_slice_is_refused_before_it_is_decoded(tmp_path, side):
    path = png(tmp_path / "a.png", side, side, 8, 0, b"")
    with pytest.raises(CascadeError, match="MRI slice") as raised:
        read_gray(path)
    assert "16,777,216 pixels" in raised.value.fix


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.gif"])
def test_a_damaged_image_is_read_or_refused_by_name_and_never_crashes(tmp_path, name):
    """On damaged bytes, the decoders of Pillow raise IndexError, TypeError and struct.error besides OSError."""
    Image.fromarray(BYTES).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for trial in range(100):
        damaged = bytearray(whole)
        if trial % 2:
            del damaged[random.integers(len(whole)) :]
        else:
            for place in random.integers(min(len(whole), 300), size=4):
                damaged[place] = random.integers(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            read_gray(tmp_path / name)
        except CascadeError as error:
            refused += error.problem.startswith(f"{tmp_path / name}: ")
    assert refused >= 30


def test_a_file_that_is_not_an_image_is_refused_by_name(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(CascadeError, match=r"empty\.png: the file is empty"):
        read_gray(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "folder.png"):
        with pytest.raises(CascadeError, match=f"{name}: cannot be read as an image"):
            read_gray(tmp_path / name)
    with pytest.raises(CascadeError, match=r"nowhere\.png: there is no such file"):
        read_gray(tmp_path / "nowhere.png")


def test_a_mat_file_is_read_by_its_suffix_and_needs_no_label(tmp_path, write_mat):
    path = write_mat(tmp_path / "7.MAT", label=9)
    assert read_slice(path).pixels[0].tolist() == list(range(30))


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.zeros((20, 20)), "every pixel has the same value"),
        (RAMP[: MIN_SIDE - 1], "20 x 15 pixels are too small"),
        (np.where(RAMP == 7, np.nan, RAMP), "contains NaN or infinite pixels"),
        (np.where(RAMP == 7, np.inf, RAMP), "contains NaN or infinite pixels"),
        (np.where(RAMP == 7, -3.4e38, RAMP), "not plausible for MRI"),
        (RAMP * 1e-20, "every pixel has the same value"),  # what splines leave around a stripped head
    ],
)
def test_invalid_pixels_are_refused(tmp_path, pixels, problem):
    with pytest.raises(CascadeError, match=f"a.png: .*{problem}"):
        check_pixels(pixels.astype(np.float32), tmp_path / "a.png")


def test_any_gain_and_offset_of_a_scanner_is_accepted(tmp_path):
    for pixels in (RAMP * 1e-6, RAMP * 1e9, RAMP - 1e4, RAMP[:MIN_SIDE]):
        assert check_pixels(pixels.astype(np.float32), tmp_path / "a.png").shape == pixels.shape


def test_slices_in_descending_order_stand_for_as_much_space():
    assert slabs_mm([12.0, 6.0, 3.0, 0.0]) == pytest.approx((6.0, 4.5, 3.0, 3.0))


def test_a_slice_stands_for_the_space_up_to_the_middle_of_the_gaps_beside_it():
    """Slices at 0, 3, 6 and 12 mm: the third reaches from 4.5 to 9 mm, and the last as far outwards as inwards."""
    assert slabs_mm([0.0, 3.0, 6.0, 12.0]) == pytest.approx((3.0, 3.0, 4.5, 6.0))


@pytest.mark.parametrize("shape", [(352, 640, 640), (640, 640, 640)])
def test_a_head_at_a_resolution_of_0_4_mm_is_no_larger_than_a_volume_may_be(shape):
    """640 x 640 x 352 voxels were too many."""
    check_volume_size(Path("head.nii"), *shape, (0.4, 0.4))
    with pytest.raises(CascadeError, match="1,024"):
        check_volume_size(Path("head.nii"), 1024, 640, 640, (0.4, 0.4))
