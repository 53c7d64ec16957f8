import json
import os
import signal
import threading
import time
import weakref
from itertools import count

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from stub_cascade import AlwaysGlioma, BrightIsTumor

import cascade.io.image
from cascade.contract import PROBABILITY
from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.io.open import open_sources
from cascade.io.slices import Slice
from cascade.io.volume import AffineVolume
from cascade.pipeline import Cascade
from cascade.prediction.batch import InProcess, io_threads
from cascade.prediction.earlier import read_entries
from cascade.prediction.executor import Job
from cascade.prediction.journal import Journal
from cascade.prediction.recorder import Recorder
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run import predict_sources
from cascade.runtime.cpu import CpuBackend
from cascade.volume.stack import Stack

CASCADE = Cascade(CpuBackend(BrightIsTumor(), AlwaysGlioma()))


def tumor(height=64, width=64, top=255):
    """A ramp of 0 .. 100 with a square of 10 x 10 pixels at `top`."""
    pixels = np.tile(np.linspace(0, 100, width), (height, 1))
    pixels[10:20, 20:30] = top
    return pixels


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def save_mat(path, pixels):
    with h5py.File(path, "w") as file:
        file["cjdata/image"] = pixels.T.astype(np.int16)
        file["cjdata/tumorMask"] = np.zeros(pixels.T.shape, dtype=np.uint8)
        file["cjdata/label"] = np.array([[1.0]])
        file["cjdata/PID"] = np.array([[ord("7")]], dtype=np.uint16)


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


def run_on(scans, cascade_=CASCADE, batch_size=4, overlays=True, **options):
    inputs = find_slices([scans])
    folder = ResultsFolder(scans.parent / "out", inputs.folder, overlays, {"segmenter": "5", "classifier": "c"}, "stub")
    sources, problems, _ = open_sources(inputs)
    return predict_sources(cascade_, sources, folder, batch_size=batch_size, problems=problems, **options), folder


def mask_of(folder, name):
    return np.asarray(Image.open(folder.mask_path(name)))


def test_every_image_format_gets_a_mask_on_its_own_grid(scans):
    eight_bits = tumor(48, 96).astype(np.uint8)
    save(scans / "gray.png", eight_bits)
    save(scans / "deep.png", tumor(96, 48, top=4000).astype(np.uint16))
    save(scans / "color.png", np.stack([eight_bits] * 3, axis=2))
    save(scans / "a.bmp", eight_bits)
    save(scans / "a.tif", eight_bits)
    save(scans / "a.webp", eight_bits, lossless=True)
    save(scans / "a.jpg", eight_bits, quality=95)
    save_mat(scans / "1.mat", tumor(512, 512))
    run, folder = run_on(scans)
    assert [row.status for row in run.rows] == 8 * ["tumor"]
    for name in ("gray.png", "color.png", "a.bmp", "a.tif", "a.webp", "a.jpg"):
        mask = mask_of(folder, name)
        assert mask.shape == (48, 96)
        assert mask[15, 25] == 255
        assert mask[30, 60] == 0
    assert mask_of(folder, "deep.png").shape == (96, 48)
    assert mask_of(folder, "1.mat").shape == (512, 512)


def test_a_row_has_class_box_and_area_also_in_square_millimeters_if_the_spacing_is_known(scans):
    save_mat(scans / "1.mat", tumor(512, 512))
    save(scans / "2.png", tumor(256, 256).astype(np.uint8))
    rows = {row.name: row for row in run_on(scans)[0].rows}
    assert rows["1.mat"].label == "glioma"
    assert rows["1.mat"].probabilities == (0.25, 0.5, 0.25)
    assert rows["1.mat"].box == (100, 50, 200, 250)
    assert rows["1.mat"].mask_pixels == 100
    assert rows["1.mat"].mask_mm2 == pytest.approx(100 * 0.49 * 0.49)
    assert rows["1.mat"].latency_ms > 0
    assert rows["2.png"].box == (50, 25, 100, 125)
    assert rows["2.png"].mask_mm2 is None


def test_a_slice_without_bright_pixels_has_an_empty_mask_and_no_class(scans):
    save(scans / "a.png", tumor(top=0).astype(np.uint8))
    run, folder = run_on(scans)
    (row,) = run.rows
    assert (row.status, row.label, row.box, row.mask_pixels) == ("no_tumor", None, None, 0)
    assert mask_of(folder, "a.png").max() == 0
    assert run.exit_code == 0


def test_broken_files_are_reported_and_the_others_are_predicted(scans):
    for number in range(6):
        save(scans / f"{number}.png", tumor().astype(np.uint8))
    (scans / "2.png").write_bytes((scans / "2.png").read_bytes()[:80])
    (scans / "note.jpg").write_text("not a picture")
    run, folder = run_on(scans)
    assert run.exit_code == 2
    assert [row.name for row in run.failed] == ["2.png", "note.jpg"]
    assert all(row.problem.startswith(str(scans / row.name)) and row.fix for row in run.failed)
    assert sorted(path.name for path in (folder.out / "masks").iterdir()) == [
        "0.png",
        "1.png",
        "3.png",
        "4.png",
        "5.png",
    ]
    statuses = [record["status"] for record in json.loads(folder.json_path.read_text())["slices"]]
    assert statuses == ["tumor", "tumor", "error", "tumor", "tumor", "tumor", "error"]


def test_a_run_of_broken_files_only_exits_with_1(scans):
    (scans / "a.png").write_text("not a picture")
    assert run_on(scans)[0].exit_code == 1


def test_a_missing_input_is_a_failure_and_the_others_are_predicted(scans):
    save(scans / "a.png", tumor().astype(np.uint8))
    sources, problems, _ = open_sources(find_slices([scans, scans / "missing.png"]))
    folder = ResultsFolder(scans.parent / "out", scans, True, {}, "stub")
    run = predict_sources(CASCADE, sources, folder, batch_size=4, problems=problems)
    assert run.exit_code == 2
    assert json.loads(folder.json_path.read_text())["slices"][1]["slice"] == "missing.png"


def test_files_of_one_stem_and_of_two_folders_keep_their_results_apart(scans):
    for name in ("a.png", "a.bmp", "b/a.png", "c/a.png"):
        save(scans / name, tumor().astype(np.uint8))
    folder = run_on(scans)[1]
    for kind in ("masks", "overlays"):
        below = folder.out / kind
        names = sorted(path.relative_to(below).as_posix() for path in below.rglob("*") if path.is_file())
        assert names == ["a.bmp.png", "a.png", "b/a.png", "c/a.png"]


def test_without_overlays_none_is_written(scans):
    save(scans / "a.png", tumor().astype(np.uint8))
    folder = run_on(scans, overlays=False)[1]
    assert not (folder.out / "overlays").exists()
    assert json.loads(folder.json_path.read_text())["slices"][0]["overlay"] is None


def test_an_overlay_that_cannot_be_written_fails_its_slice_only(scans):
    save(scans / "a.png", tumor().astype(np.uint8))
    save(scans / "b.png", tumor().astype(np.uint8))
    (scans.parent / "out" / "masks" / "a.png").mkdir(parents=True)
    run, _ = run_on(scans)
    assert [row.name for row in run.failed] == ["a.png"]
    assert "cannot be written" in run.failed[0].problem


class SomethingHappensInThirdBatch(BrightIsTumor):
    def __init__(self, happens):
        self.happens, self.batches = happens, 0

    def run(self, slice):
        self.batches += 1
        if self.batches == 3:
            self.happens()
        return super().run(slice)


@pytest.fixture
def sigint():
    """Let Ctrl-C interrupt, as in a terminal: a test run in the background inherits that it is ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_ends_the_run_after_the_batch_and_keeps_its_results(scans):
    for number in range(20):
        save(scans / f"{number:02}.png", tumor().astype(np.uint8))
    press = SomethingHappensInThirdBatch(lambda: signal.raise_signal(signal.SIGINT))
    run, folder = run_on(scans, Cascade(CpuBackend(press, AlwaysGlioma())))
    content = json.loads(folder.json_path.read_text())
    assert run.exit_code == 130
    assert content["complete"] is False
    assert [record["slice"] for record in content["slices"]] == [f"{number:02}.png" for number in range(12)]
    assert all((folder.out / record["mask"]).exists() for record in content["slices"])


@pytest.mark.usefixtures("sigint")
def test_a_second_ctrl_c_ends_the_run_at_once_and_keeps_its_results(scans):
    for number in range(20):
        save(scans / f"{number:02}.png", tumor().astype(np.uint8))
    press = SomethingHappensInThirdBatch(lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        run_on(scans, Cascade(CpuBackend(press, AlwaysGlioma())))
    assert len(json.loads((scans.parent / "out" / "results.json").read_text())["slices"]) == 8


def test_a_bug_keeps_its_traceback_and_the_results_before_it(scans):
    for number in range(20):
        save(scans / f"{number:02}.png", tumor().astype(np.uint8))
    with pytest.raises(ZeroDivisionError):
        run_on(scans, Cascade(CpuBackend(SomethingHappensInThirdBatch(lambda: 1 / 0), AlwaysGlioma())))
    assert len(json.loads((scans.parent / "out" / "results.json").read_text())["slices"]) == 8


@pytest.mark.parametrize("name", ["0.png", "5.png"])
def test_a_bug_in_the_writing_of_the_first_or_the_last_batch_ends_the_run(scans, monkeypatch, name):
    """The slice would be missing without a word if nobody waited for the writers of its batch."""
    for number in range(6):
        save(scans / f"{number}.png", tumor().astype(np.uint8))
    record = Recorder.record

    def fail_at_one(self, state, *arguments):
        if state.source.name == name:
            raise RuntimeError("a bug")
        record(self, state, *arguments)

    monkeypatch.setattr(Recorder, "record", fail_at_one)
    with pytest.raises(RuntimeError, match="a bug"):
        run_on(scans, batch_size=1)


def test_every_input_is_announced_once_before_its_first_file_is_written(scans):
    """The journal notes what is announced, so that a resumed run finds the files of an input that was not finished."""
    save(scans / "a.png", tumor().astype(np.uint8))
    volume = np.tile(tumor()[..., None], 3).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), scans / "head.nii")
    inputs = find_slices([scans], formats=FORMATS)
    sources, _, _ = open_sources(inputs)
    folder = ResultsFolder(scans.parent / "out", inputs.folder, True, {}, "stub")
    announced = []

    def announce(begun):
        announced.extend((source.name, list(folder.out.rglob(f"{source.name}*"))) for source in begun)

    job = Job(folder, 1, announce, lambda lines: None, lambda count: None, threading.Event())
    InProcess(CASCADE).run(sources, job)
    assert announced == [("a.png", []), ("head.nii", [])]


def test_the_journal_lists_finished_inputs_during_the_run(scans):
    finished = []
    for number in range(12):
        save(scans / f"{number:02}.png", tumor().astype(np.uint8))
    out = scans.parent / "out"
    journal = Journal(out, {})

    class ReadsJournal(BrightIsTumor):
        def run(self, slice):
            finished.append(len(read_entries(out, {})))
            return super().run(slice)

    run_on(scans, Cascade(CpuBackend(ReadsJournal(), AlwaysGlioma())), journal=journal)
    journal.close()
    assert finished[0] == 0
    assert finished[2] >= 4  # when the third batch starts, the first is finished and the second is being written
    assert len(read_entries(out, {})) == 12


def test_the_tables_are_written_once_however_long_the_run_takes(scans, monkeypatch):
    """All rows were written again every 30 s while the models waited, which took up to 20 s for 100,000 slices."""
    for number in range(20):
        save(scans / f"{number:02}.png", tumor().astype(np.uint8))
    minutes, saved, save_tables = count(), [], ResultsFolder.save

    def save_and_count(folder, rows, volumes, *, complete):
        saved.append(len(rows))
        save_tables(folder, rows, volumes, complete=complete)

    monkeypatch.setattr(time, "monotonic", lambda: 60.0 * next(minutes))
    monkeypatch.setattr(ResultsFolder, "save", save_and_count)
    journal = Journal(scans.parent / "out", {})
    run_on(scans, journal=journal)
    journal.close()
    assert saved == [20]


def test_a_long_run_flushes_its_journal_to_the_disk_at_intervals(scans, monkeypatch):
    for number in range(20):
        save(scans / f"{number:02}.png", tumor().astype(np.uint8))
    minutes, journal, synced = count(), Journal(scans.parent / "out", {}), []
    monkeypatch.setattr(time, "monotonic", lambda: 60.0 * next(minutes))
    monkeypatch.setattr(journal, "sync", lambda: synced.append(True))
    run_on(scans, journal=journal)
    assert len(synced) >= 4


def test_a_table_locked_by_another_program_for_a_while_does_not_end_the_run(scans, monkeypatch):
    """Windows lets nobody replace a file that Excel has open: one such save ended the run."""
    for number in range(12):
        save(scans / f"{number:02}.png", tumor().astype(np.uint8))
    replace, batches = os.replace, []

    def held(source, target):
        if str(target).endswith("results.csv") and len(batches) < 3:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    class Counts(BrightIsTumor):
        def run(self, slice):
            batches.append(len(slice))
            return super().run(slice)

    monkeypatch.setattr(os, "replace", held)
    run, folder = run_on(scans, Cascade(CpuBackend(Counts(), AlwaysGlioma())))
    assert len(run.rows) == len(folder.csv_path.read_text().splitlines()) - 1 == 12


def test_a_volume_is_closed_once_its_mask_is_written(scans, monkeypatch):
    """Otherwise, the voxels of all volumes of a run would stay in memory."""
    array = np.zeros((32, 32, 3), dtype=np.float32) + np.arange(32)[:, None, None]
    for name in ("a.nii", "b.nii", "broken.nii"):
        array[0, 0, 1] = np.nan if name == "broken.nii" else 0
        nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), scans / name)
    closed, close = [], AffineVolume.close

    def closes(source):
        closed.append((source.name, folder.mask_path(source.name, source.mask_suffix).exists()))
        close(source)

    monkeypatch.setattr(AffineVolume, "close", closes)
    inputs = find_slices([scans], formats=FORMATS)
    sources, _, _ = open_sources(inputs)
    folder = ResultsFolder(scans.parent / "out", inputs.folder, True, {}, "stub")
    predict_sources(CASCADE, sources, folder, batch_size=4)
    assert sorted(closed) == [("a.nii", True), ("b.nii", True), ("broken.nii", True)]


@pytest.mark.parametrize(("usable", "threads"), [(1, 2), (2, 2), (8, 4), (64, 8)])
def test_the_number_of_threads_depends_on_the_cores_that_the_process_may_use(monkeypatch, usable, threads):
    """A container or `taskset` may allow two of 64 cores, but all were counted."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(usable)), raising=False)
    assert io_threads() == threads


def test_progress_is_reported_once_per_slice(scans):
    for number in range(9):
        save(scans / f"{number}.png", tumor().astype(np.uint8))
    told = []
    run_on(scans, on_progress=told.append)
    assert told == [1] * 9


def test_of_300_slices_at_most_five_batches_are_in_memory(scans, monkeypatch):
    lock, alive, peak = threading.Lock(), set(), 0

    def read(path):
        nonlocal peak
        found = Slice(tumor(32, 32).astype(np.float32))
        with lock:
            alive.add(id(found))
            peak = max(peak, len(alive))
        weakref.finalize(found, alive.discard, id(found))
        return found

    monkeypatch.setattr(cascade.io.image, "read_slice", read)
    for number in range(300):
        (scans / f"{number}.png").touch()
    run, _ = run_on(scans, batch_size=4)
    assert len(run.rows) == 300
    assert not run.failed
    assert peak <= 20


def test_masks_of_finished_inputs_do_not_stay_in_memory(scans, monkeypatch):
    """The masks of all inputs were kept until the end of the run: 0.25 MB for each slice of 512 x 512 pixels."""
    alive, peak, lock = set(), 0, threading.Lock()
    empty = Stack.empty

    def counted(*arguments):
        nonlocal peak
        stack = empty(*arguments)
        with lock:
            alive.add(id(stack))
            peak = max(peak, len(alive))
        weakref.finalize(stack, alive.discard, id(stack))
        return stack

    monkeypatch.setattr(Stack, "empty", counted)
    for number in range(100):
        save(scans / f"{number}.png", tumor().astype(np.uint8))
    run, _ = run_on(scans, batch_size=4)
    assert len(run.rows) == 100
    assert peak <= 20


def test_an_error_of_the_models_is_not_reported_as_a_bad_file(scans):
    save(scans / "a.png", tumor().astype(np.uint8))

    class ComputesNaN:
        def run(self, slice):
            return {PROBABILITY: np.full_like(slice, np.nan)}

    with pytest.raises(CascadeError, match="NaN"):
        run_on(scans, Cascade(CpuBackend(ComputesNaN(), AlwaysGlioma())))
