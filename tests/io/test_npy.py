"""Arrays that NumPy saved: two axes are a slice, three a stack; nothing but numbers is loaded."""

from __future__ import annotations

import io
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image

from cascade.errors import CascadeError
from cascade.io.npy import open_npy
from cascade.io.open import open_source

STACK = np.random.default_rng(0).integers(1, 1000, (5, 20, 24)).astype(np.int16)


def saved(folder, array, name="a.npy"):
    np.save(folder / name, array)
    return folder / name


def with_header(folder, header, size=2000):
    """Write a file of this header and `size` zeros."""
    text = repr(header).encode() if isinstance(header, dict) else header
    (folder / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(size))
    return folder / "a.npy"


def header(shape, descr="<i2"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


@pytest.mark.parametrize("kind", ["u1", "<i2", ">u2", "<i8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_stack_lies_along_its_first_axis_and_its_mask_is_an_array_of_its_shape(tmp_path, kind, order):
    array = np.asarray((STACK % 250).astype(kind), order=order)
    source = open_npy(saved(tmp_path, array), "a.npy")
    assert (source.count, source.mask_suffix, source.slab_mm, source.notes) == (5, ".npy", None, ())
    assert np.array_equal([source.read(index).pixels for index in range(5)], array)
    assert source.read(0).spacing_mm is None
    mask = np.load(io.BytesIO(source.mask_bytes(array > 200)))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, array > 200)


@pytest.mark.parametrize("axis", [1, 2])
def test_another_axis_can_be_chosen(tmp_path, axis):
    source = open_npy(saved(tmp_path, STACK.repeat(4, axis=0)), "a.npy", axis)
    assert np.array_equal(source.read(3).pixels, STACK.repeat(4, axis=0).take(3, axis))
    masks = np.stack([source.read(index).pixels > 900 for index in range(source.count)])
    assert np.array_equal(np.load(io.BytesIO(source.mask_bytes(masks))), STACK.repeat(4, axis=0) > 900)


def test_two_axes_are_a_slice_with_a_png_mask(tmp_path):
    source = open_npy(saved(tmp_path, STACK[2]), "a.npy")
    assert (source.count, source.mask_suffix) == (1, ".png")
    assert np.array_equal(source.read(0).pixels, STACK[2])
    mask = np.asarray(Image.open(io.BytesIO(source.mask_bytes(STACK[2:3] > 900))))
    assert np.array_equal(mask, 255 * (STACK[2] > 900))


def test_a_last_axis_of_one_element_is_the_slice_axis(tmp_path):
    source = open_npy(saved(tmp_path, STACK[2][..., None]), "a.npy")
    assert source.count == 1
    assert np.array_equal(source.read(0).pixels, STACK[2])
    assert np.load(io.BytesIO(source.mask_bytes(STACK[2:3] > 900))).shape == (20, 24, 1)


def test_an_array_is_recognized_by_its_content(tmp_path):
    path = saved(tmp_path, STACK).rename(tmp_path / "a.png")
    assert open_source(path).count == 5


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (STACK.astype(np.complex64), "complex64"),
        (STACK > 3, "bool"),
        (STACK.astype("U3"), "<U"),
        (STACK.astype(object), "object"),
        (STACK.astype("M8[s]"), "datetime64"),
        (np.zeros((20, 20), [("a", "u1"), ("b", "f4")]), "'a'"),
        (STACK.astype(np.longdouble), "float128"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_number_is_refused_by_its_name(tmp_path, array, name):
    with pytest.raises(CascadeError, match=name) as raised:
        open_npy(saved(tmp_path, array), "a.npy")
    assert "a.npy" in raised.value.problem


@pytest.mark.parametrize("shape", [(40, 48, 3), (40, 48, 4)], ids=str)
def test_a_picture_in_color_is_refused_as_such(tmp_path, shape):
    """Once, it was a stack of slices that are 3 pixels wide, with the advice to give wider ones."""
    path = saved(tmp_path, np.zeros(shape, np.uint8))
    with pytest.raises(CascadeError, match="channels") as raised:
        open_npy(path, "a.npy")
    assert "(height, width)" in raised.value.fix
    assert open_npy(path, "a.npy", axis=2).count == shape[2]


@pytest.mark.parametrize("shape", [(), (400,), (2, 2, 20, 20), (0, 20, 20), (3, 5, 400)], ids=str)
def test_other_shapes_are_refused(tmp_path, shape):
    with pytest.raises(CascadeError, match=r"a\.npy"):
        open_npy(saved(tmp_path, np.zeros(shape, np.float32)), "a.npy")


@pytest.mark.parametrize(
    "content",
    [
        header((2**40, 2**40)),
        header((-20, 20)),
        header((40, 40, 40)),
        header((10**4000, 20)),
        header((20, 20), descr="<i999999999"),
        header((20, True)),
        {"shape": (20, 20)},
        b"__import__('os').abort()",
        b"(" * 9000,
        b"",
    ],
    ids=["huge", "negative", "more than the file", "number", "type", "bool", "incomplete", "code", "nested", "empty"],
)
def test_a_false_header_is_refused_before_memory_is_allocated_and_nothing_is_printed(tmp_path, content):
    path = with_header(tmp_path, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CascadeError, match=r"a\.npy"):
            open_npy(path, "a.npy")


def test_pickled_objects_are_not_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return print, ("loaded",)

    content = np.empty((20, 20), object)
    content[:] = 1
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:128] + pickle.dumps(Bomb.__name__))
    with pytest.raises(CascadeError, match="object"):
        open_npy(tmp_path / "a.npy", "a.npy")
