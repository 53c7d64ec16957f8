"""The disk fills during a run: no file is half-written, and resuming completes the run."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import threading

import pytest
from hostile_files import check_left, put, run_alone, whole_file
from hostile_files import out as out
from hostile_files import scans as scans
from PIL import Image
from stub_cascade import cascade_of, rows_of

from cascade.errors import CascadeError
from cascade.prediction.journal import Entry, Journal, journal_line
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.prediction.slices import SliceResult


class FullDisk(io.RawIOBase):
    """A file on a disk with `room[0]` bytes left; a write may be incomplete."""

    lock = threading.Lock()  # two threads that write at once would both be given the last bytes

    def __init__(self, file, room):
        self.file, self.room = file, room

    def writable(self):
        return True

    def fileno(self):
        return self.file.fileno()

    def write(self, content):
        with self.lock:
            if self.room[0] <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = getattr(self.file, "raw", self.file).write(bytes(content[: self.room[0]]))
            self.room[0] -= written
        return written

    def truncate(self, size):
        return self.file.truncate(size)

    def close(self):
        super().close()
        self.file.close()


def on_a_full_disk(room, io_open=io.open):
    """Return `open` for a disk with `room[0]` bytes left."""

    def open_(file, mode="r", *arguments, **options):
        opened = io_open(file, mode, *arguments, **options)
        if mode not in ("xb", "ab"):
            return opened
        full = FullDisk(opened, room)
        return full if isinstance(opened, io.RawIOBase) else io.BufferedWriter(full)

    return open_


@pytest.mark.parametrize("room", [0, 1_000, 3_000, 6_000, 10_000, 20_000, 40_000])
def test_a_full_disk_leaves_no_partial_file_and_resuming_completes_the_run(scans, out, tmp_path, monkeypatch, room):
    for number in range(4):
        put(scans / f"{number}.png", whole_file("gray.png"))
    put(scans / "head.nii.gz", whole_file("head.nii.gz"))
    left = [room]
    with monkeypatch.context() as full:
        full.setattr(io, "open", on_a_full_disk(left))
        try:
            said = predict_paths(cascade_of(), [scans], out, RunOptions(batch_size=2)).failed[0].problem
        except CascadeError as error:
            said = error.problem
    assert "No space left on device" in said
    assert left == [0]
    for path in out.rglob("*"):
        assert not path.name.startswith(".writing-")
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".json":
            json.loads(path.read_text())
    run = predict_paths(cascade_of(), [scans], out, RunOptions(batch_size=2, resume=True))
    assert (run.exit_code, len(run.rows)) == (0, 8)
    check_left(out, rows_of(out))


def test_a_line_that_did_not_fit_does_not_damage_the_next_one(tmp_path, monkeypatch):
    """The journal went on as if it had been written, and asked the user to start over."""
    room = [10_000]
    monkeypatch.setattr(io, "open", on_a_full_disk(room))
    journal = Journal(tmp_path, {})
    rows = tuple(SliceResult(f"b/{number}", "no_tumor", mask_pixels=0) for number in range(200))
    room[0] = 3_000
    with pytest.raises(CascadeError, match="No space left"):
        journal.add([journal_line(Entry("b", "5", rows, {}, ("b",)))])
    room[0] = 10_000
    journal.add([journal_line(Entry("c", "6", rows[:1], {}, ("c",)))])
    assert journal.entry(0).name == "c"
    journal.close()


def test_a_disk_that_fails_when_the_journal_is_flushed_is_an_error_that_names_the_journal(tmp_path, monkeypatch):
    """A full network drive may accept every write, and report only then that there is no room."""

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal(tmp_path, {})
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CascadeError, match=rf"{journal.path.name}: .*No space left") as raised:
        journal.sync()
    assert "--resume" in raised.value.fix
    journal.close()  # does not raise


def test_a_run_survives_a_really_full_disk(scans, tmp_path):
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(tmp_path / "small")]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk")
    try:
        for number in range(20):
            put(scans / f"{number}.png", whole_file("gray.png"))
        out = tmp_path / "small" / "out"
        ended = run_alone(scans, out)
        assert ended.returncode in (1, 2)
        assert "No space left" in (ended.stdout or str(rows_of(out)))
        assert ended.stderr == ""
        assert not list(out.rglob(".writing-*"))
        subprocess.run([*mount[:3], "-o", "remount,size=10m", *mount[5:]], check=True)
        assert predict_paths(cascade_of(), [scans], out, RunOptions(resume=True)).exit_code == 0
        check_left(out, rows_of(out))
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)
