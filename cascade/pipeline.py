"""START HERE: `Cascade.predict` takes a slice through both models and returns a `Prediction`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.backends import AUTO, Backend, FloatArray, Outputs, open_backend
from cascade.contract import CLASS_NAMES, THRESHOLD, Box
from cascade.engines import ENGINES
from cascade.errors import CascadeError
from cascade.graphs import SHIPPED
from cascade.slices import Letterbox, Slice


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Prediction:
    """What the cascade found in one slice of H x W pixels.

    mask           (H, W) bool, True on tumor, on the pixel grid of the input slice.
    box            where the classifier looked, pixels; None when the mask is empty.
    probabilities  one a class name, summing to 1; empty when the mask is empty.
    latency_ms     the models' time for the slice's batch, divided by the batch's length.
    """

    mask: NDArray[np.bool_]
    box: Box | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    latency_ms: float = 0.0

    @property
    def label(self) -> str | None:
        """The most probable class; None when the mask is empty."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


class Cascade:
    """Both graphs, loaded into one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    def open(cls, models: Path = SHIPPED, backend: str = AUTO, engines: Path = ENGINES) -> "Cascade":
        """Loads the graphs of a models folder, the shipped ones by default, into the fastest backend that can run.

        Raises CascadeError for a folder whose files models.json does not vouch for, or a backend that cannot run here.
        """
        return cls(open_backend(backend, models, engines).backend)

    def predict(self, slice_: Slice) -> Prediction:
        """What there is in one slice."""
        return self.predict_batch([slice_])[0]

    def predict_batch(self, slices: Sequence[Slice]) -> list[Prediction]:
        """What there is in each of the slices, which may differ in size."""
        return self.begin(slices)()

    def begin(self, slices: Sequence[Slice]) -> Callable[[], list[Prediction]]:
        """`predict_batch` in two halves: a GPU works while the caller prepares the next batch, then asks for this one.

        Begin at most one more before asking.
        """
        if not slices:
            return list
        letterboxes = [Letterbox(*item.pixels.shape) for item in slices]
        squares = np.stack([box.square(item.pixels) for box, item in zip(letterboxes, slices, strict=True)])[:, None]
        wait = self._backend.begin(squares)
        return lambda: _predictions(letterboxes, wait())

    def segment(self, squares: FloatArray) -> FloatArray:
        """Raw slices (N, 1, SLICE_SIZE, SLICE_SIZE) float32 → the probability of each pixel being tumor, same shape."""
        return _without_nan(self._backend.segment(squares))

    def classify(self, squares: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Slices and masks or probabilities, (N, 1, SLICE_SIZE, SLICE_SIZE) float32 → (N, 3) by class, (N, 4) boxes."""
        return self._backend.classify(squares, probability)


def _predictions(letterboxes: list[Letterbox], outputs: Outputs) -> list[Prediction]:
    probability = _without_nan(outputs.probability)
    latency_ms = sum(outputs.stages_ms.values()) / len(letterboxes)
    predictions = []
    for index, letterbox in enumerate(letterboxes):
        mask = letterbox.original(probability[index, 0]) >= THRESHOLD
        if mask.any():
            box = letterbox.original_box(Box(*outputs.box[index].tolist()))
            probabilities = dict(zip(CLASS_NAMES, outputs.class_probability[index].tolist(), strict=True))
            predictions.append(Prediction(mask, box, probabilities, latency_ms))
        else:
            predictions.append(Prediction(mask, latency_ms=latency_ms))
    return predictions


def _without_nan(probability: FloatArray) -> FloatArray:
    """Raises CascadeError for NaN, which would otherwise pass for "no tumor"."""
    if np.isnan(probability).any():
        raise CascadeError("the segmenter computed NaN", fix="use the onnxruntime backend, or build the engine again")
    return probability
