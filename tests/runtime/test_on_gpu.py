"""What only a GPU can show: engines are built on it and have to find what ONNX Runtime finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cascade.benchmarking.gpu_roofline import gpu_limit
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
    return open_backend("onnxruntime").backend.begin(squares)()


@pytest.fixture(scope="module", params=FLAVORS)
def engines(request, tmp_path_factory):
    """(flavor, folder of its engines), built by the command itself for the GPU that is here."""
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


def test_an_engine_finds_what_onnxruntime_finds(backend, squares, expected):
    found = backend.begin(squares)()
    masks, expected_masks = found.probability >= 0.5, expected.probability >= 0.5
    dice = 2 * (masks & expected_masks).sum((1, 2, 3)) / (masks.sum((1, 2, 3)) + expected_masks.sum((1, 2, 3)))
    assert dice.min() > 0.98
    assert (found.class_probability.argmax(1) == expected.class_probability.argmax(1)).all()
    assert np.abs(found.class_probability - expected.class_probability).max() < 0.02


@pytest.mark.parametrize("count", [1, 2, 7, 16, 17, 40])
def test_any_batch_finds_the_same_also_beyond_the_profile(backend, squares, expected, count):
    chosen = np.arange(count) % len(squares)
    found = backend.begin(squares[chosen])()
    assert np.abs(found.probability - expected.probability[chosen]).mean() < 1e-3
    assert (found.class_probability.argmax(1) == expected.class_probability.argmax(1)[chosen]).all()


def test_two_batches_under_way_do_not_mix(backend, squares):
    first, second = backend.begin(squares[:4]), backend.begin(squares[4:8])
    together = [first(), second()]
    alone = [backend.begin(squares[:4])(), backend.begin(squares[4:8])()]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.probability, other.probability)
        assert np.array_equal(one.box, other.box)


def test_the_classifier_looks_where_a_given_mask_says(backend, squares, expected):
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
        backend.begin(batch)()
    before = free_bytes()
    for _ in range(10_000):
        backend.begin(batch)()
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


def test_an_engine_cut_short_is_refused(engines, tmp_path):
    flavor, folder = engines
    for path in folder.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".engine" else content)
    with pytest.raises(CascadeError, match="is not the file that its sidecar vouches for"):
        open_backend(flavor, engines=tmp_path)


def test_a_gpus_limit_is_in_fp16():
    limit = gpu_limit()
    assert limit.gflops > 0
    assert limit.gb_per_second > 0
    assert limit.what.startswith("FP16")
