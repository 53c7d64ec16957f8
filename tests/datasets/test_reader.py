"""A data set is a folder of N.mat files, or images with masks and a CSV; one bad slice does not stop the others."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cascade.datasets.reader import SliceInfo, count_slices, read_labeled, scan
from cascade.errors import CascadeError


def scan_folder(folder):
    """Return the slices and the problems of a scan."""
    items = list(scan(folder))
    problems = [item.problem for item in items if isinstance(item, CascadeError)]
    return [item[0] for item in items if not isinstance(item, CascadeError)], problems


def write_picture(path, tumor=1):
    """A slice `path` and its mask beside it, tumor in rows 2-4, columns 5-11."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(600).reshape(20, 30).astype(np.uint16)).save(path)
    mask = np.zeros((20, 30), np.uint8)
    mask[2:5, 5:12] = tumor
    Image.fromarray(mask).save(path.with_name(f"{path.stem}_mask.png"))


def write_table(folder, *lines, header="path,mask,label,patient", encoding="utf-8"):
    (folder / "slices.csv").write_text("\n".join([header, *lines]) + "\n", encoding=encoding)


def test_mat_files_are_found_in_sub_folders_in_the_order_of_their_numbers(tmp_path, write_mat):
    for name in ("1-766/2.mat", "1-766/10.mat", "767-1532/767.MAT", "1-766/._2.mat"):  # ._: what macOS leaves behind
        write_mat(tmp_path / name, patient=name)
    (tmp_path / "1-766" / "README.txt").write_text("about")
    infos, problems = scan_folder(tmp_path)
    assert [info.path for info in infos] == ["1-766/2.mat", "1-766/10.mat", "767-1532/767.MAT"]
    assert infos[0] == SliceInfo("1-766/2.mat", "", "meningioma", "1-766/2.mat")
    assert problems == []
    assert count_slices(tmp_path) == 3


def test_a_broken_or_blank_mat_is_named_and_the_rest_still_read(tmp_path, write_mat):
    write_mat(tmp_path / "1.mat")
    (tmp_path / "2.mat").write_bytes(b"cut short")
    write_mat(tmp_path / "3.mat", np.zeros((20, 30)))
    write_mat(tmp_path / "4.mat")
    infos, problems = scan_folder(tmp_path)
    assert [info.path for info in infos] == ["1.mat", "4.mat"]
    assert "2.mat: cannot be read" in problems[0]
    assert "3.mat: every pixel has the same value" in problems[1]
    assert count_slices(tmp_path) == 4


def test_a_mat_with_nan_outside_the_head_is_read_as_predict_reads_it(tmp_path, write_mat):
    pixels = np.pad(np.arange(1.0, 401).reshape(20, 20), 10, constant_values=np.nan)
    write_mat(tmp_path / "1.mat", pixels)
    [(_, labeled)] = scan(tmp_path)
    assert labeled.pixels[0, 0] == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # with the mark that Excel puts before the first column
def test_pictures_with_masks_and_a_table_are_read(tmp_path, encoding):
    write_picture(tmp_path / "images" / "a.png")
    write_table(tmp_path, "images/a.png,images/a_mask.png,Pituitary Tumor, Zoë 7 ", encoding=encoding)
    [(info, labeled)] = scan(tmp_path)
    assert info == SliceInfo("images/a.png", "images/a_mask.png", "pituitary tumor", "Zoë 7")
    assert (labeled.label, labeled.patient, labeled.spacing_mm) == ("pituitary tumor", "Zoë 7", None)
    assert labeled.pixels[0].tolist() == list(range(30))
    rows, columns = np.nonzero(labeled.mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 5, 11)
    assert read_labeled(tmp_path, info).mask.tolist() == labeled.mask.tolist()


def test_columns_may_be_in_any_order_and_additional_ones_are_ignored(tmp_path):
    write_picture(tmp_path / "a.png")
    write_table(tmp_path, "p1,40,glioma,a_mask.png,a.png", header="patient,age,label,mask,path")
    assert scan_folder(tmp_path) == ([SliceInfo("a.png", "a_mask.png", "glioma", "p1")], [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("b.png,a_mask.png,glioma,p1", r"b\.png: there is no such file"),
        ("a.png,b_mask.png,glioma,p1", r"b_mask\.png: there is no such file"),
        ("a.png,a_mask.png,lymphoma,p1", r"slices\.csv, line 2: .*lymphoma"),
        ("a.png,a_mask.png,glioma,", r"slices\.csv, line 2: has an empty cell"),
        ("a.png,a_mask.png", r"slices\.csv, line 2: has an empty cell"),
        ("/a.png,a_mask.png,glioma,p1", r"slices\.csv, line 2: /a\.png or its mask is an absolute path"),
        ("1.mat,,glioma,p1", r"slices\.csv, line 2: 1\.mat"),
        ("a.png,small.png,glioma,p1", r"small\.png: mask \(10, 30\) and slice \(20, 30\) differ"),
        ("a.png,gray.png,glioma,p1", r"gray\.png: .*two gray levels"),
        ("blank.png,a_mask.png,glioma,p1", r"blank\.png: every pixel has the same value"),
    ],
)
def test_a_bad_line_is_named_with_its_problem_and_the_others_are_read(tmp_path, line, problem):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "good.png")
    Image.new("L", (30, 10)).save(tmp_path / "small.png")
    Image.new("L", (30, 20), 9).save(tmp_path / "blank.png")
    Image.fromarray(np.arange(600).reshape(20, 30).astype(np.uint8)).save(tmp_path / "gray.png")
    write_table(tmp_path, line, "good.png,good_mask.png,glioma,p2")
    first, second = scan(tmp_path)
    assert isinstance(first, CascadeError)
    with pytest.raises(CascadeError, match=problem):
        raise first
    assert second[0].path == "good.png"


@pytest.mark.parametrize("tumor", [1, 255])
def test_a_mask_may_mark_the_tumor_with_any_one_value(tmp_path, tumor):
    write_picture(tmp_path / "a.png", tumor)
    assert read_labeled(tmp_path, SliceInfo("a.png", "a_mask.png", "glioma", "p1")).mask.sum() == 3 * 7


def test_a_mask_without_tumor_is_empty_and_one_all_over_is_full(tmp_path):
    write_picture(tmp_path / "a.png", tumor=0)
    assert read_labeled(tmp_path, SliceInfo("a.png", "a_mask.png", "glioma", "p1")).mask.sum() == 0
    Image.new("L", (30, 20), 255).save(tmp_path / "a_mask.png")
    assert read_labeled(tmp_path, SliceInfo("a.png", "a_mask.png", "glioma", "p1")).mask.sum() == 600


def test_a_slice_listed_twice_is_read_once(tmp_path):
    write_picture(tmp_path / "a.png")
    write_table(tmp_path, "a.png,a_mask.png,glioma,p1", "a.png,a_mask.png,glioma,p2")
    infos, problems = scan_folder(tmp_path)
    assert [info.patient for info in infos] == ["p1"]
    assert "slices.csv, line 3: a.png" in problems[0]


def test_a_table_takes_precedence_over_other_files_of_the_folder(tmp_path, write_mat):
    write_mat(tmp_path / "1.mat")
    write_picture(tmp_path / "a.png")
    write_table(tmp_path, "a.png,a_mask.png,glioma,p1")
    assert [info.path for info in scan_folder(tmp_path)[0]] == ["a.png"]


def test_a_table_of_other_columns_does_not_hide_the_mat_files(tmp_path, write_mat):
    write_mat(tmp_path / "1.mat")
    write_table(tmp_path, "1,2", header="index,label")
    (tmp_path / "folder.csv").mkdir()
    assert [info.path for info in scan_folder(tmp_path)[0]] == ["1.mat"]


def test_a_folder_without_a_data_set_is_an_error_that_names_what_is_missing(tmp_path):
    with pytest.raises(CascadeError, match=r"nowhere: there is no such folder"):
        list(scan(tmp_path / "nowhere"))
    with pytest.raises(
        CascadeError, match=r"no N\.mat and no CSV with the columns path, mask, label, patient\n"
    ) as raised:
        list(scan(tmp_path))
    assert "unpack the figshare zips" in raised.value.fix


def test_a_table_with_semicolons_is_reported_if_there_is_no_other_data(tmp_path):
    write_table(tmp_path, "a.png;a_mask.png;glioma;p1", header="path;mask;label;patient")
    with pytest.raises(CascadeError, match=r"slices\.csv has other columns") as raised:
        list(scan(tmp_path))
    assert "commas" in raised.value.fix


def test_two_tables_in_one_folder_are_refused(tmp_path):
    for name in ("new.csv", "old.csv"):
        (tmp_path / name).write_text("path,mask,label,patient\n")
    with pytest.raises(CascadeError, match=r"\(new\.csv, old\.csv\)"):
        list(scan(tmp_path))


def test_a_table_that_is_no_utf8_text_or_lists_nothing_is_refused_by_name(tmp_path):
    write_table(tmp_path, "a.png,a_mask.png,glioma,Zoë", encoding="latin-1")
    with pytest.raises(CascadeError, match=r"slices\.csv: is not UTF-8 text") as raised:
        list(scan(tmp_path))
    assert raised.value.fix == "save it as CSV UTF-8"
    write_table(tmp_path)
    with pytest.raises(CascadeError, match=r"slices\.csv: lists no slices"):
        list(scan(tmp_path))
    write_table(tmp_path, f"{'x' * 200_000},a_mask.png,glioma,p1")
    with pytest.raises(CascadeError, match=r"slices\.csv: cannot be read .*field larger than"):
        list(scan(tmp_path))
