"""The slices of one part of a split, in memory, as torch data sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from cascade.contract import CLASS_NAMES
from cascade.dataset import read_labelled
from cascade.slices import Letterbox
from cascade.split import SplitSlice
from train.augment import augmentation, jitter_mask
from train.region import segmenter_input


class SliceStore:
    """Slices and masks as the graphs take them, but scaled to 0 .. 1 so that half precision holds them.

    slices  (S, 1, SLICE_SIZE, SLICE_SIZE) float16; the graphs' normalisation undoes the scaling.
    masks   (S, 1, SLICE_SIZE, SLICE_SIZE) bool.
    labels  (S,) int64, index into CLASS_NAMES.
    """

    def __init__(self, folder: Path, items: list[SplitSlice], description: str) -> None:
        slices, masks, labels = [], [], []
        for item in track(items, description, console=Console(stderr=True)):
            found = read_labelled(folder, item)
            letterbox = Letterbox(*found.pixels.shape)
            low, high = found.pixels.min(), found.pixels.max()
            slices.append(letterbox.square((found.pixels - low) / (high - low)).astype(np.float16))
            masks.append(letterbox.square(found.mask.astype(np.float32)) >= 0.5)
            labels.append(CLASS_NAMES.index(found.label))
        self.slices = torch.from_numpy(np.stack(slices))[:, None]
        self.masks = torch.from_numpy(np.stack(masks))[:, None]
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.labels)


class SegmenterData(Dataset[tuple[Tensor, Tensor]]):
    """(slice, mask), each (1, SEGMENTER_SIZE, SEGMENTER_SIZE) float32; the mask is the tumor's share of each pixel."""

    def __init__(self, store: SliceStore, *, augment: bool) -> None:
        # Pooled in pieces: all at once in float32 would need gigabytes for a moment.
        self.slices = torch.cat([segmenter_input(piece.float()).half() for piece in store.slices.split(64)])
        self.masks = torch.cat([segmenter_input(piece.float()).half() for piece in store.masks.split(64)])
        self.augment: Callable[..., tuple[Tensor, Tensor]] | None = augmentation() if augment else None

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.slices[index].float(), self.masks[index].float()
        return _plain(self.augment(tv_tensors.Image(pair[0]), tv_tensors.Mask(pair[1]))) if self.augment else pair


class ClassifierData(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """(slice, mask, label): (1, SLICE_SIZE, SLICE_SIZE) float32 twice, and an index into CLASS_NAMES.

    found  (S, 1, SLICE_SIZE, SLICE_SIZE) bool, where the segmenter sees tumor. In training half of the masks are these
           and half the true ones, jittered, then augmented with the slice; without augmentation all are these.
    """

    def __init__(self, store: SliceStore, found: Tensor, *, augment: bool) -> None:
        self.store, self.found = store, found
        self.augment: Callable[..., tuple[Tensor, Tensor]] | None = augmentation() if augment else None

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        slices, label = self.store.slices[index].float(), self.store.labels[index]
        found, true = self.found[index], self.store.masks[index]
        if self.augment is None:
            return slices, found.float(), label
        mask = true if not found.any() or torch.rand(()) < 0.5 else found
        pair = self.augment(tv_tensors.Image(slices), tv_tensors.Mask(jitter_mask(mask.float())))
        return *_plain(pair), label


def _plain(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].as_subclass(Tensor), pair[1].as_subclass(Tensor)
