"""The parts of a benchmark: statistics, turns, timing, limits, reports. Nothing here asks how fast anything is."""

from __future__ import annotations

import json
import subprocess
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cascade.benchmarking.compare import compare_reports
from cascade.benchmarking.flops import Work
from cascade.benchmarking.gpu_roofline import gpu_limit
from cascade.benchmarking.report import Settings, batches_report, read_report
from cascade.benchmarking.roofline import CpuLimit, Limit
from cascade.benchmarking.rounds import take_turns
from cascade.benchmarking.simulated import simulated_slice
from cascade.benchmarking.statistics import Percentiles, Spread, round_by_round
from cascade.benchmarking.timing import Measurement, Request, measure
from cascade.contract import Box
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.runtime import machine as machine_module
from cascade.runtime.cpu import CpuBackend
from cascade.runtime.machine import this_machine


def test_percentiles_lie_between_the_two_nearest_timings():
    """Of 1 to 101 the hundredths fall on whole numbers; of 10 and 20 they fall between."""
    assert Percentiles.of(list(range(1, 102))) == Percentiles(51, 96, 100, samples=101)
    assert Percentiles.of([20.0, 10.0]) == Percentiles(15, 19.5, 19.9, samples=2)
    assert Percentiles.of([7.0]) == Percentiles(7, 7, 7, samples=1)


def test_a_machine_that_slows_down_does_not_change_a_ratio():
    """Twice as fast in every round, though the machine loses half its speed after the first."""
    assert round_by_round([200, 100, 100], [100, 50, 50]) == Spread(median=2, least=2, greatest=2)
    assert round_by_round([30, 10, 40], [10, 10, 10]) == Spread(median=3, least=1, greatest=4)


def a_measurement(speed=10.0, **changes):
    """Two batches of two slices on a CPU."""
    found = Measurement(
        stages_ms={"read": [1, 3], "segmenter": [10, 10], "classifier": [4, 6], "write": [2, 2]},
        models_ms=[15, 17],
        total_ms=[20, 24],
        classified=3,
        models_slices_per_second=speed,
        end_to_end_slices_per_second=speed / 2,
        peak_host_mb=100,
    )
    return replace(found, **changes)


class NotingMeasurer:
    """Notes that it had its turn, and measures nothing."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def measure(self, request):
        self.notes.append((self.name, request.batch_size))
        return a_measurement()


def test_backends_take_turns_in_every_round_and_the_limit_is_measured_before_each():
    notes = []
    workers = {name: NotingMeasurer(name, notes) for name in "ABC"}
    settings = Settings(batch_sizes=(1, 8), rounds=2, warm_up=0, baseline="A")
    turns = take_turns(workers, settings, before_round=lambda: notes.append("limit"))
    one_round = ["limit", *((name, 1) for name in "ABC"), *((name, 8) for name in "ABC")]
    assert notes == one_round * 2
    assert all(len(turns[name][size]) == 2 for name in "ABC" for size in (1, 8))


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
def test_a_measurement_has_a_value_a_batch_and_only_the_stages_there_are(
    scans, tmp_path, constant_segmenter, constant_classifier, probability, classified
):
    backend = CpuBackend(
        constant_segmenter(probability, Box(10, 70, 50, 90)), constant_classifier((0.2, 0.7, 0.1), Box(1, 2, 3, 4))
    )
    found = measure(backend, scans, Request(batch_size=4, batches=2, warm_up=1), tmp_path)
    assert set(found.stages_ms) == {"read", "segmenter", "classifier", "write"}
    assert all(len(values) == 2 for values in (*found.stages_ms.values(), found.models_ms, found.total_ms))
    assert found.classified == classified
    stages_ms = np.sum(list(found.stages_ms.values()), axis=0)
    assert (np.array(found.total_ms) >= stages_ms).all()
    assert found.models_slices_per_second > 0
    assert found.end_to_end_slices_per_second > 0
    assert found.peak_host_mb > 0
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_a_slice_that_cannot_be_read_ends_the_measurement_with_its_name(
    scans, tmp_path, constant_segmenter, constant_classifier
):
    (scans.folder / "b.png").write_bytes(b"no picture")
    backend = CpuBackend(constant_segmenter(0.9), constant_classifier((0.2, 0.7, 0.1), Box(1, 2, 3, 4)))
    with pytest.raises(CascadeError, match=r"b\.png: cannot be read"):
        measure(backend, scans, Request(batch_size=1, batches=3), tmp_path)


def test_a_report_joins_the_rounds_by_hand_checkable_numbers():
    """4 batches of 2 slices at 1 GFLOP: 8 GFLOP in 40 ms are 200 GFLOP/s; of 8 slices 6 were classified, in 20 ms."""
    rounds, baseline = [a_measurement(10), a_measurement(30)], [a_measurement(5), a_measurement(10)]
    work = {"segmenter": Work(10**9, 10, 100), "classifier": Work(2 * 10**9, 20, 200)}
    found = batches_report(2, rounds, baseline, 123.4, work, Limit("a product", 400, [400, 390], 20))
    assert found.stages_ms["read"] == Percentiles(2, 3, 3, samples=4)
    assert found.stages_ms["upload"] is None
    assert found.stages_ms["download"] is None
    assert found.models == Spread(20, 10, 30)
    assert found.models_ratio == found.end_to_end_ratio == Spread(2.5, 2, 3)
    assert found.classified_share == 0.75
    assert found.gflops == {"models": 312.5, "segmenter": 200, "classifier": 600}  # 20 GFLOP in 64 ms
    assert found.percent_of_limit == {"models": 78.12, "segmenter": 50, "classifier": 150}
    assert found.bytes_moved == {"fp32": 4 * (30 + 2 * 300), "fp16": 2 * (30 + 2 * 300)}


def test_without_counted_work_or_limit_shares_are_empty_and_not_zero():
    found = batches_report(2, [a_measurement()], [a_measurement()], 1, {}, None)
    assert (found.gflops, found.percent_of_limit, found.bytes_moved) == ({}, {}, {})


def test_a_classifier_that_nobody_asked_has_no_speed():
    idle = a_measurement(classified=0)
    work = {"segmenter": Work(10**9, 1, 1), "classifier": Work(10**9, 1, 1)}
    assert set(batches_report(2, [idle], [idle], 1, work, None).gflops) == {"models", "segmenter"}


def test_the_limit_keeps_the_best_round_and_says_its_precision():
    limit = CpuLimit(size=64, copy_mb=1)
    limit.measure()
    limit.measure()
    best = limit.best()
    assert len(best.gflops_by_round) == 2
    assert best.gflops == max(best.gflops_by_round)
    assert best.what.startswith("FP32 product of two 64 x 64 matrices")


def test_without_a_gpu_its_limit_is_refused_with_a_reason(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hides those that are there
    with pytest.raises(CascadeError, match="cuBLAS cannot be measured: "):
        gpu_limit()


def test_the_machine_is_described_without_a_gpu(monkeypatch):
    def no_such_program(*arguments, **options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", no_such_program)
    machine = this_machine()
    assert machine.gpus == []
    assert machine_module.gpu_memory_in_use_mb() is None
    assert machine.cpu
    assert machine.cpu_threads >= 1
    assert {"cascade", "numpy", "onnxruntime"} <= set(machine.versions)


def test_the_gpu_is_described_as_nvidia_smi_tells_it(monkeypatch):
    printed = "NVIDIA RTX A4000, 570.86, 16376 MiB\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=printed))
    assert this_machine().gpus == ["NVIDIA RTX A4000, 570.86, 16376 MiB"]


def test_the_simulated_slices_are_the_same_each_time():
    first, again = (simulated_slice(np.random.default_rng(0)) for _ in range(2))
    assert first.shape == (512, 512)
    assert first.dtype == np.uint16
    assert (first == again).all()


REPORT = {
    "schema": "cascade benchmark 1",
    "date": "2026-01-01T00:00:00+00:00",
    "slices": "16 simulated",
    "models": {"segmenter": "aa", "classifier": "bb"},
    "machine": {"cpu": "Abacus 2", "load_average": 0.1, "versions": {"numpy": "2.0"}},
    "limits": {"cpu": {"gflops": 100.0}},
    "backends": {
        "openvino": {"batches": [{"batch_size": 8, "models": {"median": 30.0}, "end_to_end": {"median": 24.0}}]}
    },
}


def test_a_comparison_divides_now_by_then():
    then = deepcopy(REPORT)
    then["backends"]["openvino"]["batches"][0] |= {"models": {"median": 20.0}, "end_to_end": {"median": 48.0}}
    then["machine"]["load_average"] = 0.3
    comparison = compare_reports(REPORT, then)
    (change,) = comparison.changes
    assert (change.backend, change.batch_size, change.models, change.end_to_end) == ("openvino", 8, 1.5, 0.5)
    assert comparison.warnings == comparison.missing == []


def test_a_comparison_warns_of_all_that_differs_and_names_what_only_one_has():
    then = deepcopy(REPORT)
    then["machine"] = {"cpu": "Abacus 1", "load_average": 0.1, "versions": {"numpy": "1.26"}}
    then["models"]["segmenter"] = "cc"
    then["slices"] = "3 slices of /data"
    then["limits"]["cpu"]["gflops"] = 50.0
    then["backends"]["onnxruntime"] = then["backends"].pop("openvino")
    comparison = compare_reports(REPORT, then)
    assert comparison.warnings == [
        "another machine: cpu was Abacus 1, is Abacus 2",
        "another version of numpy: was 1.26, is 2.0",
        "another segmenter: the model's sha256 differs",
        "other slices: were 3 slices of /data, are 16 simulated",
        "the processor itself went from 50 to 100 GFLOP/s in the matrix product",
    ]
    assert comparison.changes == []
    assert comparison.missing == ["openvino, batch 8: only now", "onnxruntime, batch 8: only then"]


def test_an_earlier_report_that_lacks_a_part_is_refused():
    then = deepcopy(REPORT)
    del then["machine"]
    with pytest.raises(CascadeError, match="lacks a part"):
        compare_reports(REPORT, then)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "there is no such file"),
        ("no JSON", "cannot be read as JSON"),
        ("[1]", "is no 'cascade benchmark 1'"),
        (json.dumps({"schema": "cascade results 1"}), "is no 'cascade benchmark 1' but 'cascade results 1'"),
    ],
)
def test_a_file_that_is_no_benchmark_is_refused_with_the_fix(tmp_path, content, problem):
    path = tmp_path / "earlier.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CascadeError, match=problem) as raised:
        read_report(path)
    assert "benchmark.json of an earlier run" in raised.value.fix
