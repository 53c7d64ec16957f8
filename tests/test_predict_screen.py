"""What is printed at the end of a run."""

from cascade.predict import Run
from cascade.predict_screen import failures
from cascade.results import SliceResult


def test_a_failure_that_all_slices_of_a_volume_share_is_told_once():
    rows = [
        SliceResult(f"head.nii/{index}", "error", index, problem="head.nii: cut", fix="copy it") for index in range(3)
    ]
    run = Run([*rows, SliceResult("a.png", "error", problem="a.png: broken", fix="export it")], 1.0)
    assert [str(line) for line in failures(run)] == [
        "failed: head.nii: cut (3 slices)\n  fix: copy it",
        "failed: a.png: broken\n  fix: export it",
    ]
