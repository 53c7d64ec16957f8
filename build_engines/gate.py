"""The accuracy gate: an engine has to find the masks and classes of the ONNX graph it was made from, or is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from build_engines.check_slices import CheckSlices, FloatArray
from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE, THRESHOLD
from cascade.errors import CascadeError
from cascade.runtime.engines import Batches, Verification
from cascade.runtime.models import SEGMENTER
from cascade.runtime.protocol import LoadedGraph

ENGINE = "engine"
FP16_GRAPH = "FP16 graph on the CPU"
"""What ran in the gate: the engine itself or, where it cannot run, the graph it was built from."""

LIMITS = {
    "segmenter": {"min_dice": 0.95, "min_mean_dice": 0.99},
    "classifier": {"min_class_agreement": 1.0, "class_probability_difference": 0.02, "box_difference_pixels": 0.01},
}
"""`min_`: at least, the others: at most. For Dice of one slice the limit is lower, since a pixel is much of a small
tumor. The box is FP32 arithmetic and has no reason to move."""

TIE = 0.01
"""Where the graph's two best classes are closer than this, either may win."""


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Reference:
    """What the ONNX graphs find, M of the N slices showing a tumor.

    probability        (N, 1, H, W) float32.
    found              (N,) bool, where any pixel reaches THRESHOLD.
    class_probability  (M, 3) float32, and box (M, 4) float32 in pixels: of those.
    """

    slices: CheckSlices
    probability: FloatArray
    found: NDArray[np.bool_]
    class_probability: FloatArray
    box: FloatArray


def find_reference(slices: CheckSlices, segmenter: LoadedGraph, classifier: LoadedGraph) -> Reference:
    """Raises CascadeError where no slice shows a tumor: agreement would then mean nothing."""
    probability = run_in_batches(segmenter, Batches(), **{SLICE: slices.squares})[PROBABILITY]
    found: NDArray[np.bool_] = np.any(probability >= THRESHOLD, axis=(1, 2, 3))
    if not found.any():
        raise CascadeError(
            f"the models find no tumor in the {slices.source}, so that engines cannot be checked on them",
            fix="give slices that show tumors with --verify-slices DIR",
        )
    inputs = {SLICE: slices.squares[found], PROBABILITY: probability[found]}
    classes = run_in_batches(classifier, Batches(), **inputs)
    return Reference(slices, probability, found, classes[CLASS_PROBABILITY], classes[BOX])


def pass_gate(name: str, candidate: LoadedGraph, ran: str, reference: Reference, batches: Batches) -> Verification:
    """Compares the candidate, the engine `name` or its FP16 graph, with the reference.

    Both get the same inputs: a classifier is not blamed for the segmenter's rounding. Raises CascadeError where a
    result is beyond its limit or no number.
    """
    compare: Callable[[LoadedGraph, Reference, Batches], Mapping[str, float]]
    compare = _compare_masks if name == SEGMENTER else _compare_classes
    results = {key: float(value) for key, value in compare(candidate, reference, batches).items()}
    limits = LIMITS[name]
    failed = [
        f"{key} is {results[key]:.4g}, limit {limit:g}"
        for key, limit in limits.items()
        if not (results[key] >= limit if key.startswith("min_") else results[key] <= limit)  # so that NaN fails
    ]
    if failed:
        raise CascadeError(
            f"the {name} in FP16 does not do what its ONNX graph does ({ran}, {reference.slices.source}): "
            + "; ".join(failed),
            fix="use the onnxruntime backend; train with weight decay, which keeps numbers within FP16",
        )
    slices = reference.slices
    return Verification(ran, slices.source, len(slices.squares), slices.sha256, limits, results)


def run_in_batches(backend: LoadedGraph, batches: Batches, **inputs: FloatArray) -> dict[str, FloatArray]:
    """Any number of slices, in runs of one size within the profile; the last run is filled up with the first slices."""
    count = len(inputs[SLICE])
    size = max(batches.min, min(8, batches.max))
    runs = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        runs.append(backend.run(**{name: np.ascontiguousarray(value[rows]) for name, value in inputs.items()}))
    return {name: np.concatenate([run[name] for run in runs])[:count] for name in runs[0]}


def _compare_masks(candidate: LoadedGraph, reference: Reference, batches: Batches) -> Mapping[str, float]:
    probability = run_in_batches(candidate, batches, **{SLICE: reference.slices.squares})[PROBABILITY]
    if not np.isfinite(probability).all():
        return {"min_dice": np.nan, "min_mean_dice": np.nan}
    difference = np.abs(probability - reference.probability)
    ours, theirs = probability >= THRESHOLD, reference.probability >= THRESHOLD
    axes = (1, 2, 3)
    area = ours.sum(axes) + theirs.sum(axes)
    dice = np.where(area == 0, 1.0, 2 * (ours & theirs).sum(axes) / np.maximum(area, 1))  # two empty masks agree
    return {
        "min_dice": dice.min(),
        "min_mean_dice": dice.mean(),
        "probability_difference": difference.max(),
        "mean_probability_difference": difference.mean(),
    }


def _compare_classes(candidate: LoadedGraph, reference: Reference, batches: Batches) -> Mapping[str, float]:
    found = reference.found
    inputs = {SLICE: reference.slices.squares[found], PROBABILITY: reference.probability[found]}
    outputs = run_in_batches(candidate, batches, **inputs)
    ours, theirs = outputs[CLASS_PROBABILITY], reference.class_probability
    second, first = np.sort(theirs, axis=1)[:, -2:].T
    agree = (ours.argmax(1) == theirs.argmax(1)) | (first - second < TIE)
    return {
        "min_class_agreement": agree.mean(),
        "class_probability_difference": np.abs(ours - theirs).max(),
        "box_difference_pixels": np.abs(outputs[BOX] - reference.box).max(),
    }
