"""START HERE: `Cascade.predict` takes a slice through both models and returns a `Prediction`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cascade.contract import CLASS_NAMES, THRESHOLD, Box, FloatArray
from cascade.errors import CascadeError
from cascade.io.preprocess import Letterbox
from cascade.io.slices import BlankSlice, Slice, check_pixels, slice_from_array
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER
from cascade.runtime.protocol import Backend, Outputs
from cascade.runtime.select import AUTO, open_backend

if TYPE_CHECKING:
    from cascade.io.slices import Source

BATCH = 8
"""Slices of a volume that go through the models at once."""


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Prediction:
    """What the cascade found in one slice of H x W pixels.

    mask           (H, W) bool, True on tumor, on the pixel grid of the input slice.
    box            where the classifier looked, pixels; None when the mask is empty.
    probabilities  one a class name, summing to 1; empty when the mask is empty.
    latency_ms     the models' time for the slice's batch, divided by the batch's length.
    uncertain      whether the class is not to be relied on; False when the mask is empty.
    """

    mask: NDArray[np.bool_]
    box: Box | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    latency_ms: float = 0.0
    uncertain: bool = False

    @property
    def label(self) -> str | None:
        """The most probable class; None when the mask is empty."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


class Cascade:
    """Both graphs, loaded into one backend.

    models           sha256 of each graph.
    uncertain_below  a class of less probability is not to be relied on.
    skipped_backends      faster backends that cannot run here: name → reason.
    """

    def __init__(
        self,
        backend: Backend,
        models: dict[str, str] | None = None,
        uncertain_below: float = 0.0,
        skipped_backends: dict[str, str] | None = None,
    ) -> None:
        self._backend = backend
        self.models, self.uncertain_below, self.skipped_backends = models or {}, uncertain_below, skipped_backends or {}

    @classmethod
    def open(
        cls,
        models: str | os.PathLike[str] = BUNDLED_MODELS,
        backend: str = AUTO,
        engines: str | os.PathLike[str] | None = None,
    ) -> "Cascade":
        """Loads the graphs of a models folder, the shipped ones by default, into the fastest backend that can run.

        Raises CascadeError if the models do not match their manifest, or if the backend cannot run here.
        """
        choice = open_backend(backend, Path(models), Path(engines) if engines else None)
        return cls(
            choice.backend,
            {name: graph.sha256 for name, graph in choice.models.items()},
            choice.models[CLASSIFIER].uncertain_below,
            choice.skipped_backends,
        )

    @property
    def description(self) -> str:
        """The runtime, its version, what it computes on and in which precision."""
        return self._backend.description

    def predict(self, slice_: Slice | ArrayLike | os.PathLike[str]) -> Prediction:
        """What there is in one slice: a `Slice`, an array (H, W) of numbers, or the path of a file that holds one.

        Raises CascadeError for what is not one slice.
        """
        if isinstance(slice_, str | os.PathLike):
            predictions = self.predict_volume(slice_)
            if len(predictions) > 1:
                raise CascadeError(f"{slice_}: holds {len(predictions)} slices", fix="use predict_volume")
            return predictions[0]
        return self.predict_batch([slice_ if isinstance(slice_, Slice) else slice_from_array(slice_)])[0]

    def predict_volume(self, path: str | os.PathLike[str], axis: int | None = None) -> list[Prediction]:
        """What there is in each slice of a picture, a NIfTI volume, or a DICOM file or folder of one series.

        axis  of a NIfTI's stored array, along which its slices lie; None takes that of the thickest.

        Blank slices of a volume show no tumor. Raises CascadeError for what cannot be opened or read, and where every
        slice is blank.
        """
        from cascade.io.open import open_source

        source = open_source(Path(path), axis)
        found: list[Prediction] = []
        blank: list[BlankSlice] = []
        for start in range(0, source.count, BATCH):
            read = [_read(source, index) for index in range(start, min(start + BATCH, source.count))]
            seen = iter(self.predict_batch([item for item in read if isinstance(item, Slice)]))
            for item in read:
                if isinstance(item, Slice):
                    found.append(next(seen))
                else:
                    blank.append(item)
                    found.append(Prediction(np.zeros(item.shape, dtype=bool)))
        if len(blank) == source.count:
            raise blank[0]
        return found

    def predict_batch(self, slices: Sequence[Slice]) -> list[Prediction]:
        """What there is in each of the slices, which may differ in size. Raises CascadeError for what is no slice."""
        for number, item in enumerate(slices):
            check_pixels(item.pixels, f"slice {number}")
        return self.begin(slices)()

    def begin(self, slices: Sequence[Slice]) -> Callable[[], list[Prediction]]:
        """`predict_batch` in two halves: a GPU works while the caller prepares the next batch, then asks for this one.

        Begin at most one more before asking.
        """
        if not slices:
            return list
        letterboxes = [Letterbox.of(item) for item in slices]
        squares = np.stack([box.square(item.pixels) for box, item in zip(letterboxes, slices, strict=True)])[:, None]
        future = self._backend.submit(squares)
        return lambda: self._predictions(letterboxes, future.result())

    def segment(self, squares: FloatArray) -> FloatArray:
        """Raw slices (N, 1, SLICE_SIZE, SLICE_SIZE) float32 → the probability of each pixel being tumor, same shape."""
        return _without_nan(self._backend.segment(squares), SEGMENTER)

    def classify(self, squares: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Slices and masks or probabilities, (N, 1, SLICE_SIZE, SLICE_SIZE) float32 → (N, 3) by class, (N, 4) boxes."""
        class_probability, box = self._backend.classify(squares, probability)
        return _without_nan(class_probability, CLASSIFIER), _without_nan(box, CLASSIFIER)

    def _predictions(self, letterboxes: list[Letterbox], outputs: Outputs) -> list[Prediction]:
        probability = _without_nan(outputs.probability, SEGMENTER)
        class_probability = _without_nan(outputs.class_probability, CLASSIFIER)
        boxes = _without_nan(outputs.box, CLASSIFIER)
        latency_ms = sum(outputs.stages_ms.values()) / len(letterboxes)
        predictions = []
        for index, letterbox in enumerate(letterboxes):
            mask = letterbox.original(probability[index, 0]) >= THRESHOLD
            if mask.any():
                box = letterbox.original_box(Box(*boxes[index].tolist()))
                probabilities = dict(zip(CLASS_NAMES, class_probability[index].tolist(), strict=True))
                uncertain = max(probabilities.values()) < self.uncertain_below
                predictions.append(Prediction(mask, box, probabilities, latency_ms, uncertain))
            else:
                predictions.append(Prediction(mask, latency_ms=latency_ms))
        return predictions


def _read(source: "Source", index: int) -> Slice | BlankSlice:
    try:
        return source.read(index)
    except BlankSlice as error:
        return error


def _without_nan(computed: FloatArray, name: str) -> FloatArray:
    """Raises CascadeError for NaN, which would otherwise pass for "no tumor", or for the first class, and certain."""
    if np.isnan(computed).any():
        raise CascadeError(f"the {name} computed NaN", fix="use the onnxruntime backend, or build the engine again")
    return computed
