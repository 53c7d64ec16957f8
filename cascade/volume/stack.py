"""What the models computed for the slices of one volume."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.contract import CLASS_NAMES, FloatArray

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)  # eq=False: the comparison of arrays gives an array
class Stack:
    """Predictions of N slices of H x W pixels, in their order in space.

    Attributes:
        masks: (N, H, W) bool, True on tumor.
        mask_probability: For each slice, the tumor probability of each pixel of its mask, row by row, float32, 0 to 1.
        class_probability: (N, 3) float32, rows sum to 1; zeros where the mask is empty.
        spacing_mm: Distance between pixel centers in millimeters: (row, column). None if unknown.
        slab_mm: N numbers: how much of the volume each slice stands for, in millimeters along the normal: half of the
            distances to the slices before and after it, so that gaps count. None if unknown.
    """

    masks: BoolArray
    mask_probability: list[FloatArray]
    class_probability: FloatArray
    spacing_mm: tuple[float, float] | None = None
    slab_mm: tuple[float, ...] | None = None

    @classmethod
    def empty(
        cls,
        shape: tuple[int, ...],
        spacing_mm: tuple[float, float] | None = None,
        slab_mm: tuple[float, ...] | None = None,
    ) -> "Stack":
        """Return a stack of N slices of H x W pixels without a tumor, to be filled by `put`."""
        count = shape[0]
        mask_probability = [np.zeros(0, np.float32)] * count
        class_probability = np.zeros((count, len(CLASS_NAMES)), np.float32)
        return cls(np.zeros(shape, dtype=bool), mask_probability, class_probability, spacing_mm, slab_mm)

    def put(
        self, index: int, mask: BoolArray, mask_probability: FloatArray, class_probability: Iterable[float]
    ) -> None:
        """Set the prediction of a slice.

        Args:
            index: Index of the slice.
            mask: (H, W) bool.
            mask_probability: (K,) float32, tumor probability of each of the K pixels of the mask, row by row.
            class_probability: In the order of CLASS_NAMES; empty if the mask is empty.
        """
        self.masks[index] = mask
        self.mask_probability[index] = mask_probability
        self.class_probability[index] = tuple(class_probability) or 0.0
