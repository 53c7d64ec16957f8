"""A whole run: its output, its record, and how it resumes after a kill."""

import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import series as dicom_series
from PIL import Image
from stub_cascade import MODELS, AlwaysGlioma, BrightIsTumor, cascade_of, rows_of

import cascade.prediction.recorder
from cascade.contract import CLASS_PROBABILITY
from cascade.errors import CascadeError
from cascade.files import sha256_of
from cascade.io.checksums import sha256_of_files
from cascade.pipeline import Cascade
from cascade.prediction import earlier
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.runtime.cpu import CpuBackend


class Counting(BrightIsTumor):
    """Counts the slices it segments."""

    def __init__(self):
        self.slices = 0

    def run(self, slice):
        self.slices += len(slice)
        return super().run(slice)


def picture(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 100, (48, 48)).astype(np.uint8)
    pixels[10:20, 20:30] = 255
    return pixels


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)


def save_volume(path):
    """Three slices of 32 x 32 along the last axis: nothing, a bright square, a blank one."""
    array = np.zeros((32, 32, 3), dtype=np.float32)
    array[..., 0] = np.arange(32)
    array[..., 1] = np.arange(32)
    array[4:10, 8:20, 1] = 320  # of the pixels enlarged to twice their number the same ones are above 200
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), path)


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_volume_gets_one_row_per_slice_and_one_mask_in_its_own_geometry(scans, out):
    save_volume(scans / "p/head.nii.gz")
    run = predict_paths(cascade_of(), [scans], out)
    assert run.exit_code == 0
    assert [(row["slice"], row["index"], row["status"]) for row in rows_of(out)] == [
        ("p/head.nii.gz/0", 0, "no_tumor"),
        ("p/head.nii.gz/1", 1, "tumor"),
        ("p/head.nii.gz/2", 2, "no_tumor"),
    ]
    (blank,) = [row for row in rows_of(out) if row["notes"]]
    assert (blank["index"], blank["notes"]) == (2, "blank")
    none, tumor, blank = rows_of(out)
    assert none["overlay"].endswith("head.nii.gz/0.png")
    assert tumor["overlay"].endswith("head.nii.gz/1.png")
    assert all((out / row["overlay"]).is_file() for row in (none, tumor))
    assert blank["overlay"] is None
    assert tumor["mask_mm2"] == pytest.approx(tumor["mask_pixels"] * 0.98 * 0.98, abs=0.01)
    mask, volume = nibabel.load(out / tumor["mask"]), nibabel.load(scans / "p/head.nii.gz")
    assert np.array_equal(mask.affine, volume.affine)
    assert np.array_equal(np.asarray(mask.dataobj) > 0, np.asarray(volume.dataobj) > 200)


def test_the_models_get_a_slice_at_the_scale_of_the_training_data(scans, out):
    """A slice is not enlarged to fill the square if its spacing is known: the edges are those of the training scale."""
    seen = []

    class Looks(BrightIsTumor):
        def run(self, slice):
            seen.append(slice)
            return super().run(slice)

    save_volume(scans / "head.nii")
    predict_paths(cascade_of(Looks()), [scans], out)
    rows, columns = np.nonzero(seen[0][1, 0] > 200)
    sides = sorted([rows.max() + 1 - rows.min(), columns.max() + 1 - columns.min()])
    assert sides == pytest.approx([12, 24], abs=1)


def test_a_slice_of_a_series_is_traced_to_its_file_and_a_blank_one_has_no_area(scans, out):
    """The order of the file names is opposite to that of the positions."""
    dicom_series(scans / "series")
    predict_paths(cascade_of(), [scans], out)
    assert [row["file"] for row in rows_of(out)] == [f"series/IM{number:04}" for number in (6, 5, 4, 3, 2, 1)]
    save_volume(scans / "head.nii.gz")
    predict_paths(cascade_of(), [scans / "head.nii.gz"], out, RunOptions(overwrite=True))
    assert [row["file"] for row in rows_of(out)] == [None] * 3
    assert [row["mask_mm2"] > 0 for row in rows_of(out)] == [False, True, False]


def test_zip_files_are_predicted_like_folders(scans, out):
    save(scans / "a.png")
    with zipfile.ZipFile(scans / "study.zip", "w") as archive:
        archive.write(scans / "a.png", "inner/b.png")
    predict_paths(cascade_of(), [scans], out)
    assert [row["slice"] for row in rows_of(out)] == ["a.png", "study.zip/inner/b.png"]
    assert (out / "masks/study.zip/inner/b.png").is_file()


def test_run_json_traces_every_input_model_option_and_failure(scans, out):
    save(scans / "a.png")
    (scans / "broken.png").write_bytes(b"not a picture")
    (scans / "head.par").write_bytes(b"of a format that is not read")
    run = predict_paths(cascade_of(), [scans], out, RunOptions(batch_size=3))
    record = json.loads((out / "run.json").read_text())
    assert run.exit_code == 2
    assert record["complete"] is True
    assert record["models"] == MODELS
    assert record["options"]["batch_size"] == 3
    assert record["slices"] == {"tumor": 1, "error": 1}
    assert {item["name"]: item["sha256"] for item in record["inputs"]}["a.png"] == sha256_of(scans / "a.png")
    assert [failure["slice"] for failure in record["failures"]] == ["broken.png"]
    assert record["left_out"] == {str(scans / "head.par"): "is not a supported format"} == run.left_out
    assert "numpy" in record["versions"]


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


def test_series_of_two_zips_and_a_folder_keep_names_of_their_own(scans, out):
    """Each zip and folder numbered its series separately: of two series-003, one mask overwrote the other."""
    for number, path in enumerate(dicom_series(scans, SeriesInstanceUID="1.2.3.5")):
        with zipfile.ZipFile(scans / f"part{number % 2}.zip", "a") as archive:
            archive.write(path, path.name)
        path.unlink()
    loose = dicom_series(scans)
    for path in loose[4:]:
        path.unlink()
    predict_paths(cascade_of(), [scans], out)
    rows = [row["input"] for row in rows_of(out)]
    assert (rows.count("series-003"), rows.count("series-003-2"), len(rows)) == (4, 6, 10)
    assert len(list((out / "masks").glob("series-003*.seg.dcm"))) == 2
    assert predict_paths(cascade_of(), [scans], out, RunOptions(resume=True)).resumed_rows == 10


def test_a_slice_whose_overlay_cannot_be_written_is_not_in_the_mask(scans, out, monkeypatch):
    """The other slices' notes say that the mask shows no tumor in it."""

    def no_space(slice_, prediction):
        raise CascadeError("the disk is full", fix="free space")

    monkeypatch.setattr(cascade.prediction.recorder, "overlay_png", no_space)
    save_volume(scans / "head.nii.gz")
    run = predict_paths(cascade_of(), [scans], out)
    assert [row.name for row in run.failed] == ["head.nii.gz/1"]
    assert not nibabel.load(out / "masks" / "head.nii.gz").get_fdata().any()


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
    (scans / "study.zip").unlink()
    assert predict_paths(cascade_of(), [scans], out, RunOptions(resume=True)).resumed_rows == 1


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


def test_an_input_that_changes_during_its_prediction_has_no_result(scans, out):
    save(scans / "a.png")

    class Changes(BrightIsTumor):
        def run(self, slice):
            save(scans / "a.png", 1)
            return super().run(slice)

    run = predict_paths(cascade_of(Changes()), [scans], out)
    assert "was changed during the run" in run.failed[0].problem
    assert [path for path in out.rglob("*.png")] == []
    assert predict_paths(cascade_of(), [scans], out, RunOptions(resume=True)).resumed_rows == 0


def test_a_blank_volume_is_an_error_and_a_partial_failure_is_noted(scans, out):
    array = np.ones((32, 32, 3), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), scans / "blank.nii")
    array = array * np.arange(32, dtype=np.float32)[:, None, None]
    array[0, 0, 1] = np.inf
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), scans / "part.nii")
    run = predict_paths(cascade_of(), [scans], out)
    assert [row["status"] for row in rows_of(out)] == ["error"] * 3 + ["no_tumor", "error", "no_tumor"]
    assert run.failed[0].problem.endswith("blank.nii: all its slices are blank")
    assert rows_of(out)[3]["notes"] == "1 of its slices failed: the mask shows no tumor in them"


def test_where_the_file_system_ignores_case_no_result_replaces_another(scans, out):
    save(scans / "a.png")
    save(scans / "A.png", 1)
    out.mkdir()
    (out / "RESULTS.JSON").symlink_to("results.json")  # as if it ignored it
    run = predict_paths(cascade_of(), [scans], out, RunOptions(batch_size=1))
    (failed,) = run.failed
    assert "already contains the result of" in failed.problem
    assert sum(path.suffix == ".png" for path in (out / "masks").iterdir()) == 1


def test_a_second_run_into_the_same_folder_is_refused(scans, out):
    """Both runs ended with exit code 0, and rows of the first named masks that the second had removed."""
    for number in range(6):
        save(scans / f"{number}.png", number)
    refused = []

    class StartsAnother(BrightIsTumor):
        def run(self, slice):
            if not refused:
                before = read_all(out)
                for how in ({"overwrite": True}, {"resume": True}, {}):
                    with pytest.raises(CascadeError) as raised:
                        predict_paths(cascade_of(), [scans / "0.png"], out, RunOptions(**how))
                    refused.append(raised.value)
                assert read_all(out) == before
            return super().run(slice)

    run = predict_paths(cascade_of(StartsAnother()), [scans], out, RunOptions(batch_size=6))
    assert all("another run" in error.problem and "--out" in error.fix for error in refused[:2])
    assert len(refused) == 3
    assert (run.exit_code, len(rows_of(out))) == (0, 6)
    assert all((out / row["mask"]).is_file() for row in rows_of(out))
    assert predict_paths(cascade_of(), [scans], out, RunOptions(resume=True)).resumed_rows == 6


def read_all(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_results_are_marked_as_incomplete_until_the_run_has_ended(scans, out):
    save(scans / "a.png")
    during = []

    def look(count):
        during.append([json.loads((out / name).read_text())["complete"] for name in ("results.json", "run.json")])

    predict_paths(cascade_of(), [scans], out, on_progress=look)
    assert during == [[False, False]]
    assert [json.loads((out / name).read_text())["complete"] for name in ("results.json", "run.json")] == [True, True]


def test_a_run_that_fails_releases_its_folder(scans, out):
    save(scans / "a.png")

    class Fails(BrightIsTumor):
        def run(self, slice):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        predict_paths(cascade_of(Fails()), [scans], out)
    assert predict_paths(cascade_of(), [scans], out, RunOptions(resume=True)).exit_code == 0


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


def test_rounding_does_not_decide_whether_a_class_is_uncertain(scans, out):
    """0.64999996 is below 0.65, but not after rounding to 6 digits: the table contradicted the overlay."""
    save(scans / "a.png")

    class Barely(AlwaysGlioma):
        def run(self, slice, probability):
            return super().run(slice, probability) | {CLASS_PROBABILITY: np.float32([[0.2, 0.64999996, 0.15]])}

    predict_paths(Cascade(CpuBackend(BrightIsTumor(), Barely()), uncertain_below=0.65), [scans], out)
    assert [(row["class"], row["uncertain"]) for row in rows_of(out)] == [("glioma", True)]
    resumed = Cascade(CpuBackend(BrightIsTumor(), Barely()), uncertain_below=0.65)
    assert predict_paths(resumed, [scans], out, RunOptions(resume=True)).resumed_rows == 1
    assert [(row["class"], row["uncertain"]) for row in rows_of(out)] == [("glioma", True)]


def test_a_table_has_six_digits_of_a_probability_and_two_of_a_box(scans, out):
    save(scans / "a.png")  # 48 pixels wide: a pixel is 512 / 48 of the square

    class Digits(AlwaysGlioma):
        def run(self, slice, probability):
            return super().run(slice, probability) | {CLASS_PROBABILITY: np.float32([[0.1234567, 0.7, 0.1765433]])}

    predict_paths(Cascade(CpuBackend(BrightIsTumor(), Digits())), [scans], out)
    (row,) = rows_of(out)
    assert list(row["probabilities"].values()) == [0.123457, 0.7, 0.176543]
    assert list(row["box"].values()) == [9.38, 4.69, 18.75, 23.44]  # 9.375, 4.6875, 18.75, 23.4375


def test_a_run_works_in_a_thread_and_with_paths_as_text(scans, out):
    save(scans / "a.png")
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(predict_paths, cascade_of(), [str(scans)], str(out)).result()
    assert run.exit_code == 0


@pytest.mark.parametrize(
    ("option", "valid", "invalid"),
    [("batch_size", [1], [0]), ("axis", [None, 0, 1, 2], [-1, 3]), ("volume", [0], [-1])],
)
def test_invalid_options_are_refused(option, valid, invalid):
    for value in valid:
        RunOptions(**{option: value})
    for value in invalid:
        with pytest.raises(CascadeError, match=f"of (number )?{value} is invalid"):
            RunOptions(**{option: value})


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


def test_the_results_of_a_run_inside_its_input_folder_are_never_its_input(scans):
    save(scans / "a.png")
    save_volume(scans / "head.nii.gz")
    first = predict_paths(cascade_of(), [scans], scans / "results")
    second = predict_paths(cascade_of(), [scans], scans / "results", RunOptions(overwrite=True))
    assert len(first.rows) == len(second.rows) == 4


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
