"""The peak speed of the hardware: convolutions and copies on the CPU, cuBLAS on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.benchmarking import cublas
from cascade.benchmarking import roofline as roofline_module
from cascade.benchmarking.flops import count_cost
from cascade.benchmarking.roofline import CHANNELS, LAYERS, measure_convolutions, measure_copy, write_convolutions
from cascade.errors import CascadeError
from cascade.runtime.select import open_backend


def test_the_convolutions_keep_the_size_of_numbers_and_have_the_flops_that_are_counted(tmp_path, monkeypatch):
    """Numbers that grow or vanish would be infinite or subnormal, which takes another time."""
    monkeypatch.setattr(roofline_module, "SLICES", 1)
    folder = tmp_path / "convolutions"
    write_convolutions(folder)
    backend = open_backend("onnxruntime", folder).backend
    noise = np.random.default_rng(1).normal(size=(1, 1, 512, 512)).astype(np.float32)
    assert 0.5 < backend.segment(noise).std() < 2
    assert count_cost(folder / "segmenter.onnx").flops == 2 * 512 * 512 * 9 * CHANNELS * LAYERS
    assert measure_convolutions(backend) > 0
    assert measure_copy(megabytes=8) > 0


def test_without_a_gpu_its_roofline_is_an_error(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hides those that are there
    with pytest.raises(CascadeError, match="cuBLAS cannot be measured: "):
        cublas.measure_gpu()


@pytest.mark.parametrize(
    ("cuda", "packages"),
    [("12.2", "nvidia-cublas-cu12 nvidia-cuda-runtime-cu12"), ("13.0", "nvidia-cublas nvidia-cuda-runtime")],
)
def test_the_fix_names_the_packages_for_the_driver(monkeypatch, cuda, packages):
    monkeypatch.setattr(cublas, "TIMEOUT_S", 0)
    monkeypatch.setattr(cublas, "cuda_version", lambda: cuda)
    with pytest.raises(CascadeError, match="it does not respond") as raised:
        cublas.measure_gpu()
    assert raised.value.fix.endswith(f"pip install {packages}")


def test_the_roofline_of_a_gpu_is_measured_with_cublas(monkeypatch):
    """With libraries that only record their calls: 3 rounds of a product and of a copy, 11 calls each."""
    calls = []

    class Library:
        def __getattr__(self, name):
            def function(*arguments):
                calls.append((name, len(arguments)))
                return 0

            function.__name__ = name
            return function

    monkeypatch.setattr(cublas, "_library", lambda name: Library())
    monkeypatch.setattr(cublas, "MATRIX_SIZE", 64)
    roofline = cublas._measure_gpu(device=1)
    assert roofline.what.startswith("FP16 product of two 64 x 64 matrices")
    assert roofline.gflops == max(roofline.gflops_by_round)
    assert len(roofline.gflops_by_round) == 3
    assert calls[0] == ("cudaSetDevice", 1)
    assert calls.count(("cublasGemmEx", 19)) == calls.count(("cudaMemcpyAsync", 5)) == 33
