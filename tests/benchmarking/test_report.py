"""Statistics of the rounds, and the report that they become."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cascade.benchmarking.flops import GraphCost
from cascade.benchmarking.report import Percentiles, Spread, combine_rounds, paired_ratio, read_report
from cascade.benchmarking.roofline import Roofline
from cascade.benchmarking.timing import Measurement
from cascade.errors import CascadeError


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


def test_unknown_peak_memory_is_null_in_the_report():
    assert combine_rounds(2, [a_measurement()], [a_measurement()], None, {}, None).peak_host_mb is None


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
