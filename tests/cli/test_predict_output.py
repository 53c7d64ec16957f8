"""What is printed at the end of a run."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from cascade.cli.predict_output import MAX_VOLUMES, failure_lines, run_summary, volume_table
from cascade.prediction.run_options import RunOptions
from cascade.prediction.run_result import RunResult
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult


def test_a_failure_of_all_slices_of_a_volume_is_printed_once():
    rows = [
        SliceResult(f"head.nii/{index}", "error", index, problem="head.nii: cut", fix="copy it") for index in range(3)
    ]
    result = RunResult([*rows, SliceResult("a.png", "error", problem="a.png: broken", fix="export it")], 1.0)
    assert [str(line) for line in failure_lines(result)] == [
        "failed: head.nii: cut (3 slices)\n  fix: copy it",
        "failed: a.png: broken\n  fix: export it",
    ]


def test_files_of_formats_that_are_not_read_are_counted_at_the_end():
    """Only --dry-run reported them: a folder of .mgz files and one PNG seemed to be predicted completely."""
    left_out = {"/scans/a.mgz": "is no slice", "/scans/b.mha": "is no slice", "/scans/.DS_Store": "is hidden"}
    console = Console(file=io.StringIO(), width=100)
    console.print(run_summary(RunResult([], 1.0, left_out=left_out), Path("out"), RunOptions(), verbose=False))
    assert "Left out (2: is no slice). run.json lists them." in console.file.getvalue()


def test_the_inputs_whose_results_were_dropped_are_named():
    """Their rows and masks vanished without a word."""
    console = Console(file=io.StringIO(), width=200)
    result = RunResult([], 1.0, dropped=tuple(f"{number}.png" for number in range(12)))
    console.print(run_summary(result, Path("out"), RunOptions(), verbose=False))
    printed = console.file.getvalue()
    assert "0.png, 1.png" in printed
    assert "2 more" in printed


def test_an_interrupted_run_names_the_number_of_remaining_slices_and_of_notes():
    result = RunResult([SliceResult("a.png", "no_tumor", notes=("turned",))], 1.0, remaining=1234)
    console = Console(file=io.StringIO(), width=100)
    console.print(run_summary(result, Path("out"), RunOptions(), verbose=False))
    assert "Interrupted with 1,234 slices remaining. Use --resume to continue." in console.file.getvalue()
    assert "Notes on inputs: 1, shown by --verbose" in console.file.getvalue()


def test_a_note_on_one_slice_is_not_printed_for_its_volume():
    rows = [SliceResult(f"head.nii/{index}", "no_tumor", index, notes=("turned",)) for index in range(3)]
    rows[2] = replace(rows[2], notes=("turned", "blank"))
    console = Console(file=io.StringIO(), width=100)
    console.print(run_summary(RunResult(rows, 1.0), Path("out"), RunOptions(), verbose=True))
    assert "note: head.nii: turned\n" in console.file.getvalue()
    assert "note: head.nii: blank (1 of 3 slices)\n" in console.file.getvalue()


def test_each_volume_is_a_line_of_a_table_those_with_a_tumor_first():
    volumes = [
        VolumeResult("a.nii", "no_tumor", 30, tumor_slices=0, volume_ml=0.0),
        VolumeResult(
            "b.nii", "tumor", 24, 5, 11, (0.1, 0.8, 0.1), volume_ml=12.34, longest_mm=41.2, perpendicular_mm=29.8
        ),
        VolumeResult("c.nii", "error", 20, problem="c.nii: cut", fix="copy it"),
    ]
    console = Console(file=io.StringIO(), width=120)
    console.print(volume_table(volumes))
    lines = [line.split("│")[1:-1] for line in console.file.getvalue().splitlines() if ".nii" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["b.nii", "glioma 0.80", "12.3", "41 x 30 mm", "5 of 24"],
        ["a.nii", "no tumor", "0.0", "", "30"],
        ["c.nii", "failed", "", "", "20"],
    ]
    console = Console(file=io.StringIO(), width=120)
    console.print(volume_table([VolumeResult(f"{number}.nii", "no_tumor", 30) for number in range(MAX_VOLUMES + 2)]))
    assert "and 2 more volumes" in console.file.getvalue()


def test_in_80_columns_the_name_of_a_volume_has_24_and_is_folded_between_its_words():
    """It had 6 to 12, since the other columns never gave way."""
    figures = {"volume_ml": 123.45, "longest_mm": 81.2, "perpendicular_mm": 59.8}
    names = ("sub-01/ses-02/anat/sub-01_ses-02_ce-gadolinium_T1w.nii.gz", "x" * 30 + ".nii.gz")
    volumes = [VolumeResult(name, "tumor", 192, 105, 96, (0.1, 0.2, 0.7), uncertain=True, **figures) for name in names]
    console = Console(file=io.StringIO(), width=80)
    console.print(volume_table(volumes))
    lines = console.file.getvalue().splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert max(map(len, lines)) <= 80
    assert [cell[0] for cell in cells] == [
        *("sub-01/ses-02/anat/sub-", "01_ses-02_ce-gadolinium_", "T1w.nii.gz"),
        *("x" * 24, "x" * 6 + ".nii.gz", ""),
    ]
    assert [cell[1] for cell in cells][:3] == ["pituitary tumor", "0.70", "(uncertain)"]
    assert cells[0][2:] == ["123.5", "81 x 60 mm", "105 of 192"]
