"""The slices of one part of a split, in memory, as torch data sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torchvision import tv_tensors

from cascade.contract import CLASS_NAMES, THRESHOLD, FloatArray
from cascade.datasets.dataset import read_labelled
from cascade.datasets.figshare import person
from cascade.datasets.split import SplitSlice, check_files
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.files import sha256_of_bytes
from cascade.io.image import read_slice
from cascade.io.preprocess import Letterbox
from train.augment import augmentation, jitter_mask
from train.region import segmenter_input
from train.tumor_free import TumorFree


class SliceStore:
    """Slices and masks as the graphs take them, but scaled to 0 .. 1 so that half precision holds them.

    slices  (S, 1, SLICE_SIZE, SLICE_SIZE) float16; the graphs' normalisation undoes the scaling.
    masks   (S, 1, SLICE_SIZE, SLICE_SIZE) bool.
    labels  (S,) int64, index into CLASS_NAMES.
    people  (S,) int64, the same number for slices of one person.

    Raises CascadeError, naming the file, where one is not that of the split, cannot be used or has an empty mask.
    """

    def __init__(self, folder: Path, items: list[SplitSlice], description: str) -> None:
        check_files(folder, items)
        slices, masks, labels, people = [], [], [], [person(item.patient) for item in items]
        for item in track(items, description, console=Console(stderr=True)):
            found = read_labelled(folder, item)
            if not found.mask.any():
                raise CascadeError(
                    f"{folder / item.path}: is labelled {found.label} but its mask is empty",
                    fix="mend the mask or leave the slice out, and write a new split",
                )
            slices.append(unit_square(found.pixels))
            masks.append(Letterbox(*found.mask.shape).square(found.mask.astype(np.float32)) >= 0.5)
            labels.append(CLASS_NAMES.index(found.label))
        self.slices = torch.from_numpy(np.stack(slices))[:, None]
        self.masks = torch.from_numpy(np.stack(masks))[:, None]
        self.labels = torch.tensor(labels)
        self.people = torch.tensor([people.index(name) for name in people])

    def __len__(self) -> int:
        return len(self.labels)


def unit_square(pixels: FloatArray) -> NDArray[np.float16]:
    """(H, W) of any range → (SLICE_SIZE, SLICE_SIZE), 0 .. 1."""
    low, high = pixels.min(), pixels.max()
    return Letterbox(*pixels.shape).square((pixels - low) / (high - low)).astype(np.float16)


def read_healthy(folder: Path) -> Tensor:
    """(K, 1, SEGMENTER_SIZE, SEGMENTER_SIZE) float16 in 0 .. 1: all slices in a folder.

    Raises CascadeError where there is none, or one cannot be read.
    """
    inputs = find_slices([folder])
    for error in inputs.problems.values():
        raise error
    squares = (
        torch.from_numpy(unit_square(read_slice(inputs.folder / name).pixels))[None, None].float()
        for name in track(inputs.names, "reading healthy slices", console=Console(stderr=True))
    )
    return torch.cat([segmenter_input(square).half() for square in squares])


def sha256_of_tensor(tensor: Tensor) -> str:
    """Hex digest of its numbers' bytes."""
    return sha256_of_bytes(tensor.numpy().tobytes())


class SegmenterData(Dataset[tuple[Tensor, Tensor]]):
    """(slice, mask), each (1, SEGMENTER_SIZE, SEGMENTER_SIZE) float32; the mask is the tumor's share of each pixel.

    augment     draws each slice anew in the ways of train/augment.py.
    tumor_free  share of the slices that come without their tumor and with an empty mask.
    retouched   share of the slices that come with other tissue somewhere beside their tumor.
    healthy     (K, 1, SEGMENTER_SIZE, SEGMENTER_SIZE), slices of healthy heads; they are half of `tumor_free`.
    """

    def __init__(
        self,
        store: SliceStore,
        *,
        augment: bool = False,
        tumor_free: float = 0.0,
        retouched: float = 0.0,
        healthy: Tensor | None = None,
    ) -> None:
        # Pooled in pieces: all at once in float32 would need gigabytes for a moment.
        self.slices = torch.cat([segmenter_input(piece.float()).half() for piece in store.slices.split(64)])
        self.masks = torch.cat([segmenter_input(piece.float()).half() for piece in store.masks.split(64)])
        self.editor = TumorFree(self.slices, self.masks, store.people) if tumor_free or retouched else None
        self.tumor_free, self.retouched, self.healthy = tumor_free, retouched, healthy
        self.augment: Callable[..., tuple[Tensor, Tensor]] | None = augmentation() if augment else None

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self._pair(index)
        return _plain(self.augment(tv_tensors.Image(pair[0]), tv_tensors.Mask(pair[1]))) if self.augment else pair

    def _pair(self, index: int) -> tuple[Tensor, Tensor]:
        mask = self.masks[index].float()
        if self.editor:
            chance = float(torch.rand(()))
            if self.healthy is not None and chance < self.tumor_free / 2:
                return self.healthy[int(torch.randint(len(self.healthy), ()))].float(), torch.zeros_like(mask)
            if chance < self.tumor_free:
                return self.editor.without_tumor(index), torch.zeros_like(mask)
            if chance < self.tumor_free + self.retouched:
                return self.editor.retouched(index), mask
        return self.slices[index].float(), mask


def tumor_free_copies(data: SegmenterData, people: Tensor) -> TensorDataset:
    """Each slice once without its tumor, with an empty mask; always the same ones."""
    editor = TumorFree(data.slices, data.masks, people)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would set the GPUs' as well
        slices = torch.stack([editor.without_tumor(index) for index in range(len(data))])
    return TensorDataset(slices, torch.zeros_like(slices))


class ClassifierData(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """(slice, mask, label): (1, SLICE_SIZE, SLICE_SIZE) float16 and bool, and an index into CLASS_NAMES.

    found  (S, 1, SLICE_SIZE, SLICE_SIZE) bool, where the segmenter sees tumor. In training half of the masks are these
           and half the true ones, jittered, then augmented with the slice; without augmentation all are these.
    """

    def __init__(self, store: SliceStore, found: Tensor, *, augment: bool) -> None:
        self.store, self.found = store, found
        self.augment: Callable[..., tuple[Tensor, Tensor]] | None = augmentation() if augment else None

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        slices, label = self.store.slices[index], self.store.labels[index]
        found, true = self.found[index], self.store.masks[index]
        if self.augment is None:
            return slices, found, label
        mask = true if not found.any() or torch.rand(()) < 0.5 else found
        pair = self.augment(tv_tensors.Image(slices.float()), tv_tensors.Mask(jitter_mask(mask.float())))
        slices, mask = _plain(pair)
        return slices.half(), mask >= THRESHOLD, label


def _plain(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].as_subclass(Tensor), pair[1].as_subclass(Tensor)
