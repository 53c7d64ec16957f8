"""Slices from other scanners in memory, with what is certain about their pixels and how often each is drawn."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy import ndimage
from torch import Tensor

from cascade.contract import CLASS_NAMES, SLICE_SIZE
from cascade.datasets.reader import read_mask
from cascade.errors import CascadeError
from cascade.io.image import read_slice
from cascade.io.preprocess import Letterbox
from train.dataset import unit_square
from train.external import NEGATIVE, ExternalSlice

UNCERTAIN_RING = 50
"""Width in pixels of a SLICE_SIZE slice of the uncertain ring around an `outside_uncertain` mask (24 mm)."""


class ExternalStore:
    """External slices in memory.

    Attributes:
        items: The slices, in the order of the tensors.
        slices: (E, 1, SLICE_SIZE, SLICE_SIZE) float16, 0 to 1.
        targets: (E, 2, SLICE_SIZE, SLICE_SIZE) bool. Channel 0 is certainly tumor, channel 1 is uncertain.
        labels: (E,) int64, index into CLASS_NAMES, -1 for tumor-free slices.
        subjects: (E,) int64, equal for slices of one subject.
        weights: (E,) float64, how often each slice is drawn: the weight of its set, shared evenly among the set's
            subjects and then among the slices of each subject.

    Raises:
        CascadeError: A slice or mask cannot be read or does not fit; the message names the file.
    """

    def __init__(self, items: Sequence[ExternalSlice], description: str) -> None:
        self.items = list(items)
        self.slices = torch.zeros(len(items), 1, SLICE_SIZE, SLICE_SIZE, dtype=torch.float16)
        self.targets = torch.zeros(len(items), 2, SLICE_SIZE, SLICE_SIZE, dtype=torch.bool)
        for index, item in enumerate(track(self.items, description, console=Console(stderr=True))):
            slice_ = read_slice(item.path)
            self.slices[index, 0] = torch.from_numpy(unit_square(slice_))
            if item.label != NEGATIVE:
                self.targets[index] = torch.from_numpy(_target(item, Letterbox.of(slice_)))
        self.labels = torch.tensor(
            [-1 if item.label == NEGATIVE else CLASS_NAMES.index(item.label) for item in self.items], dtype=torch.int64
        )
        names = {name: number for number, name in enumerate(dict.fromkeys(item.subject for item in self.items))}
        self.subjects = torch.tensor([names[item.subject] for item in self.items], dtype=torch.int64)
        self.weights = sampling_weights(self.items)

    def __len__(self) -> int:
        return len(self.items)


def _target(item: ExternalSlice, letterbox: Letterbox) -> NDArray[np.bool_]:
    """(2, SLICE_SIZE, SLICE_SIZE): certainly tumor, uncertain."""
    if item.mask is None:
        return np.stack([np.zeros((SLICE_SIZE, SLICE_SIZE), bool), np.ones((SLICE_SIZE, SLICE_SIZE), bool)])
    mask = read_mask(item.mask)
    if mask.shape != (shape := (letterbox.height, letterbox.width)):
        raise CascadeError(
            f"{item.mask}: mask {mask.shape} and slice {shape} differ in size",
            fix="draw the mask on the slice's own pixel grid",
        )
    if not mask.any():
        raise CascadeError(f"{item.mask}: is empty", fix="name the slice's class `none`, or mend the mask")
    square = letterbox.square(mask.astype(np.float32)) >= 0.5
    if item.mask_kind == "exact":
        return np.stack([square, np.zeros_like(square)])
    if item.mask_kind == "inside_uncertain":
        return np.stack([np.zeros_like(square), square])
    near: NDArray[np.bool_] = ndimage.distance_transform_edt(~square) <= UNCERTAIN_RING
    return np.stack([square, near & ~square])


def sampling_weights(items: Sequence[ExternalSlice]) -> Tensor:
    """(E,) float64, see `ExternalStore.weights`."""
    slices_of: dict[str, int] = {}
    subjects_of: dict[str, set[str]] = {}
    for item in items:
        slices_of[item.subject] = slices_of.get(item.subject, 0) + 1
        subjects_of.setdefault(item.set_name, set()).add(item.subject)

    def weight(item: ExternalSlice) -> float:
        subjects = len(subjects_of[item.set_name])
        of_set = float(subjects**0.5) if item.set_weight is None else item.set_weight
        return of_set / subjects / slices_of[item.subject]

    return torch.tensor([weight(item) for item in items], dtype=torch.float64)
