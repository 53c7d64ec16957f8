"""What `cascade data inspect` counts and names."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cascade.cli.data_output import inspection_table
from cascade.datasets.summary import ClassCounts, inspect_folder
from cascade.errors import CascadeError

SLICE = np.arange(600, dtype=np.int16).reshape(20, 30)


@pytest.fixture
def folder(tmp_path, write_mat):
    """Seven slices: four valid ones, an empty mask, a blank slice and a broken file."""
    write_mat(tmp_path / "1.mat", SLICE, label=1, patient="100360")
    write_mat(tmp_path / "2.mat", SLICE - 50, label=1, patient="100360")
    write_mat(tmp_path / "3.mat", SLICE, label=2, patient="MR040240")
    write_mat(tmp_path / "5.mat", np.tile(SLICE * 2, (2, 1)), label=2, patient="MR040240B")
    write_mat(tmp_path / "6.mat", SLICE, np.zeros((20, 30), np.uint8), label=3, patient="100360")
    write_mat(tmp_path / "8.mat", np.zeros((20, 30)))
    (tmp_path / "9.mat").write_bytes(b"cut short")
    return tmp_path


def test_slices_are_counted_by_class_patient_and_size(folder):
    inspection = inspect_folder(folder)
    assert (inspection.slices, inspection.patients, inspection.subjects) == (5, 3, 2)
    assert inspection.by_class == {
        "meningioma": ClassCounts(slices=2, subjects=1),
        "glioma": ClassCounts(slices=2, subjects=1),
        "pituitary tumor": ClassCounts(slices=1, subjects=1),
    }
    assert inspection.by_patient == {"100360": 3, "MR040240": 1, "MR040240B": 1}
    assert inspection.by_size == {"20 x 30": 4, "40 x 30": 1}
    assert inspection.without_spacing == 5


def test_the_range_of_all_pixels_and_of_the_maxima_is_reported(folder):
    inspection = inspect_folder(folder)
    assert inspection.intensity_range == (-50, 1198)
    assert inspection.highest_intensity == (549, 599, 1198)


def test_empty_missing_broken_and_unusual_slices_are_named(folder):
    inspection = inspect_folder(folder)
    assert inspection.empty_masks == ["6.mat"]
    assert inspection.missing[:4] == ["4.mat", "7.mat", "10.mat", "11.mat"]  # 8 and 9 are there, if of no use
    assert inspection.missing[-1] == "3064.mat"
    assert len(inspection.missing) == 3064 - 7
    blank, broken = inspection.broken
    assert blank == f"{folder / '8.mat'}: every pixel has the same value"
    assert broken.startswith(f"{folder / '9.mat'}: cannot be read")
    assert inspection.broken[blank] == "remove blank slices from the inputs"
    assert inspection.subjects_in_several_classes == {"100360": ["meningioma", "pituitary tumor"]}


def test_the_table_and_its_json_have_the_same_values(folder, capsys):
    inspection = inspect_folder(folder)
    Console(width=400).print(inspection_table(inspection))
    text = capsys.readouterr().out
    for words in ("2 slices of 1 subjects", "20 x 30: 4, 40 x 30: 1", "-50 to 1198", "1: 6.mat", "3,057: 4.mat, 7.mat"):
        assert words in text
    assert "9.mat: cannot be read" in text
    assert json.loads(json.dumps(dataclasses.asdict(inspection)))["by_class"]["glioma"] == {"slices": 2, "subjects": 1}


def test_names_with_brackets_are_shown_as_they_are(tmp_path, write_mat, capsys):
    (tmp_path / "[red]a.mat").write_bytes(b"cut short")
    Console(width=400).print(inspection_table(inspect_folder(tmp_path)))
    assert "[red]a.mat" in capsys.readouterr().out


def test_missing_numbers_are_reported_for_numbered_files_only(tmp_path, write_mat):
    write_mat(tmp_path / "anna_1.mat")
    assert inspect_folder(tmp_path).missing == []


def test_pictures_with_a_table_are_inspected_too(tmp_path):
    Image.fromarray(SLICE.astype(np.uint16)).save(tmp_path / "a.png")
    Image.new("L", (30, 20), 1).save(tmp_path / "a_mask.png")
    lines = ["path,mask,label,patient", "a.png,a_mask.png,glioma,p1", "b.png,b_mask.png,glioma,p2"]
    (tmp_path / "slices.csv").write_text("\n".join(lines))
    inspection = inspect_folder(tmp_path)
    assert (inspection.slices, inspection.by_class["glioma"], inspection.missing) == (1, ClassCounts(1, 1), [])
    assert list(inspection.broken) == [f"{tmp_path / 'b.png'}: there is no such file"]


def test_a_folder_of_broken_files_only_is_still_counted(tmp_path):
    (tmp_path / "1.mat").touch()
    inspection = inspect_folder(tmp_path)
    assert (inspection.slices, inspection.intensity_range, inspection.highest_intensity) == (0, None, None)
    assert len(inspection.broken) == 1
    assert inspection_table(inspection).row_count > 5


def test_progress_is_not_shown_on_stdout_nor_on_a_stderr_that_is_no_terminal(folder, capsys):
    inspect_folder(folder)
    assert capsys.readouterr() == ("", "")


def test_a_folder_without_a_data_set_is_refused(tmp_path):
    with pytest.raises(CascadeError, match=r"no N\.mat and no CSV"):
        inspect_folder(tmp_path)
