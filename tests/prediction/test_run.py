"""A whole run: its output and its record."""

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest
from dicom_files import series as dicom_series
from run_inputs import out as out
from run_inputs import save, save_volume
from run_inputs import scans as scans
from stub_cascade import MODELS, AlwaysGlioma, BrightIsTumor, cascade_of, rows_of

import cascade.prediction.recorder
from cascade.contract import CLASS_PROBABILITY
from cascade.errors import CascadeError
from cascade.files import sha256_of
from cascade.pipeline import Cascade
from cascade.prediction.batch import InProcess
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.runtime.cpu import CpuBackend


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


@pytest.mark.parametrize("kind", ["volume", "series"])
def test_a_volume_that_was_replaced_after_it_was_opened_has_no_result_and_is_not_kept(scans, out, kind):
    """It was measured by the header of the old file, and `--resume` kept that with the checksum of the new one."""

    def save_with_spacing(spacing_mm):
        if kind == "series":
            dicom_series(scans, PixelSpacing=[spacing_mm, spacing_mm])
        else:
            array = np.tile(np.float32([0, 9, 250, 250, 250, 9, 0, 0] * 4), (32, 3, 1)).transpose(0, 2, 1)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([spacing_mm, spacing_mm, 5, 1])), scans / "head.nii")

    class Late(InProcess):
        """Begins long after the inputs were opened, as a worker of a cluster does."""

        def run(self, sources, job):
            save_with_spacing(0.5)
            super().run(sources, job)

    save_with_spacing(0.98)
    run = predict_paths(Late(cascade_of()), [scans], out)
    assert {row.status for row in run.rows} == {"error"}
    assert "was changed during the run" in run.failed[0].problem
    resumed = predict_paths(cascade_of(), [scans], out, RunOptions(resume=True))
    assert (resumed.resumed_rows, resumed.exit_code) == (0, 0)


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


def test_the_results_of_a_run_inside_its_input_folder_are_never_its_input(scans):
    save(scans / "a.png")
    save_volume(scans / "head.nii.gz")
    first = predict_paths(cascade_of(), [scans], scans / "results")
    second = predict_paths(cascade_of(), [scans], scans / "results", RunOptions(overwrite=True))
    assert len(first.rows) == len(second.rows) == 4


def test_one_path_need_not_be_in_a_list(scans, out):
    """Each character was a path, and with a slash among them the whole disk an input."""
    save(scans / "a.png")
    for number, path in enumerate((str(scans), scans)):
        assert [row.name for row in predict_paths(cascade_of(), path, out / str(number)).rows] == ["a.png"]
