"""Comparison of two reports."""

from __future__ import annotations

from copy import deepcopy

import pytest

from cascade.benchmarking.compare import compare_reports
from cascade.errors import CascadeError

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
