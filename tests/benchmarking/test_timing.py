"""What a measurement of one backend contains. No test depends on the speed of the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.benchmarking import timing
from cascade.benchmarking.timing import Request, measure
from cascade.contract import Box
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.prediction.results import ResultsFolder
from cascade.runtime.cpu import CpuBackend


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


@pytest.mark.parametrize("overlays", [True, False])
def test_overlays_are_drawn_on_request(scans, tmp_path, constant_segmenter, constant_classifier, monkeypatch, overlays):
    """In both parts of a measurement: batch by batch, and as `cascade predict` does."""
    drawn = []
    monkeypatch.setattr(
        timing, "ResultsFolder", lambda *args, **kwargs: drawn.append(kwargs) or ResultsFolder(*args, **kwargs)
    )
    backend = CpuBackend(constant_segmenter(0.9), constant_classifier((0.2, 0.7, 0.1), Box(1, 2, 3, 4)))
    measure(backend, scans, Request(batch_size=2, batches=2, overlays=overlays), tmp_path)
    assert [kwargs["overlays"] for kwargs in drawn] == [overlays, overlays]


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
