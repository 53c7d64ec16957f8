import os
from pathlib import Path

import pytest

from cascade.errors import CascadeError
from cascade.inputs import find_slices


@pytest.fixture
def scans(tmp_path):
    """scans/ with a.png, b/a.JPG, b/1.mat, and what is no slice. Empty files: finding opens none."""
    for name in ("a.png", "b/a.JPG", "b/1.mat", "notes.txt", ".hidden.png", ".trash/x.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "scans"


def test_a_folder_gives_its_slices_at_any_depth_sorted_and_without_hidden_ones(scans):
    inputs = find_slices([scans])
    assert inputs.folder == scans
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.problems == {}


def test_a_slice_given_twice_is_done_once(scans):
    assert find_slices([scans / "a.png", scans, scans / "b" / ".." / "a.png"]).names == ["a.png", "b/1.mat", "b/a.JPG"]


def test_names_tell_files_of_two_folders_apart(scans):
    (scans / "c").mkdir()
    (scans / "c" / "a.JPG").touch()
    inputs = find_slices([scans / "b", scans / "c"])
    assert (inputs.folder, inputs.names) == (scans, ["b/1.mat", "b/a.JPG", "c/a.JPG"])


def test_a_pattern_that_the_shell_left_alone_is_expanded(scans):
    assert find_slices([scans / "**" / "*.JPG"]).names == ["a.JPG"]


def test_a_file_whose_name_looks_like_a_pattern_is_taken_as_it_is(scans):
    (scans / "a[1].png").touch()
    assert find_slices([scans / "a[1].png"]).names == ["a[1].png"]


def test_the_rest_is_done_when_some_of_what_is_given_is_no_slice(scans):
    inputs = find_slices([scans / "missing.png", scans / "notes.txt", scans / "a.png"])
    assert inputs.names == ["a.png"]
    assert list(inputs.problems) == [str(scans / "missing.png"), str(scans / "notes.txt")]
    assert "there is no such file" in inputs.problems[str(scans / "missing.png")].problem
    assert "PNG, JPEG, TIFF, BMP, WebP or .mat" in inputs.problems[str(scans / "notes.txt")].fix


def test_what_a_pattern_matches_besides_slices_does_not_hide_the_slices(scans):
    inputs = find_slices([scans / "*"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert list(inputs.problems) == [str(scans / "notes.txt")]


def test_nothing_to_do_is_an_error_that_names_every_path(scans):
    (scans / "empty").mkdir()
    with pytest.raises(CascadeError, match=r"(?s)missing.*empty: holds no PNG"):
        find_slices([scans / "missing", scans / "empty"])


def test_what_runs_write_is_never_read_even_when_it_is_asked_for(scans):
    for name in ("results/masks/a.png", "results/overlays/b/a.png", "results/extra.png"):
        path = scans / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    written = (scans / "results" / "masks", scans / "results" / "overlays")
    inputs = find_slices([scans, written[0] / "a.png"], written)
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG", "results/extra.png"]
    assert "lies where the results go" in inputs.problems[str(written[0] / "a.png")].problem


def test_a_link_to_a_file_keeps_its_own_name(scans):
    (scans / "link.png").symlink_to(scans / "a.png")
    assert find_slices([scans / "link.png"]).names == ["link.png"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_may_not_be_looked_into_is_named(scans):
    (scans / "b").chmod(0)
    inputs = find_slices([scans])
    (scans / "b").chmod(0o755)
    assert inputs.names == ["a.png"]
    assert "cannot be looked into" in inputs.problems[str(scans / "b")].problem


def test_paths_are_relative_to_where_the_command_is_run(scans, monkeypatch):
    monkeypatch.chdir(scans)
    assert find_slices([Path(), Path("a.png")]).names == ["a.png", "b/1.mat", "b/a.JPG"]
