"""What the trainings are given: slices of the split's own files, with masks, half of them found and half true."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import train.dataset
from cascade.datasets.split import SplitSlice
from cascade.errors import CascadeError
from cascade.files import sha256_of
from train.dataset import ClassifierData, SliceStore, read_healthy

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


@pytest.fixture
def store():
    """One slice, its tumor at the top."""
    masks = torch.zeros(1, 1, 512, 512, dtype=torch.bool)
    masks[..., 100:200, 100:200] = True
    return SimpleNamespace(slices=torch.rand(1, 1, 512, 512).half(), masks=masks, labels=torch.tensor([2]))


@pytest.fixture
def as_they_are(monkeypatch):
    """No mask jittered, nothing augmented."""
    monkeypatch.setattr(train.dataset, "augmentation", lambda: lambda *pair: pair)
    monkeypatch.setattr(train.dataset, "jitter_mask", lambda mask: mask)


def test_the_classifier_is_validated_with_the_masks_that_were_found(store):
    found = store.masks.flip(2)
    slices, mask, label = ClassifierData(store, found, augment=False)[0]
    assert torch.equal(slices, store.slices[0])
    assert torch.equal(mask, found[0])
    assert label == 2


def test_the_classifier_trains_with_half_of_the_masks_true_and_half_found(store, as_they_are):
    found = store.masks.flip(2)
    data = ClassifierData(store, found, augment=True)
    torch.manual_seed(0)
    masks = [data[0][1] for _ in range(100)]
    assert all(torch.equal(mask, store.masks[0]) or torch.equal(mask, found[0]) for mask in masks)
    assert 30 < sum(torch.equal(mask, found[0]) for mask in masks) < 70


def test_the_classifier_trains_with_the_true_mask_where_none_was_found(store, as_they_are):
    data = ClassifierData(store, torch.zeros_like(store.masks), augment=True)
    assert all(torch.equal(data[0][1], store.masks[0]) for _ in range(10))


@pytest.mark.parametrize("augment", [False, True])
def test_workers_hand_over_half_precision_and_bits(store, augment):
    """Float32 twice was 2 MB a slice, and the classifier takes no more from it."""
    slices, mask, _ = ClassifierData(store, store.masks, augment=augment)[0]
    assert (slices.dtype, mask.dtype) == (torch.float16, torch.bool)


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
