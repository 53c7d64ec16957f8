"""Statistics, rounds, timing, rooflines and reports of a benchmark. No test depends on the speed of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.benchmarking import cublas, rounds
from cascade.benchmarking import roofline as roofline_module
from cascade.benchmarking.compare import compare_reports
from cascade.benchmarking.flops import GraphCost, count_cost
from cascade.benchmarking.report import Percentiles, Settings, Spread, combine_rounds, paired_ratio, read_report
from cascade.benchmarking.roofline import (
    CHANNELS,
    LAYERS,
    Roofline,
    measure_convolutions,
    measure_copy,
    write_convolutions,
)
from cascade.benchmarking.rounds import Peaks, run_rounds
from cascade.benchmarking.simulated import simulated_slice
from cascade.benchmarking.timing import Measurement, Request, measure
from cascade.benchmarking.worker import LoadedBackend
from cascade.contract import Box
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.runtime import machine as machine_module
from cascade.runtime.cpu import CpuBackend
from cascade.runtime.machine import this_machine
from cascade.runtime.select import open_backend

ROOT = Path(__file__).parents[2]


def test_percentiles_are_interpolated():
    """Percentiles of 1 to 101 are integers; those of 10 and 20 are in between."""
    assert Percentiles.of(list(range(1, 102))) == Percentiles(51, 96, 100, samples=101)
    assert Percentiles.of([20.0, 10.0]) == Percentiles(15, 19.5, 19.9, samples=2)
    assert Percentiles.of([7.0]) == Percentiles(7, 7, 7, samples=1)


def test_a_slower_machine_does_not_change_a_paired_ratio():
    """Twice as fast in every round, although the machine is half as fast after the first."""
    assert paired_ratio([200, 100, 100], [100, 50, 50]) == Spread(median=2, least=2, greatest=2)
    assert paired_ratio([30, 10, 40], [10, 10, 10]) == Spread(median=3, least=1, greatest=4)


def a_measurement(speed=10.0, **changes):
    """Two batches of two slices on a CPU."""
    measurement = Measurement(
        stages_ms={"read": [1, 3], "segmenter": [10, 10], "classifier": [4, 6], "write": [2, 2]},
        models_ms=[15, 17],
        total_ms=[20, 24],
        classified=3,
        models_slices_per_second=speed,
        end_to_end_slices_per_second=speed / 2,
        peak_host_mb=100,
    )
    return replace(measurement, **changes)


def test_backends_are_measured_round_robin_and_the_roofline_before_each_round():
    calls = []

    def recording(name):
        def measure(request):
            calls.append((name, request.batch_size))
            return a_measurement()

        return measure

    settings = Settings(batch_sizes=(1, 8), rounds=2, warm_up=0, baseline="A")
    measures = {name: recording(name) for name in "ABC"}
    measurements = run_rounds(measures, settings, before_round=lambda: calls.append("roofline"))
    one_round = ["roofline", *((name, 1) for name in "ABC"), *((name, 8) for name in "ABC")]
    assert calls == one_round * 2
    assert all(len(measurements[name][size]) == 2 for name in "ABC" for size in (1, 8))


@pytest.fixture
def scans(tmp_path):
    """Three slices."""
    folder = tmp_path / "scans"
    folder.mkdir()
    pixels = np.tile(np.linspace(0, 250, 64), (48, 1)).astype(np.uint8)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(pixels).save(folder / name)
    return find_slices([folder])


@pytest.mark.parametrize(("probability", "classified"), [(0.9, 8), (0.1, 0)])
def test_a_measurement_has_one_value_per_batch_for_each_stage_of_the_backend(
    scans, tmp_path, constant_segmenter, constant_classifier, probability, classified
):
    backend = CpuBackend(
        constant_segmenter(probability, Box(10, 70, 50, 90)), constant_classifier((0.2, 0.7, 0.1), Box(1, 2, 3, 4))
    )
    measurement = measure(backend, scans, Request(batch_size=4, batches=2, warm_up=1), tmp_path)
    assert set(measurement.stages_ms) == {"read", "segmenter", "classifier", "write"}
    assert all(
        len(values) == 2 for values in (*measurement.stages_ms.values(), measurement.models_ms, measurement.total_ms)
    )
    assert measurement.classified == classified
    stages_ms = np.sum(list(measurement.stages_ms.values()), axis=0)
    assert (np.array(measurement.total_ms) >= stages_ms).all()
    assert measurement.models_slices_per_second > 0
    assert measurement.end_to_end_slices_per_second > 0
    assert measurement.peak_host_mb > 0
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_measuring_needs_no_symbolic_links(scans, tmp_path, constant_segmenter, constant_classifier, monkeypatch):
    """Windows lets only administrators create them. Slices that repeat were links."""

    def forbid(*arguments):
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", forbid)
    backend = CpuBackend(constant_segmenter(0.9), constant_classifier((0.2, 0.7, 0.1), Box(1, 2, 3, 4)))
    assert measure(backend, scans, Request(batch_size=2, batches=2), tmp_path).end_to_end_slices_per_second > 0


def test_an_unreadable_slice_is_an_error_that_names_it(scans, tmp_path, constant_segmenter, constant_classifier):
    (scans.folder / "b.png").write_bytes(b"no picture")
    backend = CpuBackend(constant_segmenter(0.9), constant_classifier((0.2, 0.7, 0.1), Box(1, 2, 3, 4)))
    with pytest.raises(CascadeError, match=r"b\.png: cannot be read"):
        measure(backend, scans, Request(batch_size=1, batches=3), tmp_path)


def test_rounds_are_combined():
    """4 batches of 2 slices at 1 GFLOP: 8 GFLOP in 40 ms are 200 GFLOP/s; of 8 slices 6 were classified, in 20 ms."""
    rounds, baseline = [a_measurement(10), a_measurement(30)], [a_measurement(5), a_measurement(10)]
    costs = {"segmenter": GraphCost(10**9, 10, 100), "classifier": GraphCost(2 * 10**9, 20, 200)}
    result = combine_rounds(2, rounds, baseline, 123.4, costs, Roofline("a product", 400, [400, 390], 20))
    assert result.stages_ms["read"] == Percentiles(2, 3, 3, samples=4)
    assert result.stages_ms["upload"] is None
    assert result.stages_ms["download"] is None
    assert result.models == Spread(20, 10, 30)
    assert result.models_ratio == result.end_to_end_ratio == Spread(2.5, 2, 3)
    assert result.classified_share == 0.75
    assert result.gflops == {"models": 312.5, "segmenter": 200, "classifier": 600}  # 20 GFLOP in 64 ms
    assert result.percent_of_limit == {"models": 78.12, "segmenter": 50, "classifier": 150}
    assert result.bytes_moved == {"fp32": 4 * (30 + 2 * 300), "fp16": 2 * (30 + 2 * 300)}


def test_without_costs_or_roofline_percentages_are_empty_and_not_zero():
    result = combine_rounds(2, [a_measurement()], [a_measurement()], 1, {}, None)
    assert (result.gflops, result.percent_of_limit, result.bytes_moved) == ({}, {}, {})


def test_a_classifier_that_did_not_run_has_no_speed():
    idle = a_measurement(classified=0)
    costs = {"segmenter": GraphCost(10**9, 1, 1), "classifier": GraphCost(10**9, 1, 1)}
    assert set(combine_rounds(2, [idle], [idle], 1, costs, None).gflops) == {"models", "segmenter"}


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
    assert peaks.not_measured["gpu limit"].problem == "there is no libcublas"


def test_without_onnx_the_peak_of_the_processor_is_listed_with_the_extra_to_install(tmp_path, copies, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    peaks = Peaks({"openvino": StubWorker("OpenVINO 1.2, CPU, BF16")}, tmp_path)
    peaks.measure()
    assert peaks.best() == {}
    assert "cascade-mri[benchmark]" in peaks.not_measured["cpu limit"].fix


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


def test_peak_memory_is_unknown_where_python_has_no_module_resource():
    """Windows has neither it nor /proc. Importing the benchmark failed there with a traceback."""
    program = """
import sys
sys.modules["resource"] = None
from pathlib import Path
from cascade.benchmarking import timing
from cascade.runtime import machine
def no_proc(path): raise FileNotFoundError(path)
Path.read_text = no_proc
print(machine.peak_host_mb())
"""
    printed = subprocess.check_output([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert printed.split() == [b"None"]


def test_unknown_peak_memory_is_null_in_the_report():
    assert combine_rounds(2, [a_measurement()], [a_measurement()], None, {}, None).peak_host_mb is None


def test_the_machine_is_described_without_a_gpu(monkeypatch):
    def no_such_program(*arguments, **options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", no_such_program)
    machine = this_machine()
    assert machine.gpus == []
    assert machine_module.gpu_memory_in_use_mb() is None
    assert machine.cpu
    assert machine.cpu_threads >= 1
    assert {"cascade-mri", "numpy", "onnxruntime"} <= set(machine.versions)


def test_gpus_are_described_by_nvidia_smi(monkeypatch):
    printed = "NVIDIA RTX A4000, 570.86, 16376 MiB\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=printed))
    assert this_machine().gpus == ["NVIDIA RTX A4000, 570.86, 16376 MiB"]


def test_the_gpu_memory_in_use_is_that_of_all_gpus(monkeypatch):
    """The GPU that is used may not be the one that nvidia-smi lists first."""
    printed = "100 MiB\n2000 MiB\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=printed))
    assert machine_module.gpu_memory_in_use_mb() == 2100


def test_the_simulated_slices_are_the_same_each_time():
    first, again = (simulated_slice(np.random.default_rng(0)) for _ in range(2))
    assert first.shape == (512, 512)
    assert first.dtype == np.uint16
    assert (first == again).all()


REPORT = {
    "schema": "cascade benchmark 2",
    "date": "2026-01-01T00:00:00+00:00",
    "slices": "16 simulated",
    "models": {"segmenter": "aa", "classifier": "bb"},
    "machine": {"cpu": "Abacus 2", "load_average": 0.1, "versions": {"numpy": "2.0"}},
    "rooflines": {"openvino": {"gflops": 100.0}},
    "backends": {
        "openvino": {"batches": [{"batch_size": 8, "models": {"median": 30.0}, "end_to_end": {"median": 24.0}}]}
    },
}


def test_a_comparison_divides_current_by_earlier_speeds():
    then = deepcopy(REPORT)
    then["backends"]["openvino"]["batches"][0] |= {"models": {"median": 20.0}, "end_to_end": {"median": 48.0}}
    then["machine"]["load_average"] = 0.3
    comparison = compare_reports(REPORT, then)
    (change,) = comparison.changes
    assert (change.backend, change.batch_size, change.models, change.end_to_end) == ("openvino", 8, 1.5, 0.5)
    assert comparison.warnings == comparison.missing == []


def test_a_comparison_warns_of_differences_and_lists_what_only_one_has():
    then = deepcopy(REPORT)
    then["machine"] = {"cpu": "Abacus 1", "load_average": 0.1, "versions": {"numpy": "1.26"}}
    then["models"]["segmenter"] = "cc"
    then["slices"] = "3 slices of /data"
    then["rooflines"]["openvino"]["gflops"] = 50.0
    then["backends"]["onnxruntime"] = then["backends"].pop("openvino")
    comparison = compare_reports(REPORT, then)
    assert comparison.warnings == [
        "different machine, cpu: was Abacus 1, is Abacus 2",
        "different version of numpy: was 1.26, is 2.0",
        "different segmenter (SHA-256): was cc, is aa",
        "different slices: was 3 slices of /data, is 16 simulated",
        "the peak of openvino changed from 50 to 100 GFLOP/s",
    ]
    assert comparison.changes == []
    assert comparison.missing == [
        "openvino, batch 8: only in the current benchmark",
        "onnxruntime, batch 8: only in the earlier benchmark",
    ]


def test_an_incomplete_earlier_report_is_rejected():
    then = deepcopy(REPORT)
    del then["machine"]
    with pytest.raises(CascadeError, match="incomplete"):
        compare_reports(REPORT, then)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "there is no such file"),
        ("no JSON", "cannot be read as JSON"),
        ("[1]", "not 'cascade benchmark 2'"),
        (json.dumps({"schema": "cascade results 1"}), "'cascade results 1', not 'cascade benchmark 2'"),
    ],
)
def test_a_file_that_is_not_a_benchmark_is_rejected(tmp_path, content, problem):
    path = tmp_path / "earlier.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CascadeError, match=problem) as raised:
        read_report(path)
    assert "benchmark.json of an earlier run" in raised.value.fix
