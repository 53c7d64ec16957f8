"""Both graphs on the CPU, one after the other."""

import time

import numpy as np

from cascade.contract import BOX, CLASS_NAMES, CLASS_PROBABILITY, PROBABILITY, SLICE, THRESHOLD, FloatArray
from cascade.runtime.protocol import Future, LoadedGraph, Outputs


class CpuBackend:
    """A `Backend` of two graphs on the CPU. The classifier runs only on slices that contain tumor pixels."""

    def __init__(self, segmenter: LoadedGraph, classifier: LoadedGraph, description: str = "") -> None:
        self._segmenter, self._classifier = segmenter, classifier
        self.description = description

    def submit(self, slices: FloatArray) -> Future[Outputs]:
        """Defer the computation to `result()`: a second batch in parallel would compete for the same cores."""
        return Future(lambda: self._compute(slices))

    def _compute(self, slices: FloatArray) -> Outputs:
        start = time.perf_counter()
        probability = self.segment(slices)
        segmented = time.perf_counter()
        class_probability = np.zeros((len(slices), len(CLASS_NAMES)), np.float32)
        box = np.zeros((len(slices), 4), np.float32)
        positive = np.flatnonzero(probability.max((1, 2, 3)) >= THRESHOLD)
        if len(positive) == len(slices):
            class_probability, box = self.classify(slices, probability)
        elif len(positive):
            class_probability[positive], box[positive] = self.classify(slices[positive], probability[positive])
        stages_ms = {
            "segmenter": 1000 * (segmented - start),
            "classifier": 1000 * (time.perf_counter() - segmented),
        }
        return Outputs(probability, class_probability, box, stages_ms)

    def segment(self, slices: FloatArray) -> FloatArray:
        """See `Backend.segment`."""
        return self._segmenter.run(**{SLICE: slices})[PROBABILITY]

    def classify(self, slices: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `Backend.classify`."""
        outputs = self._classifier.run(**{SLICE: slices, PROBABILITY: probability})
        return outputs[CLASS_PROBABILITY], outputs[BOX]
