"""Both graphs on the CPU, one after the other."""

import time

import numpy as np

from cascade.contract import BOX, CLASS_NAMES, CLASS_PROBABILITY, PROBABILITY, SLICE, THRESHOLD, FloatArray
from cascade.runtime.protocol import LoadedGraph, Outputs, Pending


class HostBackend:
    """The classifier is asked only about slices in which the segmenter found something."""

    def __init__(self, segmenter: LoadedGraph, classifier: LoadedGraph, description: str = "") -> None:
        self._segmenter, self._classifier = segmenter, classifier
        self.description = description

    def begin(self, slices: FloatArray) -> Pending:
        """Begins when asked for: cores that worked on a second batch would be missing in the first."""
        return lambda: self._compute(slices)

    def _compute(self, slices: FloatArray) -> Outputs:
        began = time.perf_counter()
        probability = self.segment(slices)
        segmented = time.perf_counter()
        class_probability = np.zeros((len(slices), len(CLASS_NAMES)), np.float32)
        box = np.zeros((len(slices), 4), np.float32)
        found = np.flatnonzero(probability.max((1, 2, 3)) >= THRESHOLD)
        if len(found) == len(slices):
            class_probability, box = self.classify(slices, probability)
        elif len(found):
            class_probability[found], box[found] = self.classify(slices[found], probability[found])
        stages = {"segmenter": segmented - began, "classifier": time.perf_counter() - segmented}
        return Outputs(probability, class_probability, box, {name: 1000 * value for name, value in stages.items()})

    def segment(self, slices: FloatArray) -> FloatArray:
        return self._segmenter.run(**{SLICE: slices})[PROBABILITY]

    def classify(self, slices: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        outputs = self._classifier.run(**{SLICE: slices, PROBABILITY: probability})
        return outputs[CLASS_PROBABILITY], outputs[BOX]
