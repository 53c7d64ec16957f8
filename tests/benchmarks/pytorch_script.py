"""Both networks in a straightforward PyTorch script, with which benchmark_pytorch.py compares the backends.

It reads a batch of files, segments, thresholds, crops, classifies, and writes the masks, in eval and inference mode and
with the default number of threads. The weights are those of the ONNX graphs or of training runs.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cascade.benchmarking.timing import Measurement, Request
from cascade.contract import THRESHOLD
from cascade.discovery.inputs import Inputs
from cascade.io.image import read_slice
from cascade.io.preprocess import Letterbox
from cascade.runtime.machine import peak_host_mb
from cascade.runtime.models import CLASSIFIER, SEGMENTER, find_model
from cascade.runtime.select import open_backend
from train.classifier import ClassifierNetwork
from train.preprocessing import ClassifierGraph, SegmenterGraph
from train.segmenter_network import SegmenterNetwork
from train.weights import load_file, load_fitting

PLAIN = "pytorch"
PRECISIONS = {
    PLAIN: "FP32",
    "pytorch-bf16": "BF16 (autocast, channels_last)",
    "pytorch-compiled": "FP32, torch.compile",
    "pytorch-compiled-bf16": "BF16 (autocast, channels_last), torch.compile",
}


@dataclass(frozen=True)
class Difference:
    """Largest differences between the outputs of two runtimes.

    Attributes:
        probability: Of the tumor probability of a pixel.
        mask_pixels: Fraction of the pixels of both masks of a slice that only one of them has.
        class_probability: Of a class, for slices in which both see a tumor.
    """

    probability: float
    mask_pixels: float
    class_probability: float

    def __str__(self) -> str:
        return (
            f"probability {self.probability:.1g}, mask {self.mask_pixels:.2%} of its pixels, "
            f"class probability {self.class_probability:.1g}"
        )


class Script:
    """Both networks in PyTorch, in this process.

    Args:
        segmenter: Takes and returns what segmenter.onnx does.
        classifier: Likewise.
        slices: Slices to run. They repeat if there are too few.
        bf16: Run the networks in BF16 where autocast thinks it safe, with channels as the last dimension in memory.
        compiled: Compile both with torch.compile.
    """

    def __init__(
        self, segmenter: nn.Module, classifier: nn.Module, slices: Inputs, *, bf16: bool = False, compiled: bool = False
    ) -> None:
        self._format = torch.channels_last if bf16 else torch.contiguous_format
        networks = [network.eval().to(memory_format=self._format) for network in (segmenter, classifier)]
        self._segmenter, self._classifier = map(torch.compile, networks) if compiled else networks
        self._slices, self._bf16 = slices, bf16

    def run(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Run both networks on slices (N, 1, 512, 512) float32.

        Returns:
            Tumor probability in the shape of `slices`, and class probabilities (M, 3) of the M slices with a tumor.
        """
        slices = slices.to(memory_format=self._format)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            probability = self._segmenter(slices)
            positive = probability.amax((1, 2, 3)) >= THRESHOLD
            if not positive.any():
                return probability, torch.empty(0, 3)
            return probability, self._classifier(slices[positive], probability[positive])[0]

    def from_files(self, paths: list[Path], out: Path) -> None:
        """Read a batch of files, and write their masks and classes."""
        read = [read_slice(path).pixels for path in paths]
        letterboxes = [Letterbox(*pixels.shape) for pixels in read]
        probability, classes = self.run(torch.from_numpy(squares(read)))
        for path, box, plane in zip(paths, letterboxes, probability[:, 0].numpy(), strict=True):
            Image.fromarray((box.original(plane) >= THRESHOLD).astype(np.uint8) * 255).save(out / f"{path.stem}.png")
        (out / "classes.json").write_text(json.dumps(classes.tolist()))

    def measure(self, request: Request) -> Measurement:
        """Measure like a backend, but without stages."""
        batches = self.batches(request.batch_size)
        arrays = [next(batches) for _ in range(2)]
        models_ms, classified = [], []
        for array in islice(cycle(arrays), request.warm_up + request.batches):
            began = time.perf_counter()
            classified.append(len(self.run(array)[1]))
            models_ms.append(1000 * (time.perf_counter() - began))
        models_ms, classified = models_ms[request.warm_up :], classified[request.warm_up :]
        total_ms = []
        with tempfile.TemporaryDirectory() as out:
            for paths in islice(self._paths(request.batch_size), request.batches):
                began = time.perf_counter()
                self.from_files(paths, Path(out))
                total_ms.append(1000 * (time.perf_counter() - began))
        return Measurement(
            {},
            models_ms,
            total_ms,
            sum(classified),
            1000 * request.slices / sum(models_ms),
            1000 * request.slices / sum(total_ms),
            peak_host_mb(),
        )

    def difference(self, models: Path) -> Difference:
        """Compare the outputs for eight slices with those of ONNX Runtime."""
        array = next(self.batches(8))
        expected = open_backend("onnxruntime", models).backend.submit(array.numpy()).result()
        probability, classes = (output.float().numpy() for output in self.run(array))
        return difference(probability, classes, expected.probability, expected.class_probability)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Batches of slices (size, 1, 512, 512) without end."""
        for paths in self._paths(size):
            yield torch.from_numpy(squares([read_slice(path).pixels for path in paths]))

    def _paths(self, size: int) -> Iterator[list[Path]]:
        names = cycle(self._slices.names)
        while True:
            yield [self._slices.folder / name for name in islice(names, size)]


def difference(
    probability: np.ndarray, classes: np.ndarray, expected: np.ndarray, expected_classes: np.ndarray
) -> Difference:
    """Compare outputs.

    Args:
        probability: Tumor probability (N, 1, H, W).
        classes: Class probabilities (M, 3) of the M slices with a tumor.
        expected: Tumor probability that is expected.
        expected_classes: Class probabilities (N, 3) that are expected.
    """
    mask, expected_mask = probability >= THRESHOLD, expected >= THRESHOLD
    union = np.maximum((mask | expected_mask).sum(axis=(1, 2, 3)), 1)
    found, is_expected = mask.any(axis=(1, 2, 3)), expected_mask.any(axis=(1, 2, 3))
    both = found & is_expected
    class_difference = np.abs(classes[is_expected[found]] - expected_classes[both])
    return Difference(
        float(np.abs(probability - expected).max()),
        float(((mask ^ expected_mask).sum(axis=(1, 2, 3)) / union).max()),
        float(class_difference.max(initial=0)),
    )


def load_script(
    name: str, slices: Inputs, models: Path, segmenter_run: Path | None = None, classifier_run: Path | None = None
) -> Script:
    """Load the script of a name of PRECISIONS, calibrated as the exported graphs unless the weights are of a run."""
    segmenter, classifier = load_networks(models, segmenter_run, classifier_run)
    threshold = 0.5 if segmenter_run else calibration(SEGMENTER, models)["detection_threshold"]
    temperature = 1.0 if classifier_run else calibration(CLASSIFIER, models)["temperature"]
    return Script(
        SegmenterGraph(segmenter, threshold),
        ClassifierGraph(classifier, temperature),
        slices,
        bf16="bf16" in name,
        compiled="compiled" in name,
    )


def squares(read: list[np.ndarray]) -> np.ndarray:
    """(N, 1, 512, 512) float32."""
    return np.stack([Letterbox(*pixels.shape).square(pixels) for pixels in read])[:, None]


def calibration(name: str, models: Path) -> dict[str, float]:
    """What a graph was exported with, as models.json records it."""
    recorded: dict[str, float] = find_model(name, models).record["calibration"]
    return recorded


def load_networks(models: Path, segmenter_run: Path | None, classifier_run: Path | None) -> list[nn.Module]:
    """Load the segmenter and the classifier.

    Raises:
        CascadeError: If the weights belong to other networks.
    """
    networks = []
    for name, network, run in (
        (SEGMENTER, SegmenterNetwork(), segmenter_run),
        (CLASSIFIER, ClassifierNetwork(), classifier_run),
    ):
        path = run / "best.ckpt" if run else find_model(name, models).path
        load_fitting(network, load_file(path), str(path))
        networks.append(network)
    return networks
