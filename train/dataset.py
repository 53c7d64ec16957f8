"""The slices of one part of a split, in memory, as torch data sets."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import subject_id
from cascade.datasets.reader import read_labeled
from cascade.datasets.split import SplitSlice, check_files
from cascade.errors import CascadeError
from cascade.io.preprocess import Letterbox
from cascade.io.slices import Slice
from train.inpainting import TumorInpainter
from train.preprocessing import segmenter_input


class SliceStore:
    """Slices and masks as the graphs take them, but scaled to 0 to 1 so that half precision holds them.

    Attributes:
        slices: (S, 1, SLICE_SIZE, SLICE_SIZE) float16; the graphs' normalization undoes the scaling.
        masks: (S, 1, SLICE_SIZE, SLICE_SIZE) bool.
        labels: (S,) int64, index into CLASS_NAMES.
        subjects: (S,) int64, equal for slices of one subject.

    Raises:
        CascadeError: A file is not that of the split, cannot be read or has an empty mask; the message names it.
    """

    def __init__(self, folder: Path, items: list[SplitSlice], description: str) -> None:
        check_files(folder, items)
        slices, masks, labels, subjects = [], [], [], [subject_id(item.patient) for item in items]
        for item in track(items, description, console=Console(stderr=True)):
            labeled = read_labeled(folder, item)
            if not labeled.mask.any():
                raise CascadeError(
                    f"{folder / item.path}: is labeled {labeled.label} but its mask is empty",
                    fix="correct the mask or remove the slice, and write a new split",
                )
            slice_ = Slice(labeled.pixels, labeled.spacing_mm)
            slices.append(unit_square(slice_))
            masks.append(Letterbox.of(slice_).square(labeled.mask.astype(np.float32)) >= 0.5)
            labels.append(CLASS_NAMES.index(labeled.label))
        self.slices = torch.from_numpy(np.stack(slices))[:, None]
        self.masks = torch.from_numpy(np.stack(masks))[:, None]
        self.labels = torch.tensor(labels)
        self.subjects = torch.tensor([subjects.index(name) for name in subjects])

    def __len__(self) -> int:
        return len(self.labels)


def unit_square(slice_: Slice) -> NDArray[np.float16]:
    """Scale the pixels of a slice to 0 to 1, on the (SLICE_SIZE, SLICE_SIZE) square that the graphs take."""
    low, high = slice_.pixels.min(), slice_.pixels.max()
    return Letterbox.of(slice_).square((slice_.pixels - low) / (high - low)).astype(np.float16)


class SegmenterData(Dataset[tuple[Tensor, Tensor]]):
    """The slices of a store as the segmenter sees them, without any change.

    Attributes:
        slices: (S, 1, SEGMENTER_SIZE, SEGMENTER_SIZE) float16.
        masks: (S, 1, SEGMENTER_SIZE, SEGMENTER_SIZE) float16, the tumor's share of each pixel.

    Each item is a slice, (1, SEGMENTER_SIZE, SEGMENTER_SIZE) float32, and its target,
    (2, SEGMENTER_SIZE, SEGMENTER_SIZE) float32: the tumor's share of each pixel, and the share that is uncertain (0).
    """

    def __init__(self, store: SliceStore) -> None:
        self.slices, self.masks = pooled(store.slices), pooled(store.masks)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.slices[index].float(), certain(self.masks[index].float())


def pooled(planes: Tensor) -> Tensor:
    """(N, C, SLICE_SIZE, SLICE_SIZE) → (N, C, SEGMENTER_SIZE, SEGMENTER_SIZE) float16."""
    # In pieces: all at once in float32 would need gigabytes for a moment.
    return torch.cat([segmenter_input(piece.float()).half() for piece in planes.split(64)])


def certain(mask: Tensor) -> Tensor:
    """A mask (1, H, W) as a target (2, H, W) without uncertain pixels."""
    return torch.cat([mask, torch.zeros_like(mask)])


def inpainted_copies(data: SegmenterData, subjects: Tensor) -> TensorDataset:
    """Each slice with its tumor removed and an empty target; the same ones in every call."""
    inpainter = TumorInpainter(data.slices, data.masks, subjects)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would set the GPUs' as well
        slices = torch.stack([inpainter.inpaint(index) for index in range(len(data))])
    return TensorDataset(slices, torch.zeros_like(slices).repeat(1, 2, 1, 1))


class ClassifierData(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The slices of a store with the segmenter's masks.

    Each item is a slice, (1, SLICE_SIZE, SLICE_SIZE) float16, a mask of the same shape, bool, and an index into
    CLASS_NAMES.

    Args:
        store: The slices.
        predicted: (S, 1, SLICE_SIZE, SLICE_SIZE) bool, the segmenter's masks.
    """

    def __init__(self, store: SliceStore, predicted: Tensor) -> None:
        self.store, self.predicted = store, predicted

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.store.slices[index], self.predicted[index], self.store.labels[index]


def without_tv(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The two as plain tensors."""
    return pair[0].as_subclass(Tensor), pair[1].as_subclass(Tensor)
