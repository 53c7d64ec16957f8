"""Pictures are read as viewers show them, whichever of the eight orientations their header gives."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.Image import Transpose

from cascade.datasets.reader import read_mask
from cascade.io.image import read_slice
from cascade.pipeline import Cascade

SAMPLES = Path(__file__).parent.parent.parent / "samples"
ORIENTATION = 274

STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
"""How an upright picture is stored. A viewer turns 6 clockwise by 90 degrees, hence it is stored counterclockwise."""

SMALL = np.arange(20 * 28, dtype=np.uint16).reshape(20, 28) // 3  # 0 .. 186, not square


def stored(pixels, orientation):
    """Return an upright picture (H, W) as it is stored for an orientation."""
    method = STORED[orientation]
    image = Image.fromarray(pixels)
    return np.asarray(image if method is None else image.transpose(method))


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def save(path, pixels, orientation, **options):
    Image.fromarray(stored(pixels, orientation)).save(path, exif=exif(orientation), **options)


def save_tiff(path, pixels, orientation, **options):
    image = stored(pixels, orientation).astype(options.pop("kind", pixels.dtype))
    if options.pop("rgb", False):
        image = np.stack([image] * 3, axis=-1)
        options["photometric"] = "rgb"
    tifffile.imwrite(path, image, extratags=[(ORIENTATION, "H", 1, orientation, True)], **options)


def save_deep_color_png(path, pixels, orientation):
    """Write RGB of 16 bits, which Pillow cannot, with a chunk of EXIF."""
    image = np.stack([stored(pixels, orientation)] * 3, axis=-1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    height, width = image.shape[:2]

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    tags = chunk(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
    content = header + tags + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


BYTES = SMALL.astype(np.uint8)
KINDS = {
    "8-bit PNG": ("a.png", BYTES, save, {}),
    "16-bit PNG": ("a.png", SMALL * 300, save, {}),
    "16-bit RGB PNG": ("a.png", SMALL * 300, save_deep_color_png, {}),
    "WebP": ("a.webp", BYTES, save, {"lossless": True}),
    "8-bit TIFF": ("a.tif", BYTES, save_tiff, {}),
    "8-bit LZW TIFF": ("a.tif", BYTES, save, {"compression": "tiff_lzw"}),
    "8-bit JPEG": ("a.jpg", BYTES, save, {"quality": 100}),
    "8-bit RGB TIFF": ("a.tif", BYTES, save_tiff, {"rgb": True}),
    "16-bit TIFF": ("a.tif", SMALL * 300, save_tiff, {}),
    "16-bit LZW TIFF": ("a.tif", SMALL * 300, save, {"compression": "tiff_lzw"}),
    "16-bit deflated TIFF": ("a.tif", SMALL * 300, save_tiff, {"compression": "zlib", "predictor": True}),
    "16-bit RGB TIFF": ("a.tif", SMALL * 300, save_tiff, {"rgb": True}),
    "float32 TIFF": ("a.tif", SMALL, save_tiff, {"kind": np.float32}),
    "float64 TIFF": ("a.tif", SMALL, save_tiff, {"kind": np.float64}),
    "int32 TIFF": ("a.tif", SMALL, save_tiff, {"kind": np.int32}),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_read_as_viewers_show_it_with_a_note_if_it_was_turned(tmp_path, kind, orientation):
    """Once, only compressed TIFF was turned, and an uncompressed one came out in stripes."""
    name, pixels, write, options = KINDS[kind]
    write(tmp_path / name, pixels, orientation, **options)
    slice_ = read_slice(tmp_path / name)
    assert slice_.pixels.shape == pixels.shape
    assert np.abs(slice_.pixels - pixels).max() <= (2 if name == "a.jpg" else 0.01)
    assert [f"orientation {orientation}" in note for note in slice_.notes] == ([] if orientation == 1 else [True])


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_impossible_orientation_counts_as_none(tmp_path, value):
    Image.fromarray(BYTES).save(tmp_path / "a.jpg", exif=exif(value), quality=100)
    tifffile.imwrite(tmp_path / "a.tif", SMALL, extratags=[(ORIENTATION, "H", 1, value, True)])
    for name in ("a.jpg", "a.tif"):
        slice_ = read_slice(tmp_path / name)
        assert slice_.pixels.shape == SMALL.shape
        assert slice_.notes == ()


@pytest.mark.parametrize("damage", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_does_not_hide_a_picture(tmp_path, damage):
    Image.fromarray(BYTES).save(tmp_path / "a.jpg", exif=damage, quality=100)
    assert read_slice(tmp_path / "a.jpg").pixels.shape == BYTES.shape


def test_a_labeled_mask_is_turned_like_its_slice(tmp_path):
    mask = np.zeros((20, 28), np.uint8)
    mask[2:5, 20:27] = 255
    save(tmp_path / "mask.png", mask, 6)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask > 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["8-bit PNG", "WebP", "8-bit JPEG", "8-bit TIFF", "8-bit LZW TIFF", "16-bit TIFF"])
def test_all_orientations_have_the_same_class_probability_and_mask(tmp_path, kind):
    """Once, a JPEG stored upside down had another class: meningioma with 0.77."""
    cascade = Cascade.open(backend="onnxruntime")
    name, _, write, options = KINDS[kind]
    pixels = np.asarray(Image.open(SAMPLES / "sagittal_pituitary_tumor_1.png"))[:, 20:492]
    if kind.startswith("16"):
        pixels = pixels.astype(np.uint16) * 200
    for _ in range(4 if kind.endswith("JPEG") else 0):  # after a few times, JPEG hardly changes a picture any more
        write(tmp_path / name, pixels, 1, **options)
        pixels = np.asarray(Image.open(tmp_path / name))
    expected = cascade.predict(pixels)
    assert expected.label == "pituitary tumor"
    for orientation in STORED:
        write(tmp_path / name, pixels, orientation, **options)
        found = cascade.predict(tmp_path / name)
        assert found.label == expected.label
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-3)
        assert np.mean(found.mask != expected.mask) < (1e-3 if kind.endswith("JPEG") else 1e-9)
