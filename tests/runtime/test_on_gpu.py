"""Tests that need a GPU: engines are built on it and must agree with ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cascade.benchmarking.cublas import measure_gpu
from cascade.errors import CascadeError
from cascade.io.image import read_slice
from cascade.io.preprocess import Letterbox
from cascade.runtime.engines import FLAVORS
from cascade.runtime.gpu import find_gpu
from cascade.runtime.select import open_backend

SAMPLES = Path(__file__).parents[2] / "samples"

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(find_gpu() is None, reason="there is no NVIDIA GPU here")]


@pytest.fixture(scope="module")
def squares():
    """(10, 1, 512, 512) float32: the samples."""
    pixels = [read_slice(path).pixels for path in sorted(SAMPLES.glob("*.png"))]
    return np.stack([Letterbox(*item.shape).square(item) for item in pixels])[:, None]


@pytest.fixture(scope="module")
def expected(squares):
    return open_backend("onnxruntime").backend.submit(squares).result()


@pytest.fixture(scope="module", params=FLAVORS)
def engines(request, tmp_path_factory):
    """(flavor, folder of its engines), built by the command for the GPU of this machine."""
    pytest.importorskip("pycuda.driver", reason="pycuda is not installed")
    pytest.importorskip(request.param.replace("-", "_"), reason=f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", "cascade", "build", "--flavor", request.param, "--out", str(folder)]
    if request.param == "tensorrt-rtx":
        gpu = find_gpu()
        command += ["--arch", f"sm{gpu.compute_capability.replace('.', '')}"]
    built = subprocess.run(
        [*command, "--max-batch", "16", "--verify-slices", str(SAMPLES)], capture_output=True, text=True
    )
    if "cannot build for the architecture" in built.stderr:
        pytest.skip(f"{request.param} names no support for this GPU: {built.stderr.strip()}")
    assert built.returncode == 0, built.stderr
    return request.param, folder


@pytest.fixture(scope="module")
def backend(engines):
    flavor, folder = engines
    return open_backend(flavor, engines=folder).backend


def test_the_build_ran_its_accuracy_gate_on_the_engine(engines):
    flavor, folder = engines
    for name in ("segmenter", "classifier"):
        sidecar = json.loads((folder / f"{name}.{flavor}.json").read_text())
        assert sidecar["verified"]["ran"] == "engine"


def test_an_engine_agrees_with_onnxruntime(backend, squares, expected):
    outputs = backend.submit(squares).result()
    masks, expected_masks = outputs.probability >= 0.5, expected.probability >= 0.5
    dice = 2 * (masks & expected_masks).sum((1, 2, 3)) / (masks.sum((1, 2, 3)) + expected_masks.sum((1, 2, 3)))
    assert dice.min() > 0.98
    assert (outputs.class_probability.argmax(1) == expected.class_probability.argmax(1)).all()
    assert np.abs(outputs.class_probability - expected.class_probability).max() < 0.02


@pytest.mark.parametrize("count", [1, 2, 7, 16, 17, 40])
def test_results_do_not_depend_on_the_batch_size_even_beyond_the_profile(backend, squares, expected, count):
    chosen = np.arange(count) % len(squares)
    outputs = backend.submit(squares[chosen]).result()
    assert np.abs(outputs.probability - expected.probability[chosen]).mean() < 1e-3
    assert (outputs.class_probability.argmax(1) == expected.class_probability.argmax(1)[chosen]).all()


def test_two_batches_in_flight_do_not_mix(backend, squares):
    first, second = backend.submit(squares[:4]), backend.submit(squares[4:8])
    together = [first.result(), second.result()]
    alone = [backend.submit(squares[:4]).result(), backend.submit(squares[4:8]).result()]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.probability, other.probability)
        assert np.array_equal(one.box, other.box)


def test_the_classifier_uses_the_mask_it_is_given(backend, squares, expected):
    by_class, boxes = backend.classify(squares, (expected.probability >= 0.5).astype(np.float32))
    assert np.abs(boxes - expected.box).max() < 0.01
    assert np.abs(by_class - expected.class_probability).max() < 0.02


def test_ten_thousand_batches_take_no_more_memory_than_one_hundred(backend, squares):
    import pycuda.driver as cuda

    def free_bytes():
        cuda.Device(0).retain_primary_context().push()
        try:
            return cuda.mem_get_info()[0]
        finally:
            cuda.Context.pop()

    batch = squares[:1]
    for _ in range(100):
        backend.submit(batch).result()
    before = free_bytes()
    for _ in range(10_000):
        backend.submit(batch).result()
    assert before - free_bytes() < 1_000_000


def test_two_processes_share_the_gpu(engines, tmp_path):
    flavor, folder = engines
    command = [sys.executable, "-m", "cascade", "predict", str(SAMPLES), "--backend", flavor, "--engines", str(folder)]
    commands = [[*command, "--out", str(tmp_path / name)] for name in ("one", "two")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages
    one, two = (json.loads((tmp_path / name / "results.json").read_text())["slices"] for name in ("one", "two"))
    assert [row["class"] for row in one] == [row["class"] for row in two]


def test_kernels_of_tensorrt_rtx_are_kept_and_read_at_the_next_start(engines, backend, squares):
    flavor, folder = engines
    if flavor != "tensorrt-rtx":
        pytest.skip("TensorRT compiles its kernels when it builds")
    backend.submit(squares[:8]).result()
    kept = {path: path.read_bytes() for path in folder.glob("*.kernels")}
    assert len(kept) == 2
    again = open_backend(flavor, engines=folder).backend
    for engine in again._engines.values():
        assert engine._saved_bytes > 0  # TensorRT-RTX has accepted what it wrote
    assert np.array_equal(again.submit(squares[:8]).result().box, backend.submit(squares[:8]).result().box)


def test_an_engine_for_one_batch_size_agrees_with_onnxruntime(engines, squares, expected, tmp_path):
    """TensorRT-RTX runs it as a CUDA graph."""
    flavor, _ = engines
    command = [sys.executable, "-m", "cascade", "build", "--flavor", flavor, "--out", str(tmp_path)]
    command += ["--min-batch", "4", "--opt-batch", "4", "--max-batch", "4", "--verify-slices", str(SAMPLES)]
    if flavor == "tensorrt-rtx":
        command += ["--arch", f"sm{find_gpu().compute_capability.replace('.', '')}"]
    subprocess.run(command, check=True)
    backend = open_backend(flavor, engines=tmp_path, device=0).backend
    for _ in range(3):
        outputs = backend.submit(squares).result()
        assert np.abs(outputs.probability - expected.probability).mean() < 1e-3
        assert (outputs.class_probability.argmax(1) == expected.class_probability.argmax(1)).all()


def test_a_truncated_engine_is_rejected(engines, tmp_path):
    flavor, folder = engines
    for path in folder.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".engine" else content)
    with pytest.raises(CascadeError, match="does not match its sidecar"):
        open_backend(flavor, engines=tmp_path)


def test_the_roofline_of_a_gpu_is_in_fp16():
    roofline = measure_gpu()
    assert roofline.gflops > 0
    assert roofline.gb_per_second > 0
    assert roofline.what.startswith("FP16")
