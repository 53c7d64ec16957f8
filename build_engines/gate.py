"""The accuracy gate: an engine must produce the masks and classes of its ONNX graph, or it is rejected."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from build_engines.check_slices import CheckSlices
from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE, THRESHOLD, FloatArray
from cascade.errors import CascadeError
from cascade.runtime.models import SEGMENTER
from cascade.runtime.protocol import LoadedGraph
from cascade.runtime.sidecar import BatchProfile, Verification

ENGINE = "engine"
FP16_GRAPH = "FP16 graph on the CPU"
"""What the gate ran: the engine itself or, where it cannot run, the graph that it was built from."""

LIMITS = {
    "segmenter": {"min_dice": 0.95, "min_mean_dice": 0.99, "detection_difference": 0.05},
    "classifier": {"min_class_agreement": 1.0, "class_probability_difference": 0.02, "box_difference_pixels": 0.01},
}
"""Minimum of each metric whose name starts with `min_`, maximum of the others. The limit for the Dice of one slice is
lower, since one pixel is much of a small tumor. The detection of a slice is its highest tumor probability. The box is
computed in FP32 and must not change."""

TIE = 0.01
"""If the two highest class probabilities of the reference differ by less than this, either class is accepted."""

DETECTION_TIE = 0.05
"""If the detection of a slice differs from THRESHOLD by less than this, its mask may be empty or not."""


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Reference:
    """Outputs of the ONNX graphs for N slices, M of which contain a tumor.

    Attributes:
        slices: The slices.
        probability: (N, 1, H, W) float32, tumor probability of each pixel.
        positive: (N,) bool, True where any pixel reaches THRESHOLD.
        class_probability: (M, 3) float32, for the positive slices.
        box: (M, 4) float32, in pixels, for the positive slices.
    """

    slices: CheckSlices
    probability: FloatArray
    positive: NDArray[np.bool_]
    class_probability: FloatArray
    box: FloatArray


def compute_reference(slices: CheckSlices, segmenter: LoadedGraph, classifier: LoadedGraph) -> Reference:
    """Run the ONNX graphs on the slices.

    Raises:
        CascadeError: If no slice contains a tumor, so that agreement would be meaningless.
    """
    probability = run_in_batches(segmenter, BatchProfile(), **{SLICE: slices.squares})[PROBABILITY]
    positive: NDArray[np.bool_] = np.any(probability >= THRESHOLD, axis=(1, 2, 3))
    if not positive.any():
        raise CascadeError(
            f"the models find no tumor in the {slices.source}, so engines cannot be checked with them",
            fix="specify slices that contain tumors with --verify-slices DIR",
        )
    inputs = {SLICE: slices.squares[positive], PROBABILITY: probability[positive]}
    classes = run_in_batches(classifier, BatchProfile(), **inputs)
    return Reference(slices, probability, positive, classes[CLASS_PROBABILITY], classes[BOX])


def check_accuracy(
    name: str, candidate: LoadedGraph, ran: str, reference: Reference, batches: BatchProfile
) -> Verification:
    """Compare an engine, or its FP16 graph, with the reference.

    The classifier gets the reference's masks, so that it is not affected by the segmenter's rounding.

    Args:
        name: `segmenter` or `classifier`.
        candidate: The engine or graph.
        ran: ENGINE or FP16_GRAPH.
        reference: Outputs of the ONNX graphs.
        batches: Batch sizes that the candidate accepts.

    Raises:
        CascadeError: If a metric exceeds its limit or is NaN.
    """
    compare: Callable[[LoadedGraph, Reference, BatchProfile], Mapping[str, float]]
    compare = _compare_masks if name == SEGMENTER else _compare_classes
    results = {metric: float(value) for metric, value in compare(candidate, reference, batches).items()}
    limits = LIMITS[name]
    failed = [
        f"{metric} is {results[metric]:.4g}, limit {limit:g}"
        for metric, limit in limits.items()
        if not (results[metric] >= limit if metric.startswith("min_") else results[metric] <= limit)  # NaN fails
    ]
    slices = reference.slices
    if failed:
        raise CascadeError(
            f"the FP16 {name} differs too much from its ONNX graph ({ran}, {slices.source}): {'; '.join(failed)}",
            fix="use the onnxruntime backend, or train with weight decay, which keeps values within FP16",
        )
    return Verification(ran, slices.source, len(slices.squares), slices.sha256, limits, results)


def run_in_batches(graph: LoadedGraph, batches: BatchProfile, **inputs: FloatArray) -> dict[str, FloatArray]:
    """Run a graph on any number of slices, in batches of one size. The first slices pad the last batch."""
    count = len(inputs[SLICE])
    size = max(batches.min, min(8, batches.max))
    outputs = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        outputs.append(graph.run(**{name: np.ascontiguousarray(value[rows]) for name, value in inputs.items()}))
    return {name: np.concatenate([batch[name] for batch in outputs])[:count] for name in outputs[0]}


def _compare_masks(candidate: LoadedGraph, reference: Reference, batches: BatchProfile) -> Mapping[str, float]:
    probability = run_in_batches(candidate, batches, **{SLICE: reference.slices.squares})[PROBABILITY]
    if not np.isfinite(probability).all():
        return dict.fromkeys(LIMITS[SEGMENTER], np.nan)
    difference = np.abs(probability - reference.probability)
    mask, reference_mask = probability >= THRESHOLD, reference.probability >= THRESHOLD
    axes = (1, 2, 3)
    area = mask.sum(axes) + reference_mask.sum(axes)
    dice = np.where(area == 0, 1.0, 2 * (mask & reference_mask).sum(axes) / np.maximum(area, 1))  # both empty: 1
    detection, reference_detection = probability.max(axes), reference.probability.max(axes)
    close = np.abs(reference_detection - THRESHOLD) < DETECTION_TIE
    dice[close & (mask.any(axes) != reference_mask.any(axes))] = 1.0
    return {
        "min_dice": dice.min(),
        "min_mean_dice": dice.mean(),
        "detection_difference": np.abs(detection - reference_detection).max(),
        "probability_difference": difference.max(),
        "mean_probability_difference": difference.mean(),
    }


def _compare_classes(candidate: LoadedGraph, reference: Reference, batches: BatchProfile) -> Mapping[str, float]:
    positive = reference.positive
    inputs = {SLICE: reference.slices.squares[positive], PROBABILITY: reference.probability[positive]}
    outputs = run_in_batches(candidate, batches, **inputs)
    actual, expected = outputs[CLASS_PROBABILITY], reference.class_probability
    second, first = np.sort(expected, axis=1)[:, -2:].T
    agree = (actual.argmax(1) == expected.argmax(1)) | (first - second < TIE)
    return {
        "min_class_agreement": agree.mean(),
        "class_probability_difference": np.abs(actual - expected).max(),
        "box_difference_pixels": np.abs(outputs[BOX] - reference.box).max(),
    }
