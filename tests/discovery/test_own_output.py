"""What cascade wrote is never its input."""

from pathlib import Path

import pytest
from input_files import put
from input_files import scans as scans

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices


def test_the_output_of_the_run_is_never_read_even_if_it_is_an_input(scans):
    for name in ("results/masks/a.png", "results/overlays/b/a.png", "results/extra.png"):
        path = scans / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    written = (scans / "results" / "masks", scans / "results" / "overlays")
    inputs = find_slices([scans, written[0] / "a.png"], written)
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG", "results/extra.png"]
    assert "in the folder of the results" in inputs.problems[str(written[0] / "a.png")].problem


def test_single_files_of_the_output_are_not_read(scans):
    put(scans, "report.png", "masks/v.nii.gz", "masks/s.seg.dcm")
    written = [scans / "report.png", scans / "masks"]
    inputs = find_slices([scans, scans / "report.png", scans / "masks" / "v.nii.gz"], written, formats=FORMATS)
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.left_out[str(scans / "masks")] == "was written by a run"
    assert len(inputs.problems) == 2


def test_the_images_of_earlier_runs_are_not_read_wherever_they_are(scans):
    """Once, a second run with another --out took the masks of the first for slices."""
    put(scans, "b/old/masks/a.png", "b/old/overlays/a.png", "b/old/own.png", "masks/own.png")
    put(scans, "b/old/results.json", content=b'{\n "schema": "cascade results 7",\n')
    put(scans, "results.json", content=b'{"schema": "another program\'s"}')
    assert find_slices([scans]).names == ["a.png", "b/1.mat", "b/a.JPG", "b/old/own.png", "masks/own.png"]


@pytest.mark.parametrize("marker", ['"schema": "cascade evaluation 2"', '"format": "cascade evaluation 1"'])
def test_the_figures_of_an_evaluation_are_not_read(scans, marker):
    """Once, `predict` took the figures beside the slices for slices, and found a glioma in one."""
    put(scans, "b/dice.png", "c/dice.png", "c/own.png", "c/worst_slices.png", "c/detection.png", "c/presence.png")
    put(scans, "c/metrics.json", content=f"{{\n {marker},\n".encode())
    inputs = find_slices([scans])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG", "b/dice.png", "c/own.png"]
    assert inputs.left_out[str(scans / "c/dice.png")] == "was written by a run"


def test_output_of_earlier_runs_is_not_read_even_if_a_pattern_or_list_contains_it(scans):
    """Once, `**/*.png` took the masks of an earlier run for slices."""
    put(scans, "b/old/masks/c/a.png", "b/old/own.png", "b/benchmark.png")
    put(scans, "b/old/results.json", content=b'{\n "schema": "cascade results 7",\n')
    put(scans, "b/benchmark.json", content=b'{"schema": "cascade benchmark 1"}')
    assert find_slices([scans / "**/*.png"]).names == ["a.png", "b/old/own.png"]
    inputs = find_slices([scans / "a.png", scans / "b/old/masks"])
    assert inputs.names == ["a.png"]
    assert inputs.left_out[str(scans / "b/old/masks")] == "was written by a run"


def test_output_of_an_earlier_run_is_left_out_in_any_order_of_the_inputs(scans):
    """After the folder, a mask in it was an error: it lay "in the folder of the results"."""
    put(scans, "old/masks/a.png")
    put(scans, "old/results.json", content=b'{\n "schema": "cascade results 7",\n')
    for paths in ([scans, scans / "old/masks/a.png"], [scans / "old/masks/a.png", scans]):
        inputs = find_slices(paths)
        assert inputs.problems == {}
        assert inputs.left_out[str(scans / "old/masks/a.png")] == "was written by a run"


def test_the_masks_of_an_earlier_run_are_recognized_from_inside_their_folder(scans, monkeypatch):
    """Once, `cascade predict .` among the masks took them for slices, and `..` from there found nothing."""
    put(scans, "b/old/masks/a.png", "b/old/own.png")
    put(scans, "b/old/results.json", content=b'{\n "schema": "cascade results 7",\n')
    (scans / "way").symlink_to(scans / "b/old/masks")
    monkeypatch.chdir(scans / "b/old/masks")
    for path in (Path(), scans / "way", Path("..", "..", "..", "b", "old", "masks")):
        inputs = find_slices([path, scans / "a.png"])
        assert inputs.names == ["a.png"]
        assert inputs.left_out == {str(scans / "b/old/masks"): "was written by a run"}
    inputs = find_slices([Path("..")])
    assert inputs.names == ["own.png"]
    assert inputs.left_out[str(scans / "b/old/masks")] == "was written by a run"
