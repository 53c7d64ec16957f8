"""What a run keeps in memory for each input, so that millions of them fit."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest

from cascade.discovery.inputs import Inputs
from cascade.io.image import ImageSource
from cascade.prediction.accounting import check_accounting
from cascade.prediction.earlier import read_entries
from cascade.prediction.journal import Entry, Journal, journal_line
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run import predict_sources
from cascade.prediction.run_result import RunResult
from cascade.prediction.slices import SliceResult

COUNT, BLOCK = 8192, 256
NAMES = [f"{number // 1000:04}/{number:08}.png" for number in range(COUNT)]


@pytest.fixture
def memory():
    """A function that returns how many bytes Python has allocated."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


def line_of(name):
    files = {f"{folder}/{name}": 64 * "0" for folder in ("masks", "overlays")}
    return journal_line(Entry(name, 64 * "0", (SliceResult(name, "no_tumor", mask_pixels=0),), files, (name,)))


class StubExecutor:
    """Hands blocks to workers as a cluster does, by pickling them, and gets a row for each input."""

    is_remote = True

    def __init__(self, memory):
        self._memory, self.used = memory, []

    def run(self, sources, job):
        for start in range(0, len(sources), BLOCK):
            block = sources[start : start + BLOCK]
            job.on_begin(block)
            pickle.dumps(block)
            job.on_finished([line_of(source.name) for source in block])
            self.used.append(self._memory())


@pytest.mark.slow
def test_a_run_needs_less_than_50_bytes_for_each_finished_input(tmp_path, memory):
    """It needed 100 more: pickling an object without slots gives it a dictionary, which stays."""
    sources = [ImageSource(name, Path("/scans") / name) for name in NAMES]
    executor, folder = StubExecutor(memory), ResultsFolder(tmp_path, Path("/scans"), True, {}, "stub")
    run = predict_sources(executor, sources, folder, batch_size=8, journal=Journal(tmp_path, {}))
    first, last = executor.used[len(executor.used) // 2], executor.used[-1]
    assert (last - first) / (COUNT / 2) < 50
    assert len(run.rows) == COUNT


@pytest.mark.slow
def test_a_resumed_run_needs_less_than_300_bytes_for_each_input_of_the_earlier_one(tmp_path, memory):
    Journal(tmp_path, {}, map(line_of, NAMES)).close()
    before = memory()
    entries = read_entries(tmp_path, {})
    assert (memory() - before) / COUNT < 300
    assert [entries[name].rows[0].name for name in NAMES[::1000]] == NAMES[::1000]


def test_the_check_at_the_end_needs_less_than_150_bytes_for_each_input(memory):
    sources = [ImageSource(name, Path("/scans") / name) for name in NAMES]
    inputs = Inputs(Path("/scans"), NAMES, {}, {}, {f"/scans/{name}": name for name in NAMES})

    class Rows:
        """Rows that are read one by one."""

        def __len__(self):
            return COUNT

        def __iter__(self):
            return (SimpleNamespace(input=name, status="no_tumor") for name in NAMES)

    folder = ResultsFolder(Path("/out"), Path("/scans"), True, {}, "stub")
    before = memory()
    tracemalloc.reset_peak()
    check_accounting(inputs, folder, sources, {}, RunResult(Rows(), 1.0))
    assert (tracemalloc.get_traced_memory()[1] - before) / COUNT < 150
