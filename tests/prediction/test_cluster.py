"""Runs on a real cluster of two workers give the results of one process, whatever happens to workers and driver."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hostile_files import ROOT, check_left, files_below, put, whole_file
from PIL import Image
from stub_cascade import rows_of

from cascade.errors import CascadeError
from cascade.pipeline import Cascade
from cascade.prediction.earlier import read_entries
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.prediction.stored_output import RUN_LOCK
from cascade.prediction.worker import ModelOptions, Worker
from cascade.runtime.models import BUNDLED_MODELS

ray = pytest.importorskip("ray", reason="pip install 'cascade-mri[cluster]'")

from cascade.prediction import cluster
from cascade.prediction.blocks import MAX_TRIES
from cascade.prediction.cluster import ClusterOptions, open_cluster

pytestmark = pytest.mark.slow

OPTIONS = RunOptions(batch_size=2, report=False, probabilities=True, secondary_capture=True)

MODELS = ModelOptions(BUNDLED_MODELS, "onnxruntime")

IMAGES = 40

PATIENCE_SECONDS = 300.0
"""Time for what takes seconds on an idle machine. A test fails after it."""


@pytest.fixture
def scans(tmp_path):
    """Images, a volume, a multi-frame DICOM file, a zip and a damaged file. The images differ."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(IMAGES):
        pixels = np.tile(np.linspace(0, 90, 48, dtype=np.uint8), (48, 1))
        pixels[10:20, number % 30 : number % 30 + 12] = 255 if number % 3 else 80
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    for kind in ("head.nii.gz", "frames.dcm", "some.zip"):
        put(folder / kind, whole_file(kind))
    put(folder / "damaged.png", b"not a picture")
    return folder


def save_volume(path, *tumors):
    """A volume of 20 slices, with a bright square in the slices `tumors`."""
    array = np.tile(np.linspace(0, 90, 48, dtype=np.float32), (48, 1))[..., None].repeat(20, axis=2)
    for index in tumors:
        array[10:24, 10:24, index] = 255
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), path)


def hostile_worker():
    """Return the class of a worker to which accidents happen. A local class: it is sent to the workers by value."""

    class HostileWorker(Worker):
        def predict(self, sources, folder, batch_size):
            if any("poison" in source.name for source in sources):
                os.kill(os.getpid(), signal.SIGKILL)
            url = folder.output_store.url if folder.output_store else ""
            beside = Path(url.removeprefix("file://") or folder.out).parent
            if self.claims(beside / "full-disk"):
                self.fill_disk(beside)
            entries = super().predict(sources, folder, batch_size)
            if self.claims(beside / "kill"):  # all is written, and the driver knows nothing of it
                os.kill(os.getpid(), signal.SIGKILL)
            return entries

        def claims(self, accident):
            """Return True at the first call, in whatever worker, if a test has ordered this accident by a folder."""
            try:
                (accident / "happened").mkdir()
            except (FileExistsError, FileNotFoundError):
                return False
            return True

        def fill_disk(self, folder):
            """Let all writes of this worker into a folder fail."""
            import cascade.prediction.output_files as output_files
            from cascade.errors import CascadeError

            write_atomically = output_files.write_atomically

            def write(path, content, *, durable):
                if path.is_relative_to(folder):
                    raise CascadeError(f"{path}: cannot be written ({os.strerror(errno.ENOSPC)})", fix="free space")
                write_atomically(path, content, durable=durable)

            output_files.write_atomically = write

    return HostileWorker


@pytest.fixture(scope="module")
def executor(models):
    """A cluster of two workers, to which accidents happen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "usable_threads", lambda: 2)
        with open_cluster(ClusterOptions("local"), ModelOptions(models, "onnxruntime"), hostile_worker()) as executor:
            yield executor


def in_one_process(models, scans, out, **options):
    return predict_paths(Cascade.open(models, "onnxruntime", threads=1), [scans], out, replace(OPTIONS, **options))


def check_same(out, expected, inputs=""):
    """Check that rows, masks and overlays are the same, except for the times, and for the place of `inputs`."""
    rows, files = comparable(out)
    for row in rows:
        row["problem"] = row["problem"] and row["problem"].replace(inputs, inputs.removeprefix("file://"))
    expected_rows, expected_files = comparable(expected)
    assert rows == expected_rows
    assert sorted(files) == sorted(expected_files)
    assert [path for path in files if files[path] != expected_files[path]] == []
    assert volumes_of(out) == volumes_of(expected)
    assert (out / "volumes.csv").read_bytes() == (expected / "volumes.csv").read_bytes()


def volumes_of(out):
    return json.loads((out / "results.json").read_text())["volumes"]


def comparable(out):
    """Return the rows without their times, and the content of all masks and overlays.

    A DICOM segmentation has the time of its creation and UIDs of its own, so its pixels stand for it.
    """
    rows = [{key: value for key, value in row.items() if key != "latency_ms"} for row in rows_of(out)]
    for row in rows:
        row["problem"] = row["problem"] and row["problem"].replace(str(out), "OUT")
    folders = ("masks", "overlays", "probabilities", "secondary_captures")
    files = [path for path in files_below(out) if path.parts[0] in folders]
    return rows, {path: content_of(out / path) for path in files}


def content_of(path):
    return pydicom.dcmread(path).pixel_array.tobytes() if path.suffix == ".dcm" else path.read_bytes()


def test_rows_and_masks_are_those_of_one_process_even_if_a_worker_is_killed(executor, models, scans, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    in_one_process(models, scans, one)
    (tmp_path / "kill").mkdir()
    losses = executor.losses
    run = predict_paths(executor, [scans], two, OPTIONS)
    assert executor.losses == losses + 1
    check_same(two, one)
    assert len(run.rows) == len({row["slice"] for row in rows_of(two)}) == IMAGES + 3 + 6 + 2 + 1
    assert [row.name for row in run.failed] == ["damaged.png"]
    check_left(two, rows_of(two))


def test_inputs_at_a_url_give_the_same_results_also_if_a_worker_is_killed_and_nothing_stays_behind(
    executor, models, scans, tmp_path
):
    """file:// stands for an object store: all workers see it."""
    one, two = tmp_path / "one", tmp_path / "results/two"
    two.mkdir(parents=True)
    in_one_process(models, scans, one)
    (two.parent / "kill").mkdir()
    losses = executor.losses
    run = predict_paths(executor, [scans.as_uri()], two, OPTIONS)
    assert executor.losses == losses + 1
    assert [row.name for row in run.failed] == ["damaged.png"]
    assert scans.as_uri() in run.failed[0].problem
    check_same(two, one, inputs=scans.as_uri())
    assert sorted(path.name for path in two.parent.iterdir()) == ["kill", "two"]
    resumed = predict_paths(executor, [scans.as_uri()], two, replace(OPTIONS, resume=True))
    assert resumed.resumed_rows == len(run.rows) - 1


def test_results_at_a_url_are_those_of_one_process_also_if_a_worker_is_killed(executor, models, scans, tmp_path):
    one, two = tmp_path / "one", tmp_path / "results/two"
    two.parent.mkdir()
    in_one_process(models, scans, one)
    (two.parent / "kill").mkdir()
    losses = executor.losses
    run = predict_paths(executor, [scans.as_uri()], two.as_uri(), OPTIONS)
    assert executor.losses == losses + 1
    assert [row.name for row in run.failed] == ["damaged.png"]
    check_same(two, one, inputs=scans.as_uri())
    assert sorted(path.name for path in two.parent.iterdir()) == ["kill", "two"]
    assert not [path for path in files_below(two) if path.parts[0].startswith(".")]  # neither lock nor segments
    resumed = predict_paths(executor, [scans.as_uri()], two.as_uri(), replace(OPTIONS, resume=True))
    assert resumed.resumed_rows == len(run.rows) - 1


def test_a_url_that_the_workers_cannot_see_is_an_error_before_any_result_is_written(executor, scans):
    """Each process has a memory:// of its own."""
    filesystem = pytest.importorskip("fsspec").filesystem("memory")
    with pytest.raises(CascadeError, match=r"memory://results: .* on .*, where a worker runs"):
        predict_paths(executor, [scans], "memory://results", OPTIONS)
    assert not filesystem.exists("memory://results")


@pytest.mark.parametrize("keep", [False, True])
def test_volumes_have_the_findings_and_masks_of_one_process_and_keep_them_in_a_resumed_run(
    executor, models, tmp_path, keep
):
    """Slice 3 has a stray spot, which the finding rejects; one more volume is cut off."""
    folder, later, out = tmp_path / "scans", tmp_path / "later.nii.gz", tmp_path / "out"
    folder.mkdir()
    for number in range(4):
        save_volume(folder / f"{number}.nii.gz", *((3, 10, 11) if number % 2 else ()))
    put(folder / "cut.nii.gz", whole_file("head.nii.gz")[:100])
    (folder / "3.nii.gz").rename(later)
    first = predict_paths(executor, [folder], out, replace(OPTIONS, keep_all_components=keep))
    assert len(first.volumes) == 4
    later.rename(folder / "3.nii.gz")
    resumed = predict_paths(executor, [folder], out, replace(OPTIONS, keep_all_components=keep, resume=True))
    assert resumed.resumed_rows == 60
    in_one_process(models, folder, tmp_path / "one", keep_all_components=keep)
    check_same(out, tmp_path / "one")
    volumes = {volume["input"]: volume for volume in volumes_of(out)}
    assert list(volumes) == ["0.nii.gz", "1.nii.gz", "2.nii.gz", "3.nii.gz", "cut.nii.gz"]
    assert [volume["status"] for volume in volumes.values()] == ["no_tumor", "tumor", "no_tumor", "tumor", "error"]
    mask = nibabel.load(out / volumes["3.nii.gz"]["mask"]).get_fdata().any(axis=(0, 1))
    assert np.flatnonzero(mask).tolist() == ([3, 10, 11] if keep else [10, 11])


def test_results_parquet_holds_the_same_rows_and_goes_with_the_next_run_in_one_process(
    executor, models, scans, tmp_path
):
    from pyarrow import parquet

    predict_paths(executor, [scans], tmp_path / "out", OPTIONS)
    table = parquet.read_table(tmp_path / "out/results.parquet").to_pylist()
    rows = rows_of(tmp_path / "out")
    assert [(row["slice"], row["status"], row["mask_pixels"], row["accepted_pixels"]) for row in table] == [
        (row["slice"], row["status"], row["mask_pixels"], row["accepted_pixels"]) for row in rows
    ]
    in_one_process(models, scans, tmp_path / "out", resume=True)
    assert not (tmp_path / "out/results.parquet").exists()


def test_a_run_is_resumed_on_a_cluster_and_back_in_one_process(executor, models, scans, tmp_path):
    out = tmp_path / "out"
    later = tmp_path / "later"
    later.mkdir()
    for path in sorted(scans.glob("[23]*.png")):
        path.rename(later / path.name)
    first = in_one_process(models, scans, out)
    for path in sorted(later.glob("2*.png")):
        path.rename(scans / path.name)
    second = predict_paths(executor, [scans], out, replace(OPTIONS, resume=True))
    assert (second.resumed_rows, len(second.rows)) == (len(first.rows) - 1, len(first.rows) + 10)  # one is damaged
    for path in sorted(later.glob("3*.png")):
        path.rename(scans / path.name)
    third = in_one_process(models, scans, out, resume=True)
    assert (third.resumed_rows, len(third.rows)) == (len(second.rows) - 1, len(second.rows) + 10)
    in_one_process(models, scans, tmp_path / "whole")
    check_same(out, tmp_path / "whole")


def test_an_input_that_kills_every_worker_becomes_an_error_and_the_rest_is_done(executor, models, scans, tmp_path):
    out = tmp_path / "out"
    put(scans / "poison.png", whole_file("gray.png"))
    losses = executor.losses
    run = predict_paths(executor, [scans], out, OPTIONS)
    in_a_block_with_others = 2  # at most: beside the block of another input, and before its block was split
    assert MAX_TRIES <= executor.losses - losses <= MAX_TRIES + in_a_block_with_others
    assert sorted(row.name for row in run.failed) == ["damaged.png", "poison.png"]
    assert len(run.rows) == IMAGES + 3 + 6 + 2 + 2
    check_left(out, rows_of(out))
    resumed = in_one_process(models, scans, out, resume=True)
    assert (resumed.resumed_rows, [row.name for row in resumed.failed]) == (len(run.rows) - 2, ["damaged.png"])


def wait_for_both_workers(executor, scans, tmp_path):
    """Wait until the worker that replaces one lost in an earlier test is ready."""
    for number in range(60):
        if len(executor.workers) == 2:
            return
        time.sleep(1)
        predict_paths(executor, [scans / "00.png"], tmp_path / f"wait-{number}", OPTIONS)
    pytest.fail("a worker was not replaced within a minute")


def test_inputs_whose_results_one_worker_cannot_write_are_done_by_the_other(executor, models, scans, tmp_path):
    wait_for_both_workers(executor, scans, tmp_path)
    (tmp_path / "full-disk").mkdir()
    run = predict_paths(executor, [scans], tmp_path / "two", OPTIONS)
    assert (tmp_path / "full-disk/happened").exists()
    assert [row.name for row in run.failed] == ["damaged.png"]
    in_one_process(models, scans, tmp_path / "one")
    check_same(tmp_path / "two", tmp_path / "one")


def test_a_file_that_is_gone_when_a_worker_reads_it_fails_alone(executor, scans, tmp_path):
    run = predict_paths(
        executor, [scans], tmp_path / "out", OPTIONS, on_start=lambda count: (scans / "07.png").unlink()
    )
    assert [row.name for row in run.failed] == ["07.png", "damaged.png"]
    assert "07.png" in run.failed[0].problem
    check_left(tmp_path / "out", rows_of(tmp_path / "out"))


def test_an_address_at_which_nothing_answers_is_an_error_at_once():
    with pytest.raises(CascadeError, match=r"127\.0\.0\.1:1:"), open_cluster(ClusterOptions("127.0.0.1:1"), MODELS):
        pass


@pytest.mark.parametrize("failures", [1, cluster.MAX_TRIES])
def test_ray_is_started_again_if_a_busy_machine_was_too_slow_for_it(monkeypatch, failures):
    """Ray raises a plain `Exception` then, which once ended in a traceback."""
    starts = []

    def init(*arguments, **options):
        starts.append(arguments)
        if len(starts) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster, "available_resources_per_node", dict)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)  # the cluster of other tests stays
    reason = "timed out" if failures == cluster.MAX_TRIES else "no machine"
    with pytest.raises(CascadeError, match=reason), open_cluster(ClusterOptions("local"), MODELS):
        pass
    assert len(starts) == min(failures + 1, cluster.MAX_TRIES)


def start_command(models, scans, out):
    """Start `cascade predict --cluster local` in a process group of its own. It runs until it is stopped."""
    script = Path(__file__).with_name("held_cascade.py")
    command = [sys.executable, script, "predict", str(scans), "--out", str(out), "--cluster", "local"]
    command += ["--models", str(models), "--backend", "onnxruntime", "--batch-size", "2", "--no-report"]
    command += ["--probabilities", "--secondary-capture"]  # as OPTIONS
    environment, pipe = {**os.environ, "PYTHONPATH": str(ROOT)}, subprocess.PIPE
    return subprocess.Popen(
        command,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell ignores Ctrl-C
    )


def wait_until(condition):
    """Wait for another process, however slow the machine is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def has_entries(out):
    journal = out / "journal.jsonl"
    return journal.exists() and '"sha256"' in journal.read_text()


def descendants(pid):
    """Return the numbers of all processes that a process has started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, pending = set(), {pid}
    while pending := {child for child, parent in parents.items() if parent in pending}:
        found |= pending
    return found


def is_worker(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::HeldWorker")
    return False


def workers_of(pid):
    return {number for number in descendants(pid) if is_worker(number)}


def are_gone(pids):
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture
def scans_to_hold(scans):
    """Scans of which the last are still to be done when a worker of held_cascade.py waits."""
    for number in range(IMAGES):
        os.link(scans / f"{number:02}.png", scans / f"hold-{number:02}.png")
    return scans


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_after_a_driver_was_killed_its_results_at_a_url_are_continued_when_its_lock_is_removed(
    executor, models, scans_to_hold, tmp_path
):
    out = tmp_path / "out"
    process = start_command(models, scans_to_hold, out.as_uri())
    wait_until(lambda: any('"sha256"' in path.read_text() for path in out.glob(".cascade-journal/0*.jsonl")))
    workers = workers_of(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: are_gone(workers))
    masks = set(out.glob("masks/*.png"))
    with pytest.raises(CascadeError, match=f"process {process.pid} on ") as error:
        predict_paths(executor, [scans_to_hold], out.as_uri(), replace(OPTIONS, resume=True))
    assert f"remove {out.as_uri()}/{RUN_LOCK}" in error.value.fix
    assert set(out.glob("masks/*.png")) == masks
    (out / RUN_LOCK).unlink()
    resumed = predict_paths(executor, [scans_to_hold], out.as_uri(), replace(OPTIONS, resume=True))
    assert 0 < resumed.resumed_rows < len(resumed.rows)
    in_one_process(models, scans_to_hold, tmp_path / "whole")
    check_same(out, tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_after_a_driver_was_killed_nothing_is_lost_and_nothing_is_done_twice(models, scans_to_hold, tmp_path):
    out = tmp_path / "out"
    process = start_command(models, scans_to_hold, out)
    wait_until(lambda: has_entries(out))
    workers = workers_of(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: are_gone(workers))
    finished = len(read_entries(out, settings_of(out)))
    resumed = in_one_process(models, scans_to_hold, out, resume=True)
    assert 0 < finished <= resumed.resumed_rows < len(resumed.rows)
    in_one_process(models, scans_to_hold, tmp_path / "whole")
    check_same(out, tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_ctrl_c_keeps_what_is_done_and_ends_the_cluster_without_a_word_from_ray(models, scans_to_hold, tmp_path):
    """Ray prints every lost worker to stdout, where `--json` writes."""
    out = tmp_path / "out"
    process = start_command(models, scans_to_hold, out)
    wait_until(lambda: has_entries(out))
    workers = workers_of(process.pid)
    os.kill(min(workers), signal.SIGKILL)
    wait_until(lambda: workers_of(process.pid) - workers)  # another one takes its place
    started = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert stdout == ""
    assert "Interrupted with" in stderr
    assert "Traceback" not in stderr
    assert "ray" not in stderr.replace(str(tmp_path), "").lower()
    wait_until(lambda: are_gone(started))
    rows = rows_of(out)
    assert 0 < len(rows) < 2 * IMAGES
    check_left(out, rows)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_a_cluster_that_loses_its_head_leaves_tables_and_a_message(models, scans_to_hold, tmp_path):
    """Ray ended the process after a minute, with neither. The references of the workers were never ready."""
    out = tmp_path / "out"
    process = start_command(models, scans_to_hold, out)
    wait_until(lambda: has_entries(out))
    started = descendants(process.pid)
    (head,) = (pid for pid in started if Path(f"/proc/{pid}/exe").resolve().name == "gcs_server")
    os.kill(head, signal.SIGKILL)
    assert process.wait(PATIENCE_SECONDS) == 1
    for pid in started:  # without a head, they would end a minute later
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert "the head of the cluster at" in process.communicate()[1]
    finished = len(rows_of(out))
    resumed = in_one_process(models, scans_to_hold, out, resume=True)
    assert 0 < finished <= resumed.resumed_rows < len(resumed.rows)
    check_left(out, rows_of(out))  # the workers have written on


def settings_of(out):
    """Return the settings that the journal of a run begins with."""
    return json.loads((out / "journal.jsonl").read_text().partition("\n")[0])
