"""The order of the rounds, and the rooflines that are measured with them."""

from __future__ import annotations

import sys

import pytest

from cascade.benchmarking import rounds
from cascade.benchmarking.report import Settings
from cascade.benchmarking.roofline import Roofline
from cascade.benchmarking.rounds import Peaks, run_rounds
from cascade.benchmarking.worker import LoadedBackend
from cascade.errors import CascadeError


def test_backends_are_measured_round_robin_and_the_roofline_before_each_round():
    calls = []

    def recording(name):
        def measure(request):
            calls.append((name, request.batch_size))
            return request

        return measure

    settings = Settings(batch_sizes=(1, 8), rounds=2, warm_up=0, baseline="A")
    measures = {name: recording(name) for name in "ABC"}
    measurements = run_rounds(measures, settings, before_round=lambda: calls.append("roofline"))
    one_round = ["roofline", *((name, 1) for name in "ABC"), *((name, 8) for name in "ABC")]
    assert calls == one_round * 2
    assert all(len(measurements[name][size]) == 2 for name in "ABC" for size in (1, 8))


class StubWorker:
    """The process of a backend on the CPU that is faster in the second round."""

    def __init__(self, description):
        self.loaded = LoadedBackend(description, 3, 2, 1)
        self._gflops = iter((1900.0, 2000.0))

    def measure_peak(self, models):
        assert {path.name for path in models.iterdir()} == {"segmenter.onnx", "classifier.onnx", "models.json"}
        return next(self._gflops)


@pytest.fixture
def copies(monkeypatch):
    """A memory that copies 10 GB/s, then 9."""
    values = iter((10.0, 9.0))
    monkeypatch.setattr(rounds, "measure_copy", lambda: next(values))


def test_the_roofline_is_the_best_round_and_names_its_precision(tmp_path, copies):
    peaks = Peaks({"openvino": StubWorker("OpenVINO 1.2, CPU, BF16")}, tmp_path)
    peaks.measure()
    peaks.measure()
    what = "BF16 convolutions of 256 channels, OpenVINO 1.2, CPU"
    assert peaks.best() == {"openvino": Roofline(what, 2000.0, [1900.0, 2000.0], 10.0)}
    assert peaks.not_measured == {}


def test_a_gpu_whose_peak_cannot_be_measured_is_listed_with_the_reason(tmp_path, copies, monkeypatch):
    def fail(device):
        raise CascadeError("there is no libcublas", fix="install it")

    monkeypatch.setattr(rounds, "measure_gpu", fail)
    stub = StubWorker("ONNX Runtime 1.2, CPU, FP32")
    peaks = Peaks({"tensorrt": stub, "onnxruntime": stub}, tmp_path)
    peaks.measure()
    assert set(peaks.best()) == {"onnxruntime"}
    assert peaks.not_measured["gpu roofline"].problem == "there is no libcublas"


def test_without_onnx_the_peak_of_the_processor_is_listed_with_the_extra_to_install(tmp_path, copies, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    peaks = Peaks({"openvino": StubWorker("OpenVINO 1.2, CPU, BF16")}, tmp_path)
    peaks.measure()
    assert peaks.best() == {}
    assert "cascade-mri[benchmark]" in peaks.not_measured["cpu roofline"].fix
