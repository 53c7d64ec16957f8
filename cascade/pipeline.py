"""START HERE: `Cascade.predict` takes a slice through both models and returns a `Prediction`.

`Cascade.predict_volume` takes all slices of a volume through them, and decides on the volume.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from cascade.contract import CLASS_NAMES, THRESHOLD, Box, FloatArray
from cascade.errors import CascadeError
from cascade.io.arrays import SliceLike, VolumeLike, open_volume, to_slice
from cascade.io.labels import check_scan
from cascade.io.preprocess import Letterbox
from cascade.io.slices import BlankSlice, Slice, is_same_spacing
from cascade.io.source import SliceReader
from cascade.result import Prediction, VolumePrediction
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER
from cascade.runtime.protocol import Backend, Future, Outputs
from cascade.runtime.select import AUTO, open_backend
from cascade.volume.finding import VolumeRule, find_tumor
from cascade.volume.stack import Stack
from cascade.volume.stripped import STRIPPED_NOTE, is_looked_at, is_stripped, looks_stripped

BATCH = 8
"""Number of slices of a volume that go through the models at once."""


class Cascade:
    """Both models, loaded into one backend.

    Attributes:
        models: Model name → SHA-256 of its ONNX graph.
        uncertain_below: A class with a lower probability is marked as uncertain.
        skipped_backends: Faster backends that cannot run on this machine: name → reason.
        volume_rule: When a component of a volume is a tumor.
    """

    def __init__(
        self,
        backend: Backend,
        models: dict[str, str] | None = None,
        uncertain_below: float = 0.0,
        skipped_backends: dict[str, str] | None = None,
        volume_rule: VolumeRule | None = None,
    ) -> None:
        self._backend = backend
        self.models = models or {}
        self.uncertain_below = uncertain_below
        self.skipped_backends = skipped_backends or {}
        self.volume_rule = volume_rule or VolumeRule()

    @classmethod
    def open(
        cls,
        models: str | os.PathLike[str] = BUNDLED_MODELS,
        backend: str = AUTO,
        engines: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        device: int | None = None,
    ) -> "Cascade":
        """Load the models.

        Args:
            models: Folder of both ONNX graphs and models.json; the bundled models by default.
            backend: Name of a backend, or "auto" for the fastest that can run.
            engines: Folder of TensorRT engines.
            threads: Number of threads that compute on the CPU; None for one per core.
            device: Number of the GPU among those that CUDA shows; None for the first.

        Raises:
            CascadeError: A model does not match models.json, there is no such GPU, or the backend cannot run on this
                machine.
        """
        choice = open_backend(backend, Path(models), Path(engines) if engines else None, threads, device)
        return cls(
            choice.backend,
            {name: graph.sha256 for name, graph in choice.models.items()},
            choice.models[CLASSIFIER].uncertain_below,
            choice.skipped_backends,
            VolumeRule.from_record(choice.models[SEGMENTER].record.get("volume_rule", {})),
        )

    @property
    def description(self) -> str:
        """The runtime, its version, its device and precision."""
        return self._backend.description

    def predict(self, slice_: SliceLike, *, probability_map: bool = False) -> Prediction:
        """Predict one slice.

        Args:
            slice_: A `Slice`, the path of a file that contains one slice, a Pillow image of any mode, or an array of
                real numbers: (H, W), (1, H, W) or (H, W, 1). All that NumPy converts to such an array is accepted, for
                example a torch tensor in main memory. The spacing of an array is unknown; make a `Slice` to give it.
            probability_map: Return the tumor probability of each pixel too.

        Raises:
            CascadeError: The input is of another kind, cannot be read, is blank, or contains more than one slice.
        """
        return self.submit([to_slice(slice_, "the slice")], probability_map=probability_map).result()[0]

    def predict_volume(
        self,
        volume: VolumeLike,
        axis: int | None = None,
        spacing_mm: Sequence[float] | None = None,
        *,
        volume_number: int | None = None,
        probability_map: bool = False,
    ) -> VolumePrediction:
        """Predict every slice of a volume, and decide whether the volume shows a tumor.

        A blank slice of a volume has an empty mask and the note "blank". If the volume is skull-stripped, all slices
        have a note.

        Args:
            volume: Path of a file, or of a folder of one DICOM series; an array of three axes, whose slices are as
                radiologists look at them; or a list of slices that `predict` accepts, of one size.
            axis: Slice axis (0, 1 or 2) of the array, or of the stored NIfTI array. None selects the first axis of an
                array, and the axis with the thickest slices of a NIfTI volume.
            spacing_mm: Spacing of an array in millimeters: one number for each axis, or (row, column). Without the
                distance of slices, the volume in milliliters is unknown. A file gives its own; slices of a list that
                give theirs must agree with it.
            volume_number: Number of the volume to read from a file of several, from 0; None refuses such files.
            probability_map: Return the tumor probability of each pixel too.

        Raises:
            CascadeError: The input cannot be opened or read, is a map of labels, or its slices are all blank or differ
                in size or spacing.
        """
        with closing(open_volume(volume, axis, spacing_mm, volume_number)) as source:
            if not isinstance(volume, list | tuple):  # single slices are not checked anywhere
                check_scan(source)
            slices, stack = self._predict_slices(source, probability_map=probability_map)
        finding, mask = find_tumor(stack, self.volume_rule, self.uncertain_below)
        maps = [slice_.probability_map for slice_ in slices if slice_.probability_map is not None]
        return VolumePrediction(finding, tuple(slices), mask, np.stack(maps) if maps else None)

    def _predict_slices(self, source: SliceReader, *, probability_map: bool) -> tuple[list[Prediction], Stack]:
        predictions: list[Prediction] = []
        blank: list[BlankSlice] = []
        looks: list[bool | None] = []
        spacings: list[tuple[float, float] | None] = []
        for start in range(0, source.count, BATCH):
            items = [_read(source, index) for index in range(start, min(start + BATCH, source.count))]
            real = [item for item in items if isinstance(item, Slice)]
            predicted = iter(self.submit(real, probability_map=probability_map).result())
            for index, item in enumerate(items, start):
                if isinstance(item, Slice):
                    if is_looked_at(index, source.count):
                        looks.append(looks_stripped(item.pixels, item.spacing_mm))
                    spacings.append(item.spacing_mm)
                    prediction = next(predicted)
                else:
                    blank.append(item)
                    prediction = Prediction.blank(item.shape, probability_map=probability_map)
                predictions.append(replace(prediction, notes=(*source.notes, *prediction.notes)))
        if blank and len(blank) == len(predictions):
            raise blank[0]
        shapes = {prediction.mask.shape for prediction in predictions}
        if len(shapes) > 1:
            raise CascadeError(f"slices of {len(shapes)} sizes are not one volume", fix="use predict_batch")
        if not all(is_same_spacing(spacing_mm, spacings[0]) for spacing_mm in spacings):
            raise CascadeError("slices of several pixel spacings are not one volume", fix="use predict_batch")
        if is_stripped(looks):
            predictions = [replace(item, notes=(*item.notes, STRIPPED_NOTE)) for item in predictions]
        stack = Stack.empty((source.count, *predictions[0].mask.shape), spacings[0], source.slab_mm)
        for index, prediction in enumerate(predictions):
            stack.put(index, prediction.mask, prediction.mask_probability, prediction.probabilities.values())
        return predictions, stack

    def predict_batch(self, slices: Iterable[SliceLike], *, probability_map: bool = False) -> list[Prediction]:
        """Predict several slices at once; they may differ in size.

        Args:
            slices: Slices of any kind that `predict` accepts.
            probability_map: Return the tumor probability of each pixel too.

        Raises:
            CascadeError: See `predict`.
        """
        if isinstance(slices, str | os.PathLike | Slice) or not isinstance(slices, Iterable):
            raise CascadeError(f"a {type(slices).__name__} is not a list of slices", fix="use predict for one slice")
        items = [to_slice(item, f"slice {number}") for number, item in enumerate(slices)]
        return self.submit(items, probability_map=probability_map).result()

    def submit(self, slices: Sequence[Slice], *, probability_map: bool = False) -> Future[list[Prediction]]:
        """Start a batch without waiting for it, so that the caller can prepare the next one while a GPU computes.

        At most two batches may be submitted before the result of the first is fetched.

        Args:
            slices: Slices that `check_pixels` has accepted; they may differ in size.
            probability_map: Return the tumor probability of each pixel too.
        """
        if not slices:
            return Future(list)
        letterboxes = [Letterbox.of(item) for item in slices]
        squares = np.stack([box.square(item.pixels) for box, item in zip(letterboxes, slices, strict=True)])[:, None]
        future = self._backend.submit(squares)
        notes = [item.notes for item in slices]
        return Future(lambda: self._predictions(letterboxes, notes, future.result(), probability_map=probability_map))

    def segment(self, squares: FloatArray) -> FloatArray:
        """Run the segmenter alone.

        Args:
            squares: (N, 1, SLICE_SIZE, SLICE_SIZE) float32, raw intensities.

        Returns:
            Probability of tumor for each pixel, same shape, 0 to 1.

        Raises:
            CascadeError: The backend computed NaN.
        """
        return _without_nan(self._backend.segment(squares), SEGMENTER)

    def classify(self, squares: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Run the classifier alone.

        Args:
            squares: (N, 1, SLICE_SIZE, SLICE_SIZE) float32, raw intensities.
            probability: Masks or tumor probabilities of the same shape, 0 to 1.

        Returns:
            (N, 3) class probabilities and (N, 4) boxes in pixels, both float32.

        Raises:
            CascadeError: The backend computed NaN.
        """
        class_probability, box = self._backend.classify(squares, probability)
        return _without_nan(class_probability, CLASSIFIER), _without_nan(box, CLASSIFIER)

    def _predictions(
        self,
        letterboxes: list[Letterbox],
        notes: list[tuple[str, ...]],
        outputs: Outputs,
        *,
        probability_map: bool,
    ) -> list[Prediction]:
        probability = _without_nan(outputs.probability, SEGMENTER)
        class_probability = _without_nan(outputs.class_probability, CLASSIFIER)
        boxes = _without_nan(outputs.box, CLASSIFIER)
        latency_ms = sum(outputs.stages_ms.values()) / len(letterboxes)
        predictions = []
        for index, letterbox in enumerate(letterboxes):
            on_grid = letterbox.original(probability[index, 0])
            prediction = Prediction(
                mask=on_grid >= THRESHOLD,
                latency_ms=latency_ms,
                notes=notes[index],
                evidence=float(on_grid.max()),
                probability_map=on_grid.copy() if probability_map else None,  # not a view of the whole batch
            )
            if prediction.mask.any():
                box = letterbox.original_box(Box(*boxes[index].tolist()))
                probabilities = dict(zip(CLASS_NAMES, class_probability[index].tolist(), strict=True))
                uncertain = max(probabilities.values()) < self.uncertain_below
                prediction = replace(
                    prediction,
                    box=box,
                    probabilities=probabilities,
                    uncertain=uncertain,
                    mask_probability=on_grid[prediction.mask],
                )
            predictions.append(prediction)
        return predictions


def _read(source: SliceReader, index: int) -> Slice | BlankSlice:
    try:
        return source.read(index)
    except BlankSlice as error:
        return error


def _without_nan(output: FloatArray, name: str) -> FloatArray:
    """Raise CascadeError for NaN, which would otherwise count as "no tumor", or as the first class with certainty."""
    if np.isnan(output).any():
        raise CascadeError(f"the {name} computed NaN", fix="use the onnxruntime backend, or build the engine again")
    return output
