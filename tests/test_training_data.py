"""What the trainings are given: slices of the split's own files, with masks, half of them found and half true."""

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from cascade.errors import CascadeError
from cascade.files import sha256_of
from cascade.split import SplitSlice
from train.dataset import SliceStore, read_healthy

ITEM = {"mask": "", "label": "meningioma", "patient": "7", "part": "train"}


def test_a_slice_that_is_not_the_one_of_the_split_is_not_trained_on(tmp_path, write_mat):
    item = SplitSlice("1.mat", sha256=sha256_of(write_mat(tmp_path / "1.mat")), **ITEM)
    assert len(SliceStore(tmp_path, [item], "reading")) == 1
    write_mat(tmp_path / "1.mat", patient="8")
    with pytest.raises(CascadeError, match=r"1\.mat: is not the file the split was made of"):
        SliceStore(tmp_path, [item], "reading")


def test_a_slice_with_an_empty_mask_is_refused_by_name(tmp_path, write_mat):
    path = write_mat(tmp_path / "1.mat", mask=np.zeros((20, 30), np.uint8))
    with pytest.raises(CascadeError, match=r"1\.mat: is labelled meningioma but its mask is empty"):
        SliceStore(tmp_path, [SplitSlice("1.mat", sha256=sha256_of(path), **ITEM)], "reading")


def test_healthy_slices_of_any_size_are_read(tmp_path):
    for name, side in (("a.png", 64), ("b.png", 700)):
        Image.fromarray(np.tile(np.linspace(0, 200, side).astype(np.uint8), (side, 1))).save(tmp_path / name)
    found = read_healthy(tmp_path)
    assert found.shape == (2, 1, 256, 256)
    assert found.dtype == torch.float16
    assert found[:, 0, 128, [0, 128, 255]].tolist() == [pytest.approx([0, 0.5, 1], abs=0.02)] * 2


def test_a_healthy_slice_that_cannot_be_read_is_told(tmp_path):
    Image.fromarray(np.arange(4096, dtype=np.uint16).astype(np.uint8).reshape(64, 64)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(CascadeError, match=r"b\.png"):
        read_healthy(tmp_path)
