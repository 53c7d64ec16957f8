"""The rows of a run are in the order of the tables, however its inputs finish, and stay on the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cascade.errors import CascadeError
from cascade.io.slices import UnopenedVolume
from cascade.prediction.earlier import read_entries
from cascade.prediction.failures import failed_source, unopened_input
from cascade.prediction.journal import Entry, Journal, journal_line
from cascade.prediction.ledger import Ledger
from cascade.prediction.results import ResultsFolder
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult


def entry(name, slices=1, status="no_tumor"):
    names = [f"{name}/{index}" for index in range(slices)] if slices > 1 else [name]
    rows = [SliceResult(row, status, index if slices > 1 else None) for index, row in enumerate(names)]
    return Entry(name, f"hash of {name}", tuple(rows), {f"masks/{name}": "5"}, (name,))


def add(ledger, *entries):
    ledger.add([journal_line(finished) for finished in entries])


@pytest.fixture
def folder(tmp_path):
    return ResultsFolder(tmp_path, Path("/scans"), True, {}, "stub")


def test_rows_are_in_the_order_of_the_inputs_and_of_their_slices(folder):
    ledger = Ledger(folder, Journal(folder.out, {}), ["a.png", "b.nii", "c.png"])
    for finished in (entry("c.png"), entry("b.nii", 12), entry("a.png")):
        add(ledger, finished)
    assert [row.name for row in ledger.rows] == ["a.png", *(f"b.nii/{index}" for index in range(12)), "c.png"]
    assert len(ledger.rows) == 14


def test_rows_of_an_earlier_run_take_their_place_among_the_new_ones(folder):
    ledger = Ledger(folder, Journal(folder.out, {}, [journal_line(entry("b.png"))]), ["a.png", "c.png"])
    add(ledger, entry("c.png"))
    add(ledger, entry("a.png"))
    assert [row.name for row in ledger.rows] == ["a.png", "b.png", "c.png"]


def test_volumes_are_in_the_order_of_the_inputs_and_those_that_failed_are_among_them(folder):
    """A volume that is given up, or cannot be opened, has a row of its own: it is not one without a tumor."""
    head = SimpleNamespace(name="b.nii", count=12, notes=("turned",))
    ledger = Ledger(folder, Journal(folder.out, {}), ["a.nii", "b.nii", "c.png", "d.nii", "e.png"])
    finding = VolumeResult("d.nii", "tumor", 12, 3, 5, (0.1, 0.8, 0.1), support=9.5, notes=("turned",))
    add(ledger, replace(entry("d.nii", 12), volume=finding))
    cut_off = {name: CascadeError(f"{name}: is cut off", fix="copy it again") for name in ("a.nii", "e.png")}
    add(ledger, unopened_input(folder, "a.nii", UnopenedVolume(cut_off["a.nii"])))
    add(ledger, unopened_input(folder, "e.png", cut_off["e.png"]))
    add(ledger, entry("c.png"))
    add(ledger, failed_source(folder, head, CascadeError("b.nii: 3 workers were lost", fix="exclude it")))
    cut, lost, kept = ledger.volumes
    assert len(ledger.volumes) == 3
    assert cut == VolumeResult("a.nii", "error", 0, problem="a.nii: is cut off", fix="copy it again")
    assert (lost.name, lost.status, lost.slices, lost.notes) == ("b.nii", "error", 12, ("turned",))
    assert lost.problem == "b.nii: 3 workers were lost"
    assert kept == finding


def test_a_failed_input_is_among_the_rows_but_is_processed_again_by_a_resumed_run(folder):
    ledger = Ledger(folder, Journal(folder.out, {}), ["a.png", "b.png"])
    add(ledger, entry("a.png", status="error"))
    add(ledger, entry("b.png"))
    assert [row.status for row in ledger.rows] == ["error", "no_tumor"]
    assert list(read_entries(folder.out, {})) == ["b.png"]


def test_rows_can_be_read_after_another_run_has_replaced_the_journal(folder):
    ledger = Ledger(folder, Journal(folder.out, {}), ["a.png"])
    add(ledger, entry("a.png"))
    rows = ledger.rows
    Journal(folder.out, {})
    assert [row.name for row in rows] == ["a.png"]
