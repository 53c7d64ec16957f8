"""How much faster the backends are than a plain PyTorch FP32 script of the same two models.

    python tests/benchmarks/benchmark_pytorch.py                                  slices simulated by code
    python tests/benchmarks/benchmark_pytorch.py figshare/ --batch-sizes 1,8      your own

The script is what one writes without much thought, and it is all below, in PlainScript: read a batch of files, segment,
threshold, cut out, classify, write the masks; eval mode, inference mode, PyTorch's own choice of threads. Weights are
those of the ONNX graphs, or of training runs. It and the backends take turns on the same slices in one run; the
backends write no overlays either, and like it ask the classifier only about slices with a tumor.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cascade.benchmarking.benchmark import check_request, slices_to_run
from cascade.benchmarking.report import Settings, batches_report
from cascade.benchmarking.rounds import slices_a_round, start_backends, take_turns
from cascade.benchmarking.timing import Measurement, Request, peak_host_mb
from cascade.benchmarking.worker import Measurer
from cascade.cli.benchmark import batch_size_list
from cascade.contract import PROBABILITY, SLICE, THRESHOLD
from cascade.discovery.inputs import Inputs
from cascade.files import write_atomically
from cascade.io.image import read_slice
from cascade.io.preprocess import Letterbox
from cascade.runtime.engines import ENGINES
from cascade.runtime.machine import this_machine
from cascade.runtime.models import CLASSIFIER, SEGMENTER, SHIPPED, find_graph
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from train.classifier import ClassifierNetwork
from train.preprocessing import ClassifierGraph, SegmenterGraph
from train.segmenter import segmenter_network
from train.weights import load_file, load_fitting

PYTORCH = "pytorch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="*", help="slices; simulated ones where there are none")
    parser.add_argument("--models", type=Path, default=SHIPPED)
    parser.add_argument("--engines", type=Path, default=ENGINES)
    parser.add_argument("--segmenter-run", type=Path, help="take PyTorch's weights from the best.ckpt of this run")
    parser.add_argument("--classifier-run", type=Path, help="likewise")
    parser.add_argument("--backends", default="openvino,onnxruntime")
    parser.add_argument("--batch-sizes", default="8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    names, sizes = options.backends.split(","), batch_size_list(options.batch_sizes)
    check_request(names, sizes, options.rounds, options.warm_up, baseline=None)
    networks = load_networks(options.models, options.segmenter_run, options.classifier_run)
    with ExitStack() as stack:
        slices, source = stack.enter_context(slices_to_run(options.paths, max(slices_a_round(size) for size in sizes)))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        script = PlainScript(*networks, slices, 0.5 if options.segmenter_run else threshold_of(options.models))
        print(f"{source}; PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
        print(f"probabilities differ from ONNX Runtime's by {script.difference(options.models):.1g} at most")
        started, unavailable = start_backends(
            names, options.models, options.engines, slices, sizes, options.warm_up, scratch, stack
        )
        for name, refusal in unavailable.items():
            print(f"{name} cannot run: {refusal.problem}")
        workers: dict[str, Measurer] = {PYTORCH: script}
        workers |= {name: WithoutOverlays(item.worker) for name, item in started.items()}
        settings = Settings(tuple(sizes), options.rounds, options.warm_up, PYTORCH)
        turns = take_turns(workers, settings, step=lambda what, done: print(what, flush=True))
    descriptions = {name: item.loaded.description for name, item in started.items()}
    figures = []
    for size in sizes:
        for name, by_size in turns.items():
            found = batches_report(size, by_size[size], turns[PYTORCH][size], 0.0, {}, None)
            figures.append({"backend": descriptions.get(name, "PyTorch, CPU, FP32"), **asdict(found)})
            print(
                f"batch {size:>3}  {name:<12} models {found.models.median:7.1f} slices/s, "
                f"{found.models_ratio.median:.2f} x PyTorch ({found.models_ratio.least:.2f} to "
                f"{found.models_ratio.greatest:.2f}); end to end {found.end_to_end.median:7.1f} slices/s, "
                f"{found.end_to_end_ratio.median:.2f} x ({found.end_to_end_ratio.least:.2f} to "
                f"{found.end_to_end_ratio.greatest:.2f})"
            )
    if options.out:
        versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        content = {"slices": source, "pytorch": versions, "machine": asdict(this_machine()), "figures": figures}
        write_atomically(options.out, json.dumps(content, indent=1).encode())


class WithoutOverlays:
    """The plain script draws none."""

    def __init__(self, worker: Measurer) -> None:
        self._worker = worker

    def measure(self, request: Request) -> Measurement:
        return self._worker.measure(replace(request, overlays=False))


class PlainScript:
    """Both networks in PyTorch, in this process."""

    def __init__(self, segmenter: nn.Module, classifier: nn.Module, slices: Inputs, detection_threshold: float) -> None:
        self._segmenter = SegmenterGraph(segmenter, detection_threshold).eval()
        self._classifier = ClassifierGraph(classifier).eval()
        self._slices = slices

    def run(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, 512, 512) float32 → probability, same shape; class probabilities (M, 3) of the M with a tumor."""
        with torch.inference_mode():
            probability = self._segmenter(slices)
            found = probability.amax((1, 2, 3)) >= THRESHOLD
            if not found.any():
                return probability, torch.empty(0, 3)
            return probability, self._classifier(slices[found], probability[found])[0]

    def from_files(self, paths: list[Path], out: Path) -> None:
        """One batch of files → their masks and classes."""
        read = [read_slice(path).pixels for path in paths]
        letterboxes = [Letterbox(*pixels.shape) for pixels in read]
        array = torch.from_numpy(squares(read))
        probability, classes = self.run(array)
        for path, box, plane in zip(paths, letterboxes, probability[:, 0].numpy(), strict=True):
            Image.fromarray((box.original(plane) >= THRESHOLD).astype(np.uint8) * 255).save(out / f"{path.stem}.png")
        (out / "classes.json").write_text(json.dumps(classes.tolist()))

    def measure(self, request: Request) -> Measurement:
        """As the backends are measured, without stages."""
        batches = self._batches(request.batch_size)
        arrays = [torch.from_numpy(squares([read_slice(path).pixels for path in next(batches)])) for _ in range(2)]
        models_ms, classified = [], []
        for array in islice(cycle(arrays), request.warm_up + request.batches):
            began = time.perf_counter()
            classified.append(len(self.run(array)[1]))
            models_ms.append(1000 * (time.perf_counter() - began))
        models_ms, classified = models_ms[request.warm_up :], classified[request.warm_up :]
        total_ms = []
        with tempfile.TemporaryDirectory() as out:
            for batch in islice(batches, request.batches):
                began = time.perf_counter()
                self.from_files(batch, Path(out))
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

    def difference(self, models: Path) -> float:
        """Largest between a probability of the segmenter here and in ONNX Runtime, over up to eight slices."""
        array = squares([read_slice(path).pixels for path in next(self._batches(8))])
        theirs = OnnxRuntimeGraph(find_graph(SEGMENTER, models).path).run(**{SLICE: array})[PROBABILITY]
        return float(np.abs(self.run(torch.from_numpy(array))[0].numpy() - theirs).max())

    def _batches(self, size: int) -> Iterator[list[Path]]:
        names = cycle(self._slices.names)
        while True:
            yield [self._slices.folder / name for name in islice(names, size)]


def squares(read: list[np.ndarray]) -> np.ndarray:
    """(N, 1, 512, 512) float32."""
    return np.stack([Letterbox(*pixels.shape).square(pixels) for pixels in read])[:, None]


def threshold_of(models: Path) -> float:
    """What the segmenter was exported with."""
    return float(find_graph(SEGMENTER, models).record["calibration"]["detection_threshold"])


def load_networks(models: Path, segmenter_run: Path | None, classifier_run: Path | None) -> list[nn.Module]:
    """Segmenter and classifier. Raises CascadeError for weights of other networks."""
    networks = []
    for name, network, run in (
        (SEGMENTER, segmenter_network(), segmenter_run),
        (CLASSIFIER, ClassifierNetwork(), classifier_run),
    ):
        path = run / "best.ckpt" if run else find_graph(name, models).path
        load_fitting(network, load_file(path), str(path))
        networks.append(network)
    return networks


if __name__ == "__main__":
    main()
