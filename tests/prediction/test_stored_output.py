"""Runs that write to an object store leave there what a run in one process writes to a folder, wherever they stop."""

from __future__ import annotations

import errno
import json
import os
import pickle
import platform
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from dicom_files import series
from hostile_files import files_below, put, whole_file
from stub_cascade import cascade_of, rows_of
from worker_here import WorkerHere

from cascade.errors import CascadeError
from cascade.prediction.batch import InProcess
from cascade.prediction.journal import Journal
from cascade.prediction.output import open_output
from cascade.prediction.output_store import OutputStore
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.prediction.stored_output import RUN_LOCK

fsspec = pytest.importorskip("fsspec", reason="pip install 'cascade-mri[cluster]'")
pytest.importorskip("pyarrow", reason="pip install 'cascade-mri[cluster]'")

URL = "memory://bucket/results"
OPTIONS = RunOptions(batch_size=1, report=False)


@pytest.fixture
def store():
    """An empty store."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


@pytest.fixture
def scans(tmp_path):
    """Pictures, one of them damaged, and a volume."""
    for name in ("a.png", "b.png", "deep/c [1].png", "d.png"):
        put(tmp_path / "scans" / name, whole_file("gray.png"))
    put(tmp_path / "scans/head.nii.gz", whole_file("head.nii.gz"))
    put(tmp_path / "scans/damaged.png", b"not a picture")
    return tmp_path / "scans"


def predict(scans, out=URL, **options):
    return predict_paths(WorkerHere(), [scans], out, replace(OPTIONS, **options))


def in_one_process(scans, out, **options):
    return predict_paths(cascade_of(), [scans], out, replace(OPTIONS, **options))


def objects(store):
    """Return the content of all objects below the URL, by their names."""
    root = "/bucket/results/"
    return {key.removeprefix(root): store.cat_file(key) for key in store.store if key.startswith(root)}


def pictures(objects):
    return {name: content for name, content in objects.items() if name.startswith(("masks/", "overlays/"))}


def rows(results_json):
    """Return the rows of results.json without their times."""
    return [{**row, "latency_ms": None} for row in json.loads(results_json)["slices"]]


def check_same(store, folder):
    """Check that the store has the results of a run in one process, and nothing else."""
    there, files = objects(store), {path.as_posix(): (folder / path).read_bytes() for path in files_below(folder)}
    assert there.keys() ^ files.keys() == {"results.parquet", ".cascade.lock"}
    assert rows(there["results.json"]) == rows(files["results.json"])
    assert json.loads(there["results.json"])["complete"]
    assert json.loads(there["run.json"])["complete"]
    assert there["volumes.csv"] == files["volumes.csv"]
    assert pictures(there) == pictures(files)


def test_rows_masks_and_report_are_those_of_a_run_in_one_process_to_a_folder(store, scans, tmp_path):
    in_one_process(scans, tmp_path / "results", report=True)
    result = predict(scans, report=True)
    check_same(store, tmp_path / "results")
    assert result.exit_code == 2
    assert [row.name for row in result.failed] == ["damaged.png"]  # rows can be read when the local folder is gone
    report, local = objects(store)["report.html"].decode(), (tmp_path / "results/report.html").read_text()
    for text in ("data:image/webp", '"mask":"masks/', '"overlay":"overlays/', "<title>"):
        assert report.count(text) == local.count(text) > 0
    assert "<title>results" in report
    with open_output(URL) as output:
        assert output.read_results() == objects(store)["results.json"]


def test_the_slices_of_a_batch_are_put_at_the_same_time_however_few_threads_the_models_use(store, scans, monkeypatch):
    """Two threads wrote, so that a worker with one core put 50 slices per second if the store takes 20 ms."""
    pipe_file, together = type(store).pipe_file, threading.Barrier(4)

    def pipe_together(self, key, content, **options):
        if "/overlays/" in key:
            together.wait(timeout=30)
        pipe_file(self, key, content, **options)

    class OneBlock(WorkerHere):
        def run(self, sources, job):
            self._worker._executor = InProcess(cascade_of(), threads=1)
            job.on_finished(self._worker.predict(sources, job.folder, job.batch_size))

    monkeypatch.setattr(type(store), "pipe_file", pipe_together)
    options = replace(OPTIONS, batch_size=4, exclude=("damaged.png", "head.nii.gz"))
    assert predict_paths(OneBlock(), [scans], URL, options).exit_code == 0


def test_results_that_were_downloaded_are_resumed_in_one_process(store, scans, tmp_path):
    predict(scans)
    store.get("/bucket/results", str(tmp_path / "copy"), recursive=True)
    resumed = in_one_process(scans, tmp_path / "copy", resume=True)
    assert resumed.resumed_rows == len(resumed.rows) - 1  # one is damaged


def test_a_resumed_run_keeps_what_is_unchanged_and_removes_what_is_gone(store, scans, tmp_path):
    predict(scans, report=True)
    (scans / "a.png").unlink()
    store.pipe_file("/bucket/results/masks/b.png", b"changed")
    store.pipe_file("/bucket/results/masks/mine.txt", b"not of cascade")
    resumed = predict(scans, resume=True)
    assert resumed.dropped == ("a.png",)
    assert resumed.resumed_rows == len(resumed.rows) - 2  # one is damaged, and of one the mask was changed
    assert objects(store)["masks/mine.txt"] == b"not of cascade"
    store.rm_file("/bucket/results/masks/mine.txt")
    in_one_process(scans, tmp_path / "results")
    check_same(store, tmp_path / "results")


def test_a_store_that_cannot_be_read_stops_a_resumed_run_before_it_removes_anything(store, scans, monkeypatch):
    """An object that could not be read counted as changed: its results were removed and computed again."""
    predict(scans)
    before, cat_file = objects(store), type(store).cat_file

    def cat_some(self, key, *arguments, **options):
        if key.endswith("masks/b.png"):
            raise OSError("connection reset")
        return cat_file(self, key, *arguments, **options)

    monkeypatch.setattr(type(store), "cat_file", cat_some)
    with pytest.raises(CascadeError, match=f"{URL}/masks/b.png.*connection reset"):
        predict(scans, resume=True)
    monkeypatch.undo()
    assert objects(store) == before


def test_a_journal_that_was_changed_removes_no_other_objects(store, scans):
    predict(scans)
    others = ("/bucket/results/notes.txt", "/bucket/other.png")
    for key in others:
        store.pipe_file(key, b"not of cascade")
    journal = store.cat_file("/bucket/results/journal.jsonl")
    begun = {"begun": {"x.png": ["notes.txt", "masks/../notes.txt", "../other.png"]}}
    store.pipe_file("/bucket/results/journal.jsonl", journal + json.dumps(begun).encode() + b"\n")
    predict(scans, overwrite=True)
    assert all(store.exists(key) for key in others)


def test_overwrite_replaces_all_results(store, scans, tmp_path):
    predict(scans, report=True)
    (scans / "a.png").unlink()
    with pytest.raises(CascadeError, match=f"{URL}.*earlier run"):
        predict(scans)
    assert predict(scans, overwrite=True).resumed_rows == 0
    in_one_process(scans, tmp_path / "results")
    check_same(store, tmp_path / "results")


def states_of(store, monkeypatch, run):
    """Return what the store holds after each write and removal of a run: what a driver that is killed leaves there."""
    states = []

    def noted(change):
        def call(*arguments):
            change(*arguments)
            states.append({key: store.cat_file(key) for key in list(store.store)})

        return call

    for name in ("put", "upload", "create", "remove"):
        monkeypatch.setattr(OutputStore, name, noted(getattr(OutputStore, name)))
    run()
    monkeypatch.undo()
    return states


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [None, "overwrite", "resume"])
def test_after_a_driver_was_killed_at_any_write_nothing_is_lost_and_nothing_is_done_twice(
    store, scans, tmp_path, monkeypatch, earlier
):
    if earlier:
        put(scans / "gone.png", whole_file("gray.png"))
        predict(scans, exclude=("d.png",))
        (scans / "gone.png").unlink()
    options = {earlier: True} if earlier else {}
    states = states_of(store, monkeypatch, lambda: predict(scans, **options))
    in_one_process(scans, tmp_path / "whole")
    assert len(states) > 20
    for state in states:
        store.store.clear()
        for key, content in state.items():
            store.pipe_file(key, content)
        if f"/bucket/results/{RUN_LOCK}" in state:
            with pytest.raises(CascadeError, match=RUN_LOCK):
                predict(scans, resume=True)
            store.rm_file(f"/bucket/results/{RUN_LOCK}")
        predict(scans, resume=True)
        check_same(store, tmp_path / "whole")


def test_finished_inputs_are_in_the_journal_before_the_next_are_begun(store, scans, monkeypatch):
    states = states_of(store, monkeypatch, lambda: predict(scans))
    for state in states:
        journal = b"".join(state[key] for key in sorted(state) if key.endswith(".jsonl")).decode()
        written = [key.removeprefix("/bucket/results/") for key in state if "/masks/" in key]
        assert all(f'"{name}"' in journal for name in written)  # begun, if not finished
        assert journal.count('"sha256"') >= len(written) - 1


def test_results_that_are_complete_can_be_copied_and_resumed_in_one_process(store, scans, tmp_path, monkeypatch):
    """results.json was complete while most of the journal was still in segments, which no other run reads."""
    states = states_of(store, monkeypatch, lambda: predict(scans))
    results = "/bucket/results/results.json"
    first = next(state for state in states if results in state and json.loads(state[results])["complete"])
    for key, content in first.items():
        put(tmp_path / "copy" / key.removeprefix("/bucket/results/"), content)
    resumed = in_one_process(scans, tmp_path / "copy", resume=True)
    assert resumed.resumed_rows == len(resumed.rows) - 1  # one is damaged


def test_an_object_that_cannot_be_written_is_an_error_row_and_leaves_no_part_behind(
    store, scans, tmp_path, monkeypatch
):
    pipe_file = type(store).pipe_file

    def pipe_some(self, key, content, **options):
        if key.endswith("masks/b.png"):
            raise OSError("connection reset")
        pipe_file(self, key, content, **options)

    monkeypatch.setattr(type(store), "pipe_file", pipe_some)
    result = predict(scans)
    assert [row.name for row in result.failed] == ["b.png", "damaged.png"]
    assert f"{URL}/masks/b.png" in result.failed[0].problem
    assert not {"masks/b.png", "overlays/b.png"} & objects(store).keys()
    monkeypatch.undo()
    predict(scans, resume=True)
    in_one_process(scans, tmp_path / "results")
    check_same(store, tmp_path / "results")


@pytest.mark.parametrize("name", ["results.csv", "results.json", "journal.jsonl"])
def test_a_table_that_cannot_be_written_is_an_error_and_the_run_is_resumed(store, scans, tmp_path, monkeypatch, name):
    put_file, calls = type(store).put_file, []

    def put_some(self, path, key, **options):
        if key.endswith(name):
            calls.append(key)
            if len(calls) == 2:  # the first one is at the start of the run
                raise OSError("connection reset")
        put_file(self, path, key, **options)

    monkeypatch.setattr(type(store), "put_file", put_some)
    with pytest.raises(CascadeError, match=f"{URL}/{name}"):
        predict(scans)
    monkeypatch.undo()
    resumed = predict(scans, resume=True)
    assert resumed.resumed_rows == len(resumed.rows) - 1
    in_one_process(scans, tmp_path / "results")
    check_same(store, tmp_path / "results")


def test_a_full_disk_of_the_driver_is_an_error_that_names_it_and_not_the_url(store, scans, monkeypatch):
    def fill_disk(count):
        monkeypatch.setattr(Journal, "_append", full)

    def full(self, text):
        raise self._error(OSError(errno.ENOSPC, "No space left on device")) from OSError(errno.ENOSPC)

    with pytest.raises(CascadeError, match=r"journal\.jsonl.*No space left") as error:
        predict_paths(WorkerHere(), [scans], URL, OPTIONS, on_start=fill_disk)
    assert URL not in error.value.problem
    assert "TMPDIR" in error.value.fix


def test_a_second_run_is_refused_by_an_error_that_names_the_lock_and_its_holder(store, scans):
    locks, errors = [], []

    def second_run(count):
        locks.append(json.loads(store.cat_file(f"/bucket/results/{RUN_LOCK}")))
        with pytest.raises(CascadeError) as error:
            predict(scans, resume=True)
        errors.append(error.value)

    predict_paths(WorkerHere(), [scans], URL, OPTIONS, on_start=second_run)
    (lock,), (error,) = locks, errors
    assert (lock["host"], lock["pid"]) == (platform.node(), os.getpid())
    assert f"process {os.getpid()} on {platform.node()}" in error.problem
    assert lock["started"] in error.problem
    assert f"remove {URL}/{RUN_LOCK}" in error.fix
    assert "--resume" in error.fix
    assert RUN_LOCK not in objects(store)


def test_a_lock_whose_creation_was_repeated_because_its_answer_was_lost_is_no_other_run(store, scans, monkeypatch):
    pipe_file = type(store).pipe_file

    def pipe_twice(self, key, content, **options):
        pipe_file(self, key, content, **options)
        if key.endswith(RUN_LOCK):
            pipe_file(self, key, content, **options)

    monkeypatch.setattr(type(store), "pipe_file", pipe_twice)
    assert predict(scans).exit_code == 2
    assert RUN_LOCK not in objects(store)


def test_a_second_run_is_refused_also_by_stores_that_have_an_error_of_their_own_for_it(store, scans, monkeypatch):
    store.pipe_file(f"/bucket/results/{RUN_LOCK}", b"")

    def refuse(self, key, content, **options):
        raise OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold")

    monkeypatch.setattr(type(store), "pipe_file", refuse)
    with pytest.raises(CascadeError, match="another run is writing"):
        predict(scans)
    store.rm_file(f"/bucket/results/{RUN_LOCK}")
    with pytest.raises(CascadeError, match=rf"{URL}/{RUN_LOCK}: cannot be created.*pre-conditions"):
        predict(scans)


def test_a_run_that_was_taken_for_dead_leaves_the_lock_of_the_next_run_in_place(store, scans):
    key = f"/bucket/results/{RUN_LOCK}"
    predict_paths(WorkerHere(), [scans], URL, OPTIONS, on_start=lambda count: store.pipe_file(key, b"of another run"))
    assert objects(store)[RUN_LOCK] == b"of another run"


def test_the_results_of_others_are_not_replaced(store, scans):
    store.pipe_file("/bucket/results/results.json", b'{"of": "another program"}')
    with pytest.raises(CascadeError, match=f"{URL}/results.json.*not written by cascade"):
        predict(scans, overwrite=True)
    store.pipe_file("/bucket/file", b"a file")
    with pytest.raises(CascadeError, match=r"memory://bucket/file.*is a file"):
        predict(scans, "memory://bucket/file")
    assert objects(store) == {"results.json": b'{"of": "another program"}'}


def test_a_dry_run_checks_the_url_and_writes_nothing(store, scans):
    with open_output(URL) as output:
        output.check(overwrite=False, resume=False)
    assert not store.store
    predict(scans)
    with pytest.raises(CascadeError, match=f"{URL}.*earlier run"), open_output(URL) as output:
        output.check(overwrite=False, resume=False)
    with open_output(URL) as output:
        output.check(overwrite=False, resume=True)


def test_results_below_the_inputs_are_no_inputs_of_the_next_run(store, scans):
    for path in files_below(scans):
        store.pipe_file(f"/bucket/{path.as_posix()}", (scans / path).read_bytes())
    first = predict("memory://bucket")
    second = predict("memory://bucket", resume=True)
    assert [row.name for row in second.rows] == [row.name for row in first.rows]


def test_workers_need_no_storage_in_common_with_the_driver(store, scans, tmp_path):
    put(scans / "frames.dcm", whole_file("frames.dcm"))
    series(scans / "series")
    for path in files_below(scans):
        store.pipe_file(f"/bucket/scans/{path.as_posix()}", (scans / path).read_bytes())

    class OnAnotherMachine(WorkerHere):
        """A worker for which what the driver has fetched is out of sight."""

        def run(self, sources, job):
            job.folder.store.folder.rename(tmp_path / "on the first machine")
            super().run(pickle.loads(pickle.dumps(sources)), job)
            assert not files_below(job.folder.store.folder)

    result = predict_paths(
        OnAnotherMachine(), ["memory://bucket/scans"], URL, replace(OPTIONS, exclude=("damaged.png",))
    )
    expected = in_one_process(scans, tmp_path / "results", exclude=("damaged.png",))
    assert result.exit_code == 0
    assert rows(objects(store)["results.json"]) == rows((tmp_path / "results/results.json").read_bytes())
    assert len(result.rows) == len(expected.rows) > 10
    assert pictures(objects(store)).keys() == {entry for each in expected.entries() for entry in each.files}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("unknown://bucket/results", r"unknown://bucket/results.*unknown"),
        ("needs-package://bucket/results", r"needs-package://bucket/results.*Install not_there"),
        ("memory://", "names no folder"),
        (Path("memory://bucket/results"), "slash"),
    ],
)
def test_urls_that_cannot_be_written_to_are_errors_that_name_them(store, scans, url, reason):
    fsspec.register_implementation(
        "needs-package", "not_there.FileSystem", clobber=True, errtxt="Install not_there to use this store"
    )
    with pytest.raises(CascadeError, match=reason):
        predict(scans, url)
    assert not store.store


def test_a_url_with_a_password_is_refused_and_the_password_shown_nowhere(store, scans):
    """Rows with errors name the URLs of results, and results.json that of the inputs."""
    for inputs, out in ((scans, "memory://me:hunter2@bucket/results"), ("memory://me:hunter2@bucket/scans", URL)):
        with pytest.raises(CascadeError, match=r"memory://\.\.\.@bucket/") as error:
            predict(inputs, out)
        assert "hunter2" not in f"{error.value.problem} {error.value.fix}"
    assert not store.store


@pytest.mark.parametrize("url", ["memory://me:hunter2@bucket/scans", Path("memory://me:hunter2@bucket/scans")])
def test_a_password_is_not_shown_either_if_no_cluster_is_used_or_a_slash_is_lost(scans, tmp_path, url):
    with pytest.raises(CascadeError, match=r"memory://\.\.\.@bucket/") as error:
        predict_paths(cascade_of(), [url], tmp_path / "out", OPTIONS)
    with pytest.raises(CascadeError, match=r"memory://\.\.\.@bucket/") as other:
        predict(url, tmp_path / "out")
    assert "hunter2" not in f"{error.value} {other.value}"


def test_a_file_url_is_written_atomically_and_creates_its_folders(scans, tmp_path, monkeypatch):
    out = tmp_path / "new/results"
    predict(scans, out.as_uri())
    in_one_process(scans, tmp_path / "one")
    assert rows((out / "results.json").read_bytes()) == rows((tmp_path / "one/results.json").read_bytes())
    assert len(rows_of(out)) == len(rows_of(tmp_path / "one"))
    assert not list(out.rglob(".writing-*"))
    assert not (out / RUN_LOCK).exists()
    assert predict(scans, out.as_uri(), resume=True).resumed_rows == len(rows_of(out)) - 1
