"""A run resumes what an earlier one has finished, also after a kill, and never the results of another run."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import series as dicom_series
from PIL import Image
from run_inputs import Counting, save, save_volume
from run_inputs import out as out
from run_inputs import scans as scans
from stub_cascade import MODELS, AlwaysGlioma, BrightIsTumor, cascade_of, rows_of

from cascade.errors import CascadeError
from cascade.io.checksums import sha256_of_files
from cascade.pipeline import Cascade
from cascade.prediction import earlier
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.runtime.cpu import CpuBackend


def test_resuming_predicts_only_inputs_that_are_new_or_changed_or_whose_results_are_damaged(scans, out):
    for number in range(6):
        save(scans / f"{number}.png", number)
    predict_paths(cascade_of(), [scans], out)
    again = Counting()
    run = predict_paths(cascade_of(again), [scans], out, RunOptions(resume=True))
    assert (again.slices, run.resumed_rows, len(rows_of(out))) == (0, 6, 6)
    save(scans / "1.png", 77)
    (out / "masks/2.png").write_bytes(b"half a m")
    (out / "overlays/3.png").unlink()
    save(scans / "6.png", 6)
    (scans / "0.png").unlink()
    again = Counting()
    run = predict_paths(cascade_of(again), [scans], out, RunOptions(resume=True))
    assert (again.slices, run.resumed_rows) == (4, 2)
    assert [row["slice"] for row in rows_of(out)] == [f"{number}.png" for number in range(1, 7)]
    assert not (out / "masks/0.png").exists()
    assert run.dropped == ("0.png",)
    assert json.loads((out / "run.json").read_text())["dropped"] == ["0.png"]
    assert Image.open(out / "masks/2.png").size == (48, 48)


@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}], ids=str)
def test_a_run_that_ends_while_it_removes_old_files_leaves_tables_that_miss_none(scans, out, monkeypatch, options):
    """The tables of the run before, complete by their own account, named masks that were gone."""
    for number in range(2):
        save(scans / f"{number}.png", number)
    predict_paths(cascade_of(), [scans], out)
    (scans / "0.png").unlink()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_paths(cascade_of(), [scans], out, RunOptions(**options))
    assert json.loads((out / "results.json").read_text())["complete"] is False
    assert {row["slice"] for row in rows_of(out)} <= {"1.png"}


def test_an_input_that_can_no_longer_be_read_is_not_taken_for_unchanged(scans, out, monkeypatch):
    """Its checksum cannot be computed. Predicting it again reports the reason, and the other inputs stay finished."""
    for number in range(3):
        save(scans / f"{number}.png", number)
    predict_paths(cascade_of(), [scans], out)

    def checksum(paths):
        if paths[0].name == "1.png":
            raise CascadeError("1.png: the network drive does not answer", fix="try again")
        return sha256_of_files(paths)

    monkeypatch.setattr(earlier, "sha256_of_files", checksum)
    again = Counting()
    run = predict_paths(cascade_of(again), [scans], out, RunOptions(resume=True))
    assert (again.slices, run.resumed_rows, len(rows_of(out))) == (1, 2, 3)


def test_a_series_whose_files_were_renamed_is_predicted_again(scans, out):
    for number, path in enumerate(dicom_series(scans)):
        path.rename(scans / f"old{number}.dcm")
    predict_paths(cascade_of(), [scans], out)
    for path in scans.glob("old*"):
        path.rename(scans / f"new{path.name[3:]}")
    predict_paths(cascade_of(), [scans], out, RunOptions(resume=True))
    assert {row["file"] for row in rows_of(out)} == {path.name for path in scans.iterdir()}


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_resuming_removes_overlays_of_an_unfinished_volume(scans, out, how):
    """They stayed beside rows with status no_tumor: neither journal nor rows mentioned an interrupted volume."""
    array = np.zeros((32, 32, 6), dtype=np.float32) + np.arange(32)[:, None, None]
    array[4:10, 8:20] = 320
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), scans / "head.nii.gz")

    class Dies(Counting):
        def run(self, slice):
            if self.slices == 4:
                raise ZeroDivisionError
            return super().run(slice)

    with pytest.raises(ZeroDivisionError):
        predict_paths(cascade_of(Dies()), [scans], out, RunOptions(batch_size=1))
    assert list(out.glob("overlays/head.nii.gz/*.png"))
    array[:] = np.arange(32)[:, None, None]
    nibabel.save(nibabel.Nifti1Image(array[..., :2], np.diag([0.98, 0.98, 5.0, 1.0])), scans / "head.nii.gz")
    predict_paths(cascade_of(), [scans], out, RunOptions(**{how: True}))
    assert {row["status"] for row in rows_of(out)} == {"no_tumor"}
    assert {path.name for path in out.glob("overlays/**/*.png")} == {"0.png", "1.png"}


def test_an_input_that_now_fails_or_shows_no_tumor_keeps_no_earlier_results(scans, out):
    save(scans / "a.png")
    save_volume(scans / "head.nii.gz")
    predict_paths(cascade_of(), [scans], out)
    assert (out / "masks/a.png").exists()
    overlay = out / "overlays/head.nii.gz/1.png"
    with_tumor = overlay.read_bytes()
    (scans / "a.png").write_bytes(b"no picture any more")
    array = np.repeat(np.arange(32, dtype=np.float32)[:, None, None], 3, axis=2) * np.ones((32, 32, 1), np.float32)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), scans / "head.nii.gz")
    predict_paths(cascade_of(), [scans], out, RunOptions(resume=True))
    assert [row["status"] for row in rows_of(out)] == ["error", "no_tumor", "no_tumor", "no_tumor"]
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.is_file() and path.parent != out}
    assert left == {"masks/head.nii.gz", *(f"overlays/head.nii.gz/{number}.png" for number in range(3))}
    assert overlay.read_bytes() != with_tumor


def test_a_volume_that_no_longer_opens_fails_alone_in_a_resumed_run(scans, out):
    save(scans / "a.png")
    save_volume(scans / "head.nii.gz")
    predict_paths(cascade_of(), [scans], out)
    (scans / "head.nii.gz").write_bytes(b"no volume any more")
    run = predict_paths(cascade_of(), [scans], out, RunOptions(resume=True))
    assert (run.resumed_rows, [row.name for row in run.failed]) == (1, ["head.nii.gz"])
    assert not (out / "masks/head.nii.gz").exists()


def test_a_run_is_not_resumed_with_other_models_options_or_inputs(scans, out):
    save(scans / "one/a.png")
    save(scans / "two/b.png")
    predict_paths(cascade_of(), [scans], out)
    before = what_stays(out)
    other = cascade_of(models={**MODELS, "segmenter": "other"})
    for loaded, path, options, said in (
        (other, scans, RunOptions(resume=True), "models was"),
        (cascade_of(), scans, RunOptions(resume=True, overlays=False), "overlays was True, is False"),
        (cascade_of(), scans / "one", RunOptions(resume=True), "folder of inputs was"),
        (cascade_of(), scans, RunOptions(resume=True, exclude=("b.png",)), r"b\.png, which is not part of this run"),
    ):
        with pytest.raises(CascadeError, match=said) as raised:
            predict_paths(loaded, [path], out, options)
        assert "--overwrite" in raised.value.fix
        assert what_stays(out) == before
    assert predict_paths(other, [scans], out, RunOptions(overwrite=True)).resumed_rows == 0


def test_a_run_is_not_resumed_by_other_standards_of_certainty(scans, out):
    """models.json holds them, not the graphs. Half of the rows were marked as uncertain below 0, half below 0.65."""
    save(scans / "a.png")
    predict_paths(cascade_of(), [scans], out)
    save(scans / "b.png")
    strict = Cascade(CpuBackend(BrightIsTumor(), AlwaysGlioma()), MODELS, uncertain_below=0.65)
    with pytest.raises(CascadeError, match=r"uncertain_below was 0\.0, is 0\.65"):
        predict_paths(strict, [scans], out, RunOptions(resume=True))
    assert predict_paths(strict, [scans], out, RunOptions(overwrite=True)).exit_code == 0
    assert predict_paths(strict, [scans], out, RunOptions(resume=True)).resumed_rows == 2


@pytest.mark.parametrize("left_out", ["study.zip", "b.png", "z.png", "IM0003", "series"])
def test_resuming_does_not_remove_results_of_excluded_zip_members_and_series(scans, out, left_out):
    """They were removed silently: only files of the names of inputs were looked for, and neither input has one."""
    save(scans / "a.png")
    with zipfile.ZipFile(scans / "study.zip", "w") as archive:
        archive.write(scans / "a.png", "inner/b.png")
        archive.write(scans / "a.png", "z.png")
    dicom_series(scans / "series")
    predict_paths(cascade_of(), [scans], out)
    before = what_stays(out)
    with pytest.raises(CascadeError, match=r"contains results of .*, which is not part of this run"):
        predict_paths(cascade_of(), [scans], out, RunOptions(resume=True, exclude=(left_out,)))
    assert what_stays(out) == before


def test_results_of_a_member_removed_from_its_zip_are_removed(scans, out):
    save(scans / "a.png")
    for members in (["b.png", "c.png"], ["c.png"]):
        with zipfile.ZipFile(scans / "study.zip", "w") as archive:
            for member in members:
                archive.write(scans / "a.png", member)
        run = predict_paths(cascade_of(), [scans], out, RunOptions(resume=members == ["c.png"]))
    assert (run.resumed_rows, run.dropped) == (2, ("study.zip/b.png",))
    assert [row["slice"] for row in rows_of(out)] == ["a.png", "study.zip/c.png"]
    (scans / "study.zip").write_bytes(b"no zip any more")
    run = predict_paths(cascade_of(), [scans], out, RunOptions(resume=True))
    assert (run.resumed_rows, [row.name for row in run.failed]) == (1, ["study.zip"])
    assert run.dropped == ()  # its members were said to be no longer there
    (scans / "study.zip").unlink()
    assert predict_paths(cascade_of(), [scans], out, RunOptions(resume=True)).resumed_rows == 1


@pytest.mark.usefixtures("permissions")
def test_results_of_a_folder_that_may_not_be_searched_now_are_kept(scans, out):
    """The search for its files ended with a traceback."""
    save(scans / "a.png")
    save(scans / "sub/b.png")
    predict_paths(cascade_of(), [scans], out)
    (scans / "sub").chmod(0)
    try:
        with pytest.raises(CascadeError, match=r"sub/b\.png, which is not part of this run"):
            predict_paths(cascade_of(), [scans], out, RunOptions(resume=True))
    finally:
        (scans / "sub").chmod(0o700)
    assert predict_paths(cascade_of(), [scans], out, RunOptions(resume=True)).resumed_rows == 2


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_foreign_files_among_the_masks_are_kept_and_an_old_report_is_removed(scans, out, how):
    """Corrected masks were removed silently, and the results of a killed run had the report of the previous run."""
    save(scans / "a.png")
    save_volume(scans / "head.nii.gz")
    predict_paths(cascade_of(), [scans], out)
    for name in ("masks/mine.mat", "overlays/sub/mine.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"mine")
    (scans / "a.png").unlink()
    predict_paths(cascade_of(), [scans], out, RunOptions(**{how: True}, report=False))
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.is_file() and path.parent != out}
    overlays = {"overlays/head.nii.gz/0.png", "overlays/head.nii.gz/1.png"}
    assert left == {"masks/mine.mat", "overlays/sub/mine.png", "masks/head.nii.gz"} | overlays
    assert not (out / "report.html").exists()


def test_a_resumed_run_keeps_the_earlier_rows_while_it_runs(scans, out):
    save(scans / "a.png")
    predict_paths(cascade_of(), [scans], out)
    save(scans / "b.png", 1)

    class Looks(BrightIsTumor):
        def run(self, slice):
            self.seen = [row["slice"] for row in rows_of(out)]
            return super().run(slice)

    looks = Looks()
    predict_paths(cascade_of(looks), [scans], out, RunOptions(resume=True))
    assert looks.seen == ["a.png"]


def test_resuming_writes_the_tables_that_could_not_be_written(scans, out, monkeypatch):
    """The journal contains all results, so that no slice is computed again."""
    for number in range(3):
        save(scans / f"{number}.png", number)
    replace, held = os.replace, []

    def hold(source, target):
        if str(target).endswith("results.csv") and held:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    class Holds(BrightIsTumor):
        def run(self, slice):
            held.append(True)
            return super().run(slice)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", hold)
        with pytest.raises(CascadeError, match=r"results\.csv"):
            predict_paths(cascade_of(Holds()), [scans], out)
    again = Counting()
    run = predict_paths(cascade_of(again), [scans], out, RunOptions(resume=True))
    assert (again.slices, run.resumed_rows, len(rows_of(out))) == (0, 3, 3)


def test_a_journal_with_a_truncated_last_line_counts_up_to_it(scans, out):
    for number in range(3):
        save(scans / f"{number}.png", number)
    predict_paths(cascade_of(), [scans], out, RunOptions(batch_size=1))
    journal = out / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    again = Counting()
    predict_paths(cascade_of(again), [scans], out, RunOptions(resume=True))
    assert again.slices == 1


def test_results_are_not_resumed_over_those_of_another_program(scans, out):
    save(scans / "a.png")
    (out / "masks").mkdir(parents=True)
    with pytest.raises(CascadeError, match="not written by cascade"):
        predict_paths(cascade_of(), [scans], out, RunOptions(resume=True))


KILL_50_TIMES = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, 'tests')
from stub_cascade import BrightIsTumor, cascade_of
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

class Slow(BrightIsTumor):
    def run(self, slice):
        time.sleep(0.06)
        return super().run(slice)

def go_on():
    options = RunOptions(batch_size=2, resume=True, report=False)
    predict_paths(cascade_of(Slow()), [Path(sys.argv[1])], Path(sys.argv[2]), options)

moments, killed = random.Random(0), 0
for _ in range(50):
    child = os.fork()
    if child == 0:
        go_on()
        os._exit(0)
    time.sleep(moments.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
go_on()
print(killed)
"""


def what_stays(out):
    """All that a run leaves, but for times."""
    content = json.loads((out / "results.json").read_text())
    rows = [{key: value for key, value in row.items() if key != "latency_ms"} for row in content.pop("slices")]
    files = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for below in ("masks", "overlays")
        for path in (out / below).rglob("*")
        if path.is_file()
    }
    return content, rows, files


@pytest.mark.slow
def test_a_run_killed_50_times_ends_with_the_results_of_an_uninterrupted_one(scans, out, tmp_path):
    for number in range(60):
        save(scans / f"{number:02}.png", number)
    save_volume(scans / "head.nii.gz")
    predict_paths(cascade_of(), [scans], tmp_path / "whole", RunOptions(batch_size=2, report=False))
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILL_50_TIMES, str(scans), str(out)]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert int(ended.stdout) >= 40  # the others had come to their end before
    assert what_stays(out) == what_stays(tmp_path / "whole")
