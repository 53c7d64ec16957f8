"""No file disappears: whatever a folder contains, each file is a row, an error row, or left out with a reason."""

import importlib
import io
import json
import os
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from accounting import misplaced, repeated_slices
from dicom_files import image
from hostile_files import GOOD, RAMP, dicom, encoded, mat, put, whole_file
from hostile_files import out as out
from hostile_files import scans as scans
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stub_cascade import cascade_of, rows_of

import cascade.prediction.run
from cascade.errors import CascadeError
from cascade.io.open import OpenedSources, open_sources
from cascade.prediction.accounting import AccountingError
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

QUICK = RunOptions(report=False, overlays=False)


def member(number, place, **changes):
    """A file of one series, `place` slices from its start."""
    uids = {"SeriesInstanceUID": "1.2.3.77", "SOPInstanceUID": f"1.2.3.77.{number}", "InstanceNumber": number}
    position = {"ImagePositionPatient": [0.0, 0.0, 2.5 * place], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    dataset = image(RAMP, **{"PixelSpacing": [0.98, 0.98], **uids, **position, **changes})
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


CONTENTS = {  # the suffix of a name says nothing about its content here
    "gray.png": whole_file("gray.png"),
    "other.png": encoded(RAMP[::-1].copy(), "PNG"),
    "blank.png": encoded(RAMP * 0, "PNG"),
    "gray.jpg": whole_file("gray.jpg"),
    "slice.mat": whole_file("slice.mat"),
    "empty.mat": mat(label=1.0),
    "head.nii": whole_file("head.nii"),
    "first": member(0, 0),
    "second": member(1, 1),
    "third": member(2, 2),
    "echo": member(3, 2, EchoTime="80"),  # at the position of `third`
    "tomography": dicom(RAMP, 9, Modality="CT"),
    "frames.dcm": whole_file("frames.dcm"),
    "cut.png": whole_file("gray.png")[:60],
    "cut.dcm": member(4, 3)[:300],
    "empty": b"",
    "text": b"no slice",
    "results": b'{"schema": "cascade results 2"}',
}

NAMES = ["a.png", "b.JPG", "IM1", "IM2", "1.2.3", "v.nii", "v.nii.gz", "s.dcm", "m.mat", ".hidden.png", "notes.txt"]
NAMES += ["results.json", "DICOMDIR", "ä 日.png", "caf\udce9.png", "=1.png", "masks", "d.zip", "x.tif"]

MEMBERS = [
    *NAMES[:8],
    "p/a.png",
    "p/IM1",
    "__MACOSX/a.png",
    "../out.png",
    "/abs.png",
    "p\\b.png",
    "inner.zip",
    "p/",
    ".",
]

FOLDERS = ["", "p", "p/q", ".trash", "masks", "d.zip", "a.png"]

files = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES), st.sampled_from(sorted(CONTENTS)))
zips = st.tuples(
    st.sampled_from(FOLDERS),
    st.sampled_from(["s.zip", "t.ZIP"]),
    st.lists(st.tuples(st.sampled_from(MEMBERS), st.sampled_from(sorted(CONTENTS))), max_size=5),
)
links = st.tuples(
    st.sampled_from(FOLDERS), st.sampled_from(NAMES), st.sampled_from(["a.png", "p", "..", "nowhere", "IM1"])
)
inputs = st.lists(
    st.sampled_from(
        ["", "", "p", "p/q", "a.png", "IM1", "p/../a.png", "notes.txt", "missing.png", "s.zip", "*", ".trash/a.png"]
    ),
    min_size=1,
    max_size=4,
)
options = st.builds(
    RunOptions,
    recursive=st.booleans(),
    include=st.sampled_from([(), (), ("*.png", "IM*"), ("p/*",)]),
    exclude=st.sampled_from([(), (), ("a.png",), ("p/",), ("*.zip",), ("IM2", "q")]),
    report=st.just(False),
    overlays=st.just(False),
)


def write_tree(scans, files, zips, links):
    """Write as much of the tree as fits together: of two entries of one name, the first remains."""

    def place(folder, name):
        path = scans / folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError:  # a file has the name of the folder
            return None
        return None if os.path.lexists(path) else path

    for folder, name, kind in files:
        if path := place(folder, name):
            path.write_bytes(CONTENTS[kind])
    for folder, name, members in zips:
        if path := place(folder, name):
            with zipfile.ZipFile(path, "w") as archive:
                for member, kind in members:
                    archive.writestr(zipfile.ZipInfo(member), CONTENTS[kind])
    for folder, name, target in links:
        if path := place(folder, name):
            path.symlink_to(target)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(files, max_size=12), st.lists(zips, max_size=2), st.lists(links, max_size=2), inputs, options)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_file_of_any_folder_has_exactly_one_place(files, zips, links, inputs, options):
    with tempfile.TemporaryDirectory() as temporary:
        scans, out = Path(temporary, "scans"), Path(temporary, "out")
        scans.mkdir()
        write_tree(scans, files, zips, links)
        given = [path for name in inputs for path in (sorted(scans.glob("*")) if name == "*" else [scans / name])]
        try:
            predict_paths(cascade_of(), given, out, options)
        except CascadeError:  # there is no slice at all
            assert not out.exists()
            return
        wrong = misplaced(given, out)
        assert wrong == {}, wrong
        assert repeated_slices(out) == []


def left_out_of(out):
    return json.loads((out / "run.json").read_text())["left_out"]


def test_a_file_that_disappears_is_an_internal_error_and_the_results_stay(scans, out, monkeypatch):
    put(scans / "lost.png", whole_file("gray.png"))

    def loses_one(inputs, **options):
        opened = open_sources(inputs, **options)
        return OpenedSources(opened.sources[:1], opened.problems, opened.left_out)

    monkeypatch.setattr(cascade.prediction.run, "open_sources", loses_one)
    with pytest.raises(AccountingError, match=r"lost\.png"):
        predict_paths(cascade_of(), [scans], out)
    assert [row["slice"] for row in rows_of(out)] == [GOOD]
    assert (out / "report.html").exists()


def test_an_internal_error_names_20_files_and_counts_the_others(scans, out, monkeypatch):
    for number in range(22):
        put(scans / f"lost-{number:02}.png", whole_file("gray.png"))
    monkeypatch.setattr(cascade.prediction.run, "open_sources", lambda inputs, **options: OpenedSources([], {}, {}))
    with pytest.raises(AccountingError, match=r"lost-18\.png and 3 more") as raised:  # GOOD is the first of 23
        predict_paths(cascade_of(), [scans], out, QUICK)
    assert "lost-19" not in str(raised.value)


def test_a_slice_without_a_row_is_an_internal_error(scans, out, monkeypatch):
    put(scans / "head.nii", whole_file("head.nii"))
    predict = cascade.prediction.run.predict_sources

    def loses_a_row(*arguments, **options):
        result = predict(*arguments, **options)
        return replace(result, rows=[row for row in result.rows if row.index != 1])

    monkeypatch.setattr(cascade.prediction.run, "predict_sources", loses_a_row)
    with pytest.raises(AccountingError, match=r"head\.nii"):
        predict_paths(cascade_of(), [scans], out, QUICK)


def test_an_interrupted_run_may_lack_rows(scans, out, monkeypatch):
    predict = cascade.prediction.run.predict_sources

    def stops(*arguments, **options):
        return replace(predict(*arguments, **options), rows=[], remaining=1)

    monkeypatch.setattr(cascade.prediction.run, "predict_sources", stops)
    assert predict_paths(cascade_of(), [scans], out, QUICK).exit_code == 130


def test_copies_and_the_files_of_a_failed_series_are_left_out(scans, out):
    """They were neither in a row nor in an error, and run.json did not list them."""
    put(scans / "one/a", member(0, 0))
    put(scans / "one/b", member(1, 1))
    put(scans / "one/copy", member(1, 1))
    for name, number in (("a", 0), ("b", 1), ("c", 1)):  # b and c are at the same position
        put(
            scans / "two" / name,
            member(ord(name), number, SeriesInstanceUID="1.2.3.78"),
        )
    for number in range(3):
        put(scans / f"three/{number}", dicom(RAMP, number, Modality="CT"))
    predict_paths(cascade_of(), [scans], out, QUICK)
    assert misplaced([scans], out) == {}
    left_out = {Path(path).relative_to(scans).as_posix(): reason for path, reason in left_out_of(out).items()}
    assert len(left_out) == 5
    assert "copy" in left_out.get("one/copy", left_out.get("one/b"))
    assert "series" in left_out["two/b"]
    assert "series" in left_out["two/c"]
    assert "CT" in left_out["three/1"]


def test_a_hidden_folder_of_which_one_file_is_given_still_stands_for_the_others(scans, out):
    """The file was processed, and its folder was no longer in left_out: nothing told of the other file."""
    put(scans / ".old/a.png", whole_file("gray.png"))
    put(scans / ".old/b.png", whole_file("gray.png"))
    predict_paths(cascade_of(), [scans, scans / ".old/a.png"], out, QUICK)
    assert [row["slice"] for row in rows_of(out)] == [".old/a.png", GOOD]
    assert left_out_of(out) == {str(scans / ".old"): "is hidden"}


def test_a_file_that_is_refused_when_given_is_not_left_out_too(scans, out):
    put(scans / "notes.txt", b"no slice")
    predict_paths(cascade_of(), [scans, scans / "notes.txt"], out, QUICK)
    assert [row["slice"] for row in rows_of(out) if row["status"] == "error"] == ["notes.txt"]
    assert left_out_of(out) == {}


def test_a_name_that_is_too_long_is_an_error_row(scans, out):
    """It ended in a traceback."""
    assert predict_paths(cascade_of(), [scans, Path("x" * 300 + ".png")], out, QUICK).exit_code == 2


def test_a_missing_file_and_one_of_its_name_in_a_folder_are_two(scans, out, monkeypatch):
    """A missing file was named by its relative path, which may be the name of a file in the input folder."""
    monkeypatch.chdir(scans.parent)
    predict_paths(cascade_of(), [scans, Path(GOOD)], out, QUICK)
    assert {row["slice"]: row["status"] for row in rows_of(out)} == {GOOD: "tumor", str(scans.parent / GOOD): "error"}


@pytest.mark.parametrize("package", ["pydicom.data.test_files", "nibabel.tests.data"])
def test_the_test_files_of_other_packages_all_have_a_place(package, out):
    parent, _, name = package.partition(".")
    folder = Path(importlib.import_module(parent).__file__).parent.joinpath(*name.split("."))
    if not folder.is_dir():
        pytest.skip(f"{parent} is installed without its test files")
    predict_paths(cascade_of(), [folder], out, QUICK)
    assert len(rows_of(out)) > 20
    assert misplaced([folder], out) == {}
    assert repeated_slices(out) == []
