"""START HERE: `Cascade.predict` takes a slice through both models and returns a `Prediction`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.backends import Backend, FloatArray, open_graph
from cascade.contract import BOX, CLASS_NAMES, CLASS_PROBABILITY, PROBABILITY, SLICE, THRESHOLD, Box
from cascade.errors import CascadeError
from cascade.graphs import CLASSIFIER, SEGMENTER, SHIPPED, find_graph
from cascade.slices import Letterbox, Slice


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Prediction:
    """What the cascade found in one slice of H x W pixels.

    mask           (H, W) bool, True on tumor, on the pixel grid of the input slice.
    box            where the classifier looked, pixels; None when the mask is empty.
    probabilities  one a class name, summing to 1; empty when the mask is empty.
    """

    mask: NDArray[np.bool_]
    box: Box | None
    probabilities: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str | None:
        """The most probable class; None when the mask is empty."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


class Cascade:
    """Both graphs, loaded. The classifier is asked only about slices in which the segmenter found something."""

    def __init__(self, segmenter: Backend, classifier: Backend) -> None:
        self._segmenter, self._classifier = segmenter, classifier

    @classmethod
    def open(cls, models: Path = SHIPPED, backend: str = "onnxruntime") -> "Cascade":
        """Loads the graphs of a models folder, the shipped ones by default.

        Raises CascadeError for a folder whose files models.json does not vouch for, or a backend that cannot run here.
        """
        return cls(*(open_graph(find_graph(name, models).path, backend) for name in (SEGMENTER, CLASSIFIER)))

    def predict(self, slice_: Slice) -> Prediction:
        """What there is in one slice."""
        return self.predict_batch([slice_])[0]

    def predict_batch(self, slices: Sequence[Slice]) -> list[Prediction]:
        """What there is in each of the slices, which may differ in size."""
        if not slices:
            return []
        letterboxes = [Letterbox(*item.pixels.shape) for item in slices]
        squares = np.stack([box.square(item.pixels) for box, item in zip(letterboxes, slices, strict=True)])[:, None]
        probability = self.segment(squares)
        masks = [box.original(plane[0]) >= THRESHOLD for box, plane in zip(letterboxes, probability, strict=True)]
        found = [index for index, mask in enumerate(masks) if mask.any()]
        predictions = [Prediction(mask, box=None) for mask in masks]
        if found:
            class_probability, boxes = self.classify(squares[found], probability[found])
            for index, row, box in zip(found, class_probability.tolist(), boxes.tolist(), strict=True):
                predictions[index] = Prediction(
                    masks[index], letterboxes[index].original_box(Box(*box)), dict(zip(CLASS_NAMES, row, strict=True))
                )
        return predictions

    def segment(self, squares: FloatArray) -> FloatArray:
        """Raw slices (N, 1, SLICE_SIZE, SLICE_SIZE) float32 → the probability of each pixel being tumor, same shape.

        Raises CascadeError for NaN, which would otherwise pass for "no tumor".
        """
        probability = self._segmenter.run(**{SLICE: squares})[PROBABILITY]
        if np.isnan(probability).any():
            raise CascadeError(
                "the segmenter computed NaN", fix="use the onnxruntime backend, or build the engine again"
            )
        return probability

    def classify(self, squares: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Slices and masks or probabilities, (N, 1, SLICE_SIZE, SLICE_SIZE) float32 → (N, 3) by class, (N, 4) boxes."""
        outputs = self._classifier.run(**{SLICE: squares, PROBABILITY: probability})
        return outputs[CLASS_PROBABILITY], outputs[BOX]
