"""What Python programs hold in memory becomes a slice, or a CascadeError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.errors import CascadeError
from cascade.io.arrays import ArrayVolume, to_slice
from cascade.io.slices import Slice

SAMPLE = Path(__file__).parent.parent.parent / "samples" / "axial_meningioma_1.png"
RAMP = np.arange(20 * 30, dtype=np.float32).reshape(20, 30)
BYTES = (RAMP // 3).astype(np.uint8)


class FakeTensor:
    """Converts itself to an array like a torch tensor in main memory."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class TensorOnGpu:
    """Refuses to be converted like a torch tensor on a GPU."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize("kind", ["u1", "i2", ">i2", "u2", "i4", "u8", "f2", "f4", ">f8", "g"])
@pytest.mark.parametrize("shape", [(20, 30), (1, 20, 30), (20, 30, 1)])
def test_an_array_of_any_real_numbers_is_a_slice(kind, shape):
    slice_ = to_slice(BYTES.astype(kind).reshape(shape), "a")
    assert slice_.pixels.dtype == np.float32
    assert slice_.pixels.tolist() == BYTES.tolist()
    assert slice_.spacing_mm is None


def test_lists_and_tensors_are_converted_by_numpy():
    for source in (RAMP.tolist(), FakeTensor(RAMP), FakeTensor(RAMP[None])):
        assert to_slice(source, "a").pixels.tolist() == RAMP.tolist()


def test_torch_tensors_are_slices():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(RAMP.copy())
    assert to_slice(tensor, "a").pixels.tolist() == RAMP.tolist()
    for refused in (tensor.requires_grad_(), tensor.to("meta"), torch.zeros(20, 30).bfloat16()):
        with pytest.raises(CascadeError) as raised:
            to_slice(refused, "a")
        assert "cpu()" in raised.value.fix


def test_a_tensor_on_a_gpu_is_refused_with_the_call_that_helps():
    with pytest.raises(CascadeError, match="cuda:0") as raised:
        to_slice(TensorOnGpu(), "a")
    assert "cpu()" in raised.value.fix


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((3, 40, 50)),
        np.zeros((40, 50, 3)),
        np.zeros((1, 1, 40, 50)),
        np.zeros(9),
        np.float32(3),
        np.array([["a", "b"]]),
        np.eye(20, dtype=complex),
        np.eye(20, dtype=bool),
        np.eye(20).astype(object),
        np.zeros((20, 20), [("a", "u1")]),
        np.zeros((20, 20), "M8[s]"),
        np.array([]),
        [[1, 2], [3]],
        [Image.fromarray(BYTES)],
        [Slice(RAMP)],
        None,
        3,
        {},
        b"slice.png",
        object(),
        "",
        "slice\0.png",
        "x" * 5000,
        Path("nowhere.png"),
    ],
    ids=lambda source: f"{type(source).__name__}",
)
def test_anything_else_is_refused_with_a_fix(source):
    with pytest.raises(CascadeError) as raised:
        to_slice(source, "a")
    assert raised.value.fix


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "La", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_a_pillow_image_of_any_8_bit_mode_has_the_gray_values_that_a_viewer_shows(mode):
    """Once, an image of mode P was read as the indices of its palette."""
    gray = Image.fromarray(255 * (RAMP >= 300).astype(np.uint8))
    via = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode)
    image = (gray.convert(via) if via else gray).convert(mode)
    assert np.abs(to_slice(image, "a").pixels - np.asarray(gray)).max() <= 2


def test_a_palette_is_looked_up():
    image = Image.frombytes("P", (30, 20), (RAMP >= 300).tobytes())
    image.putpalette([90, 90, 90, 10, 10, 10])
    assert to_slice(image, "a").pixels.tolist() == np.where(RAMP >= 300, 10, 90).tolist()


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_deep_modes_of_pillow_keep_their_values(kind):
    assert to_slice(Image.fromarray(RAMP.astype(kind) * 50), "a").pixels.tolist() == (RAMP * 50).tolist()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("load", [False, True])
def test_the_exif_orientation_of_a_pillow_image_is_honored(tmp_path, name, load):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.rot90(BYTES).copy()).save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        if load and name == "a.png":  # Pillow itself turns a TIFF, wrongly
            image.load()
        slice_ = to_slice(image, "a")
    assert slice_.pixels.tolist() == BYTES.tolist()
    assert "orientation 6" in slice_.notes[0]


def test_pillow_images_that_cannot_be_read_are_refused(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])
    Image.fromarray(BYTES).save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(255 - BYTES)])
    Image.fromarray(BYTES).save(tmp_path / "closed.png")
    closed = Image.open(tmp_path / "closed.png")
    closed.close()
    red, green = np.meshgrid(np.arange(0, 240, 6), np.arange(0, 240, 6))
    photo = Image.fromarray(np.stack([red, green, 239 - red], axis=-1).astype(np.uint8))
    for image in (Image.open(tmp_path / "cut.png"), Image.open(tmp_path / "a.gif"), closed, photo):
        with pytest.raises(CascadeError, match=r"^a: "):
            to_slice(image, "a")


def test_masked_elements_are_background_and_their_hidden_values_do_not_count():
    """NumPy would convert a masked array to its data, fill values included."""
    pixels = np.full((40, 40), 9999, np.int16)
    pixels[8:32, 8:32] = np.arange(576).reshape(24, 24)
    slice_ = to_slice(np.ma.masked_equal(pixels, 9999), "a")
    assert slice_.pixels.max() == 575
    assert slice_.pixels[0, 0] == 0
    assert "NaN" in slice_.notes[0]


def test_values_too_large_for_float32_are_refused():
    with pytest.raises(CascadeError, match="infinite"):
        to_slice(RAMP.astype(np.float64) * 1e300, "a")


@pytest.mark.parametrize(
    "spacing", [(0.5, 0.7), [0.5, 0.7], np.array([0.5, 0.7]), np.float32([0.5, 0.7]), {0.5: 1, 0.7: 1}]
)
def test_any_two_positive_numbers_are_a_spacing(spacing):
    slice_ = Slice(RAMP, spacing)
    assert slice_.spacing_mm == pytest.approx((0.5, 0.7))
    assert {type(length) for length in slice_.spacing_mm} == {float}


@pytest.mark.parametrize(
    "spacing",
    [
        0.5,
        (0.5,),
        (0.5, 0.5, 0.5),
        "ab",
        ("0.5", "0.5"),
        (0.5, None),
        (0, 1),
        (-1, 1),
        (np.nan, 1),
        np.eye(2),
        1j,
        (),
        b"ab",
    ],
    ids=repr,
)
def test_another_spacing_is_refused(spacing):
    with pytest.raises(CascadeError, match="spacing"):
        Slice(RAMP, spacing)


@pytest.mark.parametrize("pixels", [RAMP.tolist(), RAMP.astype(np.float64), RAMP[None], None, Image.fromarray(BYTES)])
def test_the_pixels_of_a_slice_are_an_array_of_float32(pixels):
    with pytest.raises(CascadeError, match="float32"):
        Slice(pixels)


VOLUME = np.arange(4 * 20 * 30, dtype=np.int16).reshape(4, 20, 30)


def test_the_slices_of_an_array_lie_along_its_first_axis_or_the_one_that_is_named():
    for axis in (None, 0, 1, 2):
        volume = ArrayVolume(np.moveaxis(VOLUME, 0, axis or 0), axis)
        assert volume.count == 4
        assert [volume.read(index).pixels.tolist() for index in range(4)] == VOLUME.tolist()
    assert ArrayVolume(VOLUME[0]).read(0).pixels.tolist() == VOLUME[0].tolist()
    assert ArrayVolume(VOLUME[0][..., None]).read(0).pixels.tolist() == VOLUME[0].tolist()
    assert ArrayVolume(list(VOLUME)).read(3).pixels.tolist() == VOLUME[3].tolist()


@pytest.mark.parametrize("spacing", [(0.5, 0.7), (5, 0.5, 0.7), np.array([5, 0.5, 0.7])])
def test_the_spacing_of_a_volume_is_that_of_its_pixels_or_of_all_axes(spacing):
    assert ArrayVolume(VOLUME, spacing_mm=spacing).read(0).spacing_mm == pytest.approx((0.5, 0.7))


def test_the_spacing_of_the_slice_axis_is_left_out():
    assert ArrayVolume(np.moveaxis(VOLUME, 0, 2), 2, (0.5, 0.7, 5)).read(0).spacing_mm == pytest.approx((0.5, 0.7))


@pytest.mark.parametrize(
    ("source", "axis", "spacing"),
    [
        (np.zeros(9), None, None),
        (np.zeros((2, 3, 20, 30)), None, None),
        (VOLUME, 3, None),
        (VOLUME, "z", None),
        (VOLUME.tolist(), 2, None),
        (VOLUME, None, 0.5),
        (VOLUME, None, "0.5"),
        (VOLUME, None, (1, 2, 3, 4)),
        (VOLUME.astype(bool), None, None),
        ([], None, None),
        (None, None, None),
    ],
)
def test_another_volume_axis_or_spacing_is_refused(source, axis, spacing):
    with pytest.raises(CascadeError):
        ArrayVolume(source, axis, spacing).read(0)
