"""The stores that both trainings read from: slices of the split's own files, with masks and classes."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cascade.datasets.split import SplitSlice
from cascade.errors import CascadeError
from cascade.files import sha256_of
from train.dataset import ClassifierData, SegmenterData, SliceStore

ITEM = {"mask": "", "label": "meningioma", "patient": "7", "part": "train"}


def test_a_slice_that_is_not_the_one_of_the_split_is_not_trained_on(tmp_path, write_mat):
    item = SplitSlice("1.mat", sha256=sha256_of(write_mat(tmp_path / "1.mat")), **ITEM)
    assert len(SliceStore(tmp_path, [item], "reading")) == 1
    write_mat(tmp_path / "1.mat", patient="8")
    with pytest.raises(CascadeError, match=r"1\.mat: has changed since the split was made"):
        SliceStore(tmp_path, [item], "reading")


def test_a_slice_with_an_empty_mask_is_refused_by_name(tmp_path, write_mat):
    path = write_mat(tmp_path / "1.mat", mask=np.zeros((20, 30), np.uint8))
    with pytest.raises(CascadeError, match=r"1\.mat: is labeled meningioma but its mask is empty"):
        SliceStore(tmp_path, [SplitSlice("1.mat", sha256=sha256_of(path), **ITEM)], "reading")


@pytest.fixture
def store():
    """One slice, its tumor at the top."""
    masks = torch.zeros(1, 1, 512, 512, dtype=torch.bool)
    masks[..., 100:200, 100:200] = True
    return SimpleNamespace(slices=torch.rand(1, 1, 512, 512).half(), masks=masks, labels=torch.tensor([2]))


def test_the_classifier_is_validated_with_the_segmenters_masks(store):
    predicted = store.masks.flip(2)
    slices, mask, label = ClassifierData(store, predicted)[0]
    assert torch.equal(slices, store.slices[0])
    assert torch.equal(mask, predicted[0])
    assert label == 2
    assert (slices.dtype, mask.dtype) == (torch.float16, torch.bool)


def test_the_segmenter_is_validated_with_certain_targets(store):
    slice_, target = SegmenterData(SimpleNamespace(slices=store.slices, masks=store.masks))[0]
    assert slice_.shape == (1, 256, 256)
    assert target.shape == (2, 256, 256)
    assert torch.equal(target[0], store.masks[0, 0, ::2, ::2].float())
    assert target[1].max() == 0
