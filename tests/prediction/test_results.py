import csv
import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import SoftFileLock

from cascade.contract import Box
from cascade.errors import CascadeError
from cascade.prediction.output_dir import (
    LOCK,
    check_output_dir,
    lock_output_dir,
    output_name,
    remove_previous,
    remove_temporary,
    remove_written,
    slice_output_name,
)
from cascade.prediction.results import ResultsFolder
from cascade.prediction.slices import SliceResult

GLIOMA = SliceResult(
    "b/a.jpg",
    "tumor",
    probabilities=(0.1, 0.7, 0.2),
    box=Box(1.5, 2.0, 30.0, 40.0),
    mask_pixels=210,
    mask_mm2=50.4,
    latency_ms=31.25,
    mask="masks/b/a.jpg.png",
    overlay="overlays/b/a.jpg.png",
)
NO_TUMOR = SliceResult("a.png", "no_tumor", mask_pixels=0, latency_ms=20.0)
BROKEN = SliceResult("c.png", "error", problem="c.png: is cut short", fix="export it again")


@pytest.fixture
def folder(tmp_path):
    hashes = {"segmenter": "5e9", "classifier": "c1a"}
    return ResultsFolder(tmp_path / "out", tmp_path / "scans", overlays=True, models=hashes, backend="onnxruntime")


def test_results_json_has_one_record_per_slice_in_the_order_given(folder):
    folder.save([NO_TUMOR, GLIOMA, BROKEN], complete=True)
    content = json.loads(folder.json_path.read_text())
    assert content["schema"] == "cascade results 3"
    assert content["models"] == {"segmenter": "5e9", "classifier": "c1a"}
    assert content["complete"] is True
    assert "Not a medical device" in content["research_use_only"]
    assert [record["slice"] for record in content["slices"]] == ["a.png", "b/a.jpg", "c.png"]
    assert content["slices"][1] == {
        "slice": "b/a.jpg",
        "input": "b/a.jpg",
        "index": None,
        "file": None,
        "status": "tumor",
        "class": "glioma",
        "uncertain": False,
        "probabilities": {"meningioma": 0.1, "glioma": 0.7, "pituitary tumor": 0.2},
        "box": {"left": 1.5, "top": 2.0, "right": 30.0, "bottom": 40.0},
        "mask_pixels": 210,
        "mask_mm2": 50.4,
        "accepted_pixels": None,
        "latency_ms": 31.25,
        "mask": "masks/b/a.jpg.png",
        "probability_map": None,
        "overlay": "overlays/b/a.jpg.png",
        "secondary_capture": None,
        "notes": None,
        "problem": None,
        "fix": None,
    }


def test_results_csv_has_the_same_values_with_one_column_per_number(folder):
    folder.save([NO_TUMOR, GLIOMA, BROKEN], complete=True)
    with folder.csv_path.open(newline="", encoding="utf-8-sig") as lines:
        no_tumor, glioma, broken = csv.DictReader(lines)
    assert (glioma["class"], glioma["probability_pituitary_tumor"], glioma["box_left"]) == ("glioma", "0.2", "1.5")
    assert (glioma["segmenter_sha256"], glioma["classifier_sha256"]) == ("5e9", "c1a")
    assert (no_tumor["status"], no_tumor["class"], no_tumor["box_left"], no_tumor["mask_pixels"]) == (
        "no_tumor",
        "",
        "",
        "0",
    )
    assert (broken["problem"], broken["fix"], broken["mask"]) == ("c.png: is cut short", "export it again", "")


@pytest.mark.parametrize("uncertain", [False, True])
def test_an_uncertain_class_is_marked(folder, uncertain):
    """The table compared rounded probabilities with the threshold again, and could contradict the overlay."""
    folder = replace(folder, uncertain_below=0.7)
    folder.save([NO_TUMOR, replace(GLIOMA, uncertain=uncertain), BROKEN], complete=True)
    content = json.loads(folder.json_path.read_text())
    assert content["uncertain_below"] == 0.7
    assert [record["uncertain"] for record in content["slices"]] == [None, uncertain, None]
    with folder.csv_path.open(newline="", encoding="utf-8-sig") as lines:
        assert [row["uncertain"] for row in csv.DictReader(lines)] == ["", str(uncertain), ""]


def test_a_name_that_is_not_utf_8_is_exact_in_json_and_legible_in_csv(folder):
    """Its bytes were written as they are, and pandas and Excel could not read the table."""
    folder.save([SliceResult("caf\udce9.png", "no_tumor", mask_pixels=0)], complete=True)
    assert json.loads(folder.json_path.read_text())["slices"][0]["slice"] == "caf\udce9.png"
    assert r"caf\udce9.png" in folder.csv_path.read_bytes().decode("utf-8-sig")


@pytest.mark.parametrize("name", ["=1+1.png", "+1.png", "-1.png", "@sum.png", "\t=1.png", "\r=1.png", "\n=1.png"])
def test_text_that_a_spreadsheet_would_execute_is_escaped(folder, name):
    row = SliceResult(name, "error", notes=(f"{name}: note",), problem=f"{name}: is broken", fix="export it again")
    folder.save([row], complete=True)
    with folder.csv_path.open(newline="", encoding="utf-8-sig") as lines:
        (cells,) = csv.DictReader(lines)
    assert (cells["slice"], cells["input"]) == (f"'{name}", f"'{name}")
    assert (cells["notes"], cells["problem"]) == (f"'{name}: note", f"'{name}: is broken")
    assert cells["fix"] == "export it again"
    (record,) = json.loads(folder.json_path.read_text())["slices"]
    assert (record["slice"], record["problem"]) == (name, f"{name}: is broken")


def test_a_negative_number_stays_a_number(folder):
    folder.save([replace(GLIOMA, box=Box(-0.5, 2.0, 30.0, 40.0))], complete=True)
    with folder.csv_path.open(newline="", encoding="utf-8-sig") as lines:
        assert next(csv.DictReader(lines))["box_left"] == "-0.5"


def test_csv_starts_with_a_byte_order_mark(folder):
    folder.save([SliceResult("Füße.png", "no_tumor", mask_pixels=0)], complete=True)
    content = folder.csv_path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbfslice,")
    assert "Füße.png" in content.decode("utf-8-sig")


def test_parquet_has_the_rows_of_the_csv_and_is_written_only_on_request(folder):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'cascade-mri[cluster]'")
    folder.save([NO_TUMOR, GLIOMA, BROKEN], complete=True)
    assert not (folder.out / "results.parquet").exists()
    replace(folder, parquet=True).save([NO_TUMOR, GLIOMA, BROKEN], complete=True)
    rows = parquet.read_table(folder.out / "results.parquet").to_pylist()
    with folder.csv_path.open(newline="", encoding="utf-8-sig") as lines:
        expected = list(csv.DictReader(lines))
    assert len(rows) == 3
    for row, cells in zip(rows, expected, strict=True):
        assert {name: as_cell(value) for name, value in row.items()} == cells
    assert rows[1]["box_bottom"] == 40.0


def as_cell(value):
    """Return a value as text, as in a CSV file."""
    return "" if value is None else str(value)


def test_json_has_one_line_per_slice(folder):
    folder.save([], complete=True)
    assert json.loads(folder.json_path.read_text())["slices"] == []
    folder.save([NO_TUMOR, GLIOMA], complete=True)
    assert sum('"status": ' in line for line in folder.json_path.read_text().splitlines()) == 2


def test_a_folder_can_be_locked_once_at_a_time(tmp_path):
    with lock_output_dir(tmp_path / "out"):
        with pytest.raises(CascadeError, match="another run"), lock_output_dir(tmp_path / "out"):
            pass
        with lock_output_dir(tmp_path / "other"):
            pass
    with lock_output_dir(tmp_path / "out"):
        pass


def test_the_lock_of_a_killed_run_on_storage_without_flock_can_be_removed(tmp_path, monkeypatch):
    """There, the lock is a file with the process in it, which a kill leaves behind: the user was told to wait."""
    with monkeypatch.context() as patch:
        patch.setattr("cascade.prediction.output_dir.FileLock", SoftFileLock)
        with lock_output_dir(tmp_path):
            (tmp_path / LOCK).write_text("another machine\n")
            with pytest.raises(CascadeError) as caught, lock_output_dir(tmp_path):
                pass
    assert caught.value.fix.endswith(f"if that run was killed, remove {tmp_path / LOCK}")


def test_storage_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(CascadeError, match="cannot be locked") as caught:
        lock_output_dir(tmp_path).__enter__()
    assert "mount it with flock" in caught.value.fix


def test_a_folder_that_is_refused_gets_no_lock_file(folder):
    (folder.out / "masks").mkdir(parents=True)
    with pytest.raises(CascadeError, match="masks"), lock_output_dir(folder.out, overwrite=True):
        pass
    assert [path.name for path in folder.out.iterdir()] == ["masks"]


def test_a_slice_of_a_volume_has_the_name_of_the_volume_and_its_index(folder):
    row = SliceResult("b/head.nii.gz/007", "no_tumor", 7, mask="masks/b/head.nii.gz", notes=("one", "two"))
    folder.save([row], complete=True)
    (record,) = json.loads(folder.json_path.read_text())["slices"]
    assert (record["input"], record["index"], record["notes"]) == ("b/head.nii.gz", 7, "one; two")
    with folder.csv_path.open(newline="", encoding="utf-8-sig") as lines:
        assert next(csv.DictReader(lines))["index"] == "7"


def test_no_two_inputs_share_an_output_file():
    pictures = ("a.png", "a.PNG", "a.jpg", "a.jpg.png", "a.mat", "b/a.png", "a.jpg.png.png")
    assert output_name("a.png", ".png") == "a.png"
    assert output_name("b/a.tiff", ".png") == "b/a.tiff.png"
    assert len({output_name(name, ".png") for name in pictures}) == len(pictures)
    dicom = ("IM1", "IM1.png", "IM1.dcm", "IM1.dicom.png", "IM1.seg.dcm", "IM1.seg.dcm.png", "series-003")
    dicom += ("IM1.dicom", "IM1.dicom.dicom", "IM1.dicom.dicom.png")
    assert output_name("IM1", ".seg.dcm") == "IM1.seg.dcm"
    assert len({output_name(name, ".png") for name in dicom}) == len(dicom)
    assert len({output_name(name, ".seg.dcm") for name in dicom}) == len(dicom)
    assert len({slice_output_name(name, "0", ".png") for name in dicom}) == len(dicom)
    volumes = ("a.nii", "a.nii.gz", "a.nii.nii.gz", "a.nii.nii.gz.nii.gz", "a.nii.gz.nii.gz")
    assert output_name("a.nii.gz", ".nii.gz") == "a.nii.gz"
    assert len({output_name(name, ".nii.gz") for name in volumes}) == len(volumes)


def test_a_name_too_long_for_the_file_system_is_shortened_and_stays_unique():
    """ä takes two bytes: 125 of them, a letter and .jpg are 255, and .png comes on top."""
    one, other = (output_name(f"b/{'ä' * 125}{letter}.jpg", ".png") for letter in "xy")
    assert one != other
    for name in (one, other):
        assert name.startswith(f"b/{'ä' * 100}")
        assert name.endswith(".png")
        assert 250 <= len(name.removeprefix("b/").encode()) <= 255


def test_results_are_replaced_or_resumed_only_on_request(folder):
    check_output_dir(folder.out)
    folder.save([NO_TUMOR], complete=True)
    with pytest.raises(CascadeError, match=r"contains the results of an earlier run\n.*--resume.*--overwrite"):
        check_output_dir(folder.out)
    check_output_dir(folder.out, overwrite=True)
    check_output_dir(folder.out, resume=True)


def test_a_folder_with_results_is_not_locked_without_a_request(folder):
    folder.save([NO_TUMOR], complete=True)
    with pytest.raises(CascadeError, match="--resume"), lock_output_dir(folder.out):
        pass
    with lock_output_dir(folder.out, resume=True):
        pass


def test_only_masks_and_overlays_are_written_unless_more_is_requested(folder):
    source = SimpleNamespace(name="s", count=2, mask_suffix=".seg.dcm", missing_for_capture=[], encode_captures=iter)
    assert folder.output_files(source) == ["masks/s.seg.dcm", "overlays/s.dicom/0.png", "overlays/s.dicom/1.png"]
    everything = replace(folder, probabilities=True, secondary_capture=True)
    assert everything.output_files(source)[1:] == [
        "probabilities/s.seg.dcm",
        "overlays/s.dicom/0.png",
        "overlays/s.dicom/1.png",
        "secondary_captures/s.dicom/0.dcm",
        "secondary_captures/s.dicom/1.dcm",
    ]
    assert not folder.keep_all_components


def test_clearing_removes_all_results_except_those_to_keep(folder):
    written = ["masks/a.png", "masks/b/c.png", "overlays/b/.writing-x", "overlays/a.png"]
    for name in (*written, "masks/corrected.png", "report.html"):
        (folder.out / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.out / name).write_bytes(b"")
    remove_previous(folder.out, written, keep=["masks/a.png"])
    left = [path.relative_to(folder.out).as_posix() for path in sorted(folder.out.rglob("*")) if path.is_file()]
    assert left == ["masks/a.png", "masks/corrected.png"]
    assert not (folder.out / "masks/b").exists()


def test_clearing_removes_temporary_files_of_a_killed_run(folder):
    folder.out.mkdir()
    (folder.out / ".writing-x").write_bytes(b"half a results.js")
    remove_previous(folder.out, [])
    assert list(folder.out.iterdir()) == []


def test_what_a_killed_worker_was_writing_is_removed_and_nothing_else(folder):
    for name in ("masks/b/.writing-x", "overlays/.writing-y", "masks/b/a.png", "other/.writing-z"):
        (folder.out / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.out / name).write_bytes(b"")
    remove_temporary(folder.out)
    left = [path.relative_to(folder.out).as_posix() for path in sorted(folder.out.rglob("*")) if path.is_file()]
    assert left == ["masks/b/a.png", "other/.writing-z"]


def test_a_file_that_was_not_written_yet_does_not_keep_the_others_from_being_removed(folder):
    (folder.out / "masks").mkdir(parents=True)
    (folder.out / "masks/a.png").write_bytes(b"")
    remove_written(folder.out, ["masks/missing.png", "masks/a.png"])
    assert list((folder.out / "masks").iterdir()) == []


def test_masks_that_no_run_wrote_are_never_touched(folder):
    truth = folder.out / "masks" / "1.png"
    truth.parent.mkdir(parents=True)
    truth.write_bytes(b"drawn by an expert")
    with pytest.raises(CascadeError, match="masks: would be replaced"):
        check_output_dir(folder.out, overwrite=True)
    assert truth.read_bytes() == b"drawn by an expert"


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG])
def test_a_folder_that_cannot_be_looked_into_is_an_error_that_names_it(tmp_path, monkeypatch, number):
    """`Path.exists` raises these errors. The command ended with a traceback after it had loaded the models."""
    out = tmp_path / ("n" * 256 if number == errno.ENAMETOOLONG else "out")
    stat = Path.stat

    def refuse(path, **options):
        if number == errno.EACCES and path.is_relative_to(out):
            raise PermissionError(number, os.strerror(number), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(CascadeError, match=re.escape(f"{out}: ")) as raised:
        check_output_dir(out)
    assert os.strerror(number) in raised.value.problem
    assert "--out" in raised.value.fix


def test_a_folder_that_cannot_be_written_is_an_error_before_the_models_run(folder):
    folder.out.write_text("a file")
    with pytest.raises(CascadeError, match="cannot be written"):
        folder.save([], complete=False)
