"""Hostile names and folders that cannot be written: no two slices share a result, and none is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hostile_files import GOOD, check_left, dicom, files_below, put, whole_file, zipped
from hostile_files import out as out
from hostile_files import scans as scans
from stub_cascade import cascade_of, rows_of

from cascade.errors import CascadeError
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

QUICK = RunOptions(report=False)

NAMES = (
    *("caf\u00e9.png", "cafe\u0301.png"),  # one name to the eye: composed, decomposed
    *("\u05e9\u05dc\u05d5\u05dd.png", "\u202egnp.exe.png", "\U0001f9e0\u200d\u2695\ufe0f.png", "two\nlines.png"),
    *("\x1b[31mred\x07.png", "\udcff\udcfe.png", "=1+1.png", "-.png", " .png", "a;b,c.png", '"quoted".png'),
    *("A.png", "a.png", "a.PNG", "<script>.png", "%00.png", "CON.png", "results.json.png"),
    *("x" * 251 + ".png", "x" * 251 + ".jpg", "\u8111" * 83 + ".webp"),
)


def test_every_name_has_its_own_results(scans, out):
    jpeg, webp = whole_file("gray.jpg"), whole_file("gray.webp")
    for name in NAMES:
        put(scans / name, {".jpg": jpeg, ".webp": webp}.get(Path(name).suffix, whole_file("gray.png")))
    put(scans / ("9" * 255), dicom(number=1))
    put(scans / ("8" * 255), dicom(number=2, ImagePositionPatient=None))
    run = predict_paths(cascade_of(), [scans], out)
    rows = rows_of(out)
    assert run.exit_code == 0
    assert {row["slice"] for row in rows} == {*NAMES, GOOD, "9" * 255, "8" * 255}
    assert len({row[key] for row in rows for key in ("mask", "overlay")}) == 2 * len(rows)
    check_left(out, rows)
    resumed = predict_paths(cascade_of(), [scans], out, RunOptions(resume=True))
    assert resumed.resumed_rows == len(rows)


def test_a_path_too_long_for_the_results_is_reported_by_name(scans, tmp_path):
    """The path of the input is short enough for the file system, those of its results are not."""
    deep = scans.joinpath(*["x" * 99] * 38)
    put(deep / "a.png", whole_file("gray.png"))
    out = tmp_path.joinpath(*["o" * 99] * 3)
    assert predict_paths(cascade_of(), [scans], out, QUICK).exit_code == 2
    (row,) = [row for row in rows_of(out) if row["status"] == "error"]
    assert "too long" in row["problem"]
    assert "shorter" in row["fix"]
    check_left(out, rows_of(out))


def test_a_dicom_file_without_suffix_and_an_image_of_its_name_have_separate_results(scans, out):
    put(scans / "IM1", dicom(number=1))
    put(scans / "IM2", dicom(number=2, ImagePositionPatient=None))
    put(scans / "IM2.dicom", dicom(number=3, ImagePositionPatient=None))
    for name in ("IM1.png", "IM2.png", "IM2.dicom.png"):
        put(scans / name, whole_file("gray.png"))
    assert predict_paths(cascade_of(), [scans], out, QUICK).exit_code == 0
    rows = rows_of(out)
    assert len({row["mask"] for row in rows}) == len({row["overlay"] for row in rows}) == len(rows) == 7
    check_left(out, rows)


def test_of_two_inputs_whose_results_share_a_name_one_is_predicted_and_the_other_reported(scans, out):
    put(scans / "IM1", whole_file("frames.dcm"))
    put(scans / "IM1.dicom/0.png", whole_file("gray.png"))
    assert predict_paths(cascade_of(), [scans], out, QUICK).exit_code == 2
    failed = [row for row in rows_of(out) if row["status"] == "error"]
    assert len(failed) == 1
    assert "overlays/IM1.dicom/0.png: already contains the result of" in failed[0]["problem"]


def test_an_input_given_twice_is_predicted_once_and_a_zip_is_not_the_folder_beside_it(scans, out):
    put(scans / "study/a.png", whole_file("gray.png"))
    put(scans / "study.zip", zipped({"a.png": whole_file("gray.png"), "study.zip/a.png": whole_file("gray.png")}))
    given = [scans, scans, scans / GOOD, scans / "study" / ".." / GOOD, scans / "study.zip"]
    assert predict_paths(cascade_of(), given, out, QUICK).exit_code == 0
    rows = rows_of(out)
    names = [GOOD, "study.zip/a.png", "study.zip/study.zip/a.png", "study/a.png"]
    assert [row["slice"] for row in rows] == names
    check_left(out, rows)


@pytest.mark.parametrize("below", [".", "results", "study/results"])
def test_results_may_be_written_into_the_input_folder(scans, below):
    put(scans / "study/a.png", whole_file("gray.png"))
    inputs = {path: (scans / path).read_bytes() for path in files_below(scans)}
    for options in (QUICK, RunOptions(overwrite=True), RunOptions(resume=True)):
        assert len(predict_paths(cascade_of(), [scans], scans / below, options).rows) == 2
    assert inputs == {path: (scans / path).read_bytes() for path in inputs}


def test_a_folder_that_cannot_be_written_is_an_error_before_any_prediction(scans, tmp_path):
    put(tmp_path / "file", b"")
    for place in (tmp_path / "file", tmp_path / "file" / "out", scans / GOOD):
        with pytest.raises(CascadeError, match="cannot be written"):
            predict_paths(cascade_of(), [scans], place, QUICK)
    (tmp_path / "closed").mkdir(mode=0o500)
    if not os.access(tmp_path / "closed", os.W_OK):
        with pytest.raises(CascadeError, match="cannot be written"):
            predict_paths(cascade_of(), [scans], tmp_path / "closed" / "out", QUICK)
    assert files_below(tmp_path) == {Path("file"), Path("scans") / GOOD}
