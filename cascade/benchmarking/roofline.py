"""Peak performance in the precision in which a backend computes, and of the memory.

What a backend reaches of the peak shows how much faster it could become. On the CPU its own runtime executes
convolutions that stay in the cache, with as many threads as the models: the peak of OpenVINO in BF16 is several times
that of FP32.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.benchmarking.flops import import_onnx
from cascade.contract import SLICE_SIZE
from cascade.files import sha256_of
from cascade.runtime.machine import usable_threads
from cascade.runtime.models import CLASSIFIER, SEGMENTER
from cascade.runtime.protocol import Backend

COPY_MB = 256

SLICES, LAYERS, CHANNELS = 8, 8, 256
GRAPH = """<ir_version: 10, opset_import: ["": 20]>
convolutions (float[batch, 1, 512, 512] slice) => (float[batch, 1, 512, 512] probability) {{
    channels = Constant <value_ints = [-1, 256, 32, 32]> ()
    plane = Constant <value_ints = [-1, 1, 512, 512]> ()
    layer0 = Reshape (slice, channels)
    {layers}
    probability = Reshape ({last}, plane)
}}"""


@dataclass(frozen=True)
class Roofline:
    """Peak performance of a backend's device, measured in the same run.

    Attributes:
        what: The operation that was measured; begins with its precision.
        gflops: 10^9 floating-point operations per second in the best round.
        gflops_by_round: The same for each round. A trend shows that the machine's speed drifts.
        gb_per_second: 10^9 bytes read and written per second in the best round.
    """

    what: str
    gflops: float
    gflops_by_round: list[float]
    gb_per_second: float


def write_convolutions(folder: Path) -> None:
    """Write a folder of models, of which both are LAYERS convolutions of 3 x 3, from CHANNELS channels to as many.

    Their input and output are those of the segmenter, so that every backend opens them. Needs the package onnx.
    """
    onnx = import_onnx()
    layers = "\n".join(
        f"layer{number + 1} = Conv <pads = [1, 1, 1, 1]> (layer{number}, kernel)" for number in range(LAYERS)
    )
    model = onnx.parser.parse_model(GRAPH.format(layers=layers, last=f"layer{LAYERS}"))
    scale = (9 * CHANNELS) ** -0.5  # keeps the variance from layer to layer
    kernel = np.random.default_rng(0).normal(0, scale, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "kernel"))
    folder.mkdir()
    for name in (SEGMENTER, CLASSIFIER):
        onnx.save(model, folder / f"{name}.onnx")
    record = {"sha256": sha256_of(folder / f"{SEGMENTER}.onnx")}
    (folder / "models.json").write_text(json.dumps({SEGMENTER: record, CLASSIFIER: record}))


def measure_convolutions(backend: Backend) -> float:
    """Measure 10^9 floating-point operations per second of the graphs of `write_convolutions`, loaded on the CPU."""
    shape = (SLICES, 1, SLICE_SIZE, SLICE_SIZE)
    slices = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    backend.segment(slices)  # untimed, to wake the cores up
    start = time.perf_counter()
    backend.segment(slices)
    return round(2e-9 * slices.size * 9 * CHANNELS * LAYERS / (time.perf_counter() - start), 1)


def measure_copy(megabytes: int = COPY_MB) -> float:
    """Measure 10^9 bytes per second, read and written, of a copy in memory by all cores."""
    source, target = (np.ones(megabytes * 2**18, np.float32) for _ in range(2))
    threads = usable_threads()
    parts = zip(np.array_split(target, threads), np.array_split(source, threads), strict=True)
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(lambda pair: np.copyto(*pair), parts))  # copyto releases Python's lock
        return round(2e-9 * source.nbytes / (time.perf_counter() - start), 3)
