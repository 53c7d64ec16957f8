"""The journal is on the disk before anything relies on it."""

import json
import os
from pathlib import Path

import pytest
from run_inputs import out as out
from run_inputs import save
from run_inputs import scans as scans
from stub_cascade import cascade_of

from cascade.prediction import recorder
from cascade.prediction.journal import Entry, Journal, journal_line
from cascade.prediction.output_dir import JOURNAL
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.prediction.slices import SliceResult
from cascade.prediction.stored_journal import SEGMENTS, fetch_journal


def test_it_is_synchronized_with_the_disk_when_it_begins_and_when_it_is_closed(tmp_path, monkeypatch):
    sizes, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (sizes.append(os.fstat(file).st_size), fsync(file)))
    journal = Journal(tmp_path, {"a": 1})
    assert sizes == [journal.path.stat().st_size]
    assert sizes[0] > 0
    journal.add([journal_line(Entry("c", "6", (SliceResult("c", "no_tumor", mask_pixels=0),), {}, ("c",)))])
    journal.close()
    assert sizes[1:] == [journal.path.stat().st_size]


def test_it_is_on_the_disk_before_the_tables_say_that_the_run_is_complete(scans, out, monkeypatch):
    order, sync, save_tables = [], Journal.sync, ResultsFolder.save
    monkeypatch.setattr(Journal, "sync", lambda self: (order.append("sync"), sync(self)))

    def noted(self, *arguments, complete, **options):
        order.append(complete)
        save_tables(self, *arguments, complete=complete, **options)

    monkeypatch.setattr(ResultsFolder, "save", noted)
    save(scans / "a.png")
    predict_paths(cascade_of(), [scans], out, RunOptions(report=False))
    assert order.index("sync") < order.index(True)


def test_a_file_that_changes_while_its_checksum_is_computed_is_an_error(scans, out, monkeypatch):
    """The run would note the new checksum for what it predicted from the old pixels."""
    save(scans / "a.png")
    checksum = recorder.sha256_of_files

    def late(files):
        save(scans / "a.png", 77)
        return checksum(files)

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "sha256_of_files", late)
        run = predict_paths(cascade_of(), [scans], out, RunOptions(report=False))
    assert "was changed during the run" in run.failed[0].problem
    assert predict_paths(cascade_of(), [scans], out, RunOptions(report=False, resume=True)).resumed_rows == 0


def test_a_first_run_that_ends_between_its_tables_can_be_resumed(scans, out, monkeypatch):
    """Without results.json, the next run would take the tables for those of others."""
    save(scans / "a.png")
    replaced, replace = [], Path.replace

    def once(self, target):
        if Path(target).name in ("results.json", "results.csv", "volumes.csv"):
            if replaced:
                raise KeyboardInterrupt
            replaced.append(Path(target).name)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", once)
        with pytest.raises(KeyboardInterrupt):
            predict_paths(cascade_of(), [scans], out, RunOptions(report=False))
    assert replaced == ["results.json"]
    assert predict_paths(cascade_of(), [scans], out, RunOptions(report=False, resume=True)).exit_code == 0


class StubStore:
    """An object store of some objects."""

    def __init__(self, folder, objects):
        self.folder, self.objects = folder, objects

    def names_in(self, below=""):
        return [name for name in self.objects if name.startswith(below)]

    def download(self, name, file):
        file.write(self.objects[name])

    def read_all(self, names):
        return [self.objects[name] for name in names]


def test_segments_of_an_older_run_are_not_part_of_the_journal(tmp_path):
    old, new = (json.dumps({"models": number}).encode() + b"\n" for number in (1, 2))
    objects = {
        JOURNAL: new + b"first\n",
        f"{SEGMENTS}/000000001.jsonl": old + b"other\n",
        f"{SEGMENTS}/000000002.jsonl": new + b"second\n",
    }
    fetch_journal(StubStore(tmp_path, objects))
    assert (tmp_path / JOURNAL).read_bytes() == new + b"first\nsecond\n"
