"""What the cascade returns: the `Prediction` of a slice and the `VolumePrediction` of a volume."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cascade.contract import Box, FloatArray
from cascade.volume.finding import VolumeFinding

BLANK_NOTE = "blank"
"""Note on a slice of a volume in which every pixel has the same value."""


@dataclass(frozen=True, eq=False)  # eq=False: `==` on arrays returns no single bool
class Prediction:
    """Mask and class of one slice of H x W pixels.

    Attributes:
        mask: (H, W) bool, True on tumor, on the pixel grid of the input slice.
        box: Region that the classifier saw, in pixels; None if the mask is empty.
        probabilities: Class name → probability; they sum to 1. Empty if the mask is empty.
        latency_ms: Time of both models for the batch, divided by the number of slices in it.
        uncertain: True if the highest probability is below the calibrated threshold; False if the mask is empty.
        notes: Remarks on the input, for example that its orientation is unknown, or that NaN was replaced.
        evidence: Highest tumor probability of a pixel, 0 to 1, also where it is too low for the mask.
        mask_probability: (K,) float32, tumor probability of each of the K pixels of the mask, row by row, 0 to 1.
        probability_map: (H, W) float32, tumor probability of each pixel, 0 to 1. The mask is where it is at least
            `contract.THRESHOLD`. None unless requested.
    """

    mask: NDArray[np.bool_]
    box: Box | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    latency_ms: float = 0.0
    uncertain: bool = False
    notes: tuple[str, ...] = ()
    evidence: float = 0.0
    mask_probability: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    probability_map: FloatArray | None = None

    @classmethod
    def blank(cls, shape: tuple[int, ...], *, probability_map: bool = False) -> "Prediction":
        """Return the prediction of a blank slice (H, W) of a volume, which does not go through the models."""
        zeros = np.zeros(shape, dtype=np.float32) if probability_map else None
        return cls(np.zeros(shape, dtype=bool), notes=(BLANK_NOTE,), probability_map=zeros)

    @property
    def label(self) -> str | None:
        """Most probable class; None if the mask is empty."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


@dataclass(frozen=True, eq=False)
class VolumePrediction:
    """What the cascade found in a volume of N slices.

    Attributes:
        finding: Tumor or not, class, volume and diameters.
        slices: One prediction per slice, in the order of the volume. Each stands alone: it also holds what the
            finding rejects, because its neighbors do not support it.
        mask: (N, H, W) bool, True on the tumor that the finding accepts.
        probability_map: (N, H, W) float32, tumor probability of each pixel, also in what the finding rejects; 0 in
            blank slices. None unless requested.
    """

    finding: VolumeFinding
    slices: tuple[Prediction, ...]
    mask: NDArray[np.bool_]
    probability_map: FloatArray | None = None
