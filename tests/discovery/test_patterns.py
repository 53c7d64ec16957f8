"""Patterns that the shell left alone are expanded."""

import pytest
from input_files import scans as scans

from cascade.discovery.filters import UNSUPPORTED
from cascade.discovery.inputs import find_slices


def test_a_pattern_that_the_shell_left_alone_is_expanded(scans):
    assert find_slices([scans / "**" / "*.JPG"]).names == ["a.JPG"]


def test_an_existing_file_whose_name_looks_like_a_pattern_is_not_expanded(scans):
    (scans / "a[1].png").touch()
    assert find_slices([scans / "a[1].png"]).names == ["a[1].png"]


def test_a_pattern_that_matches_other_files_too_gives_the_slices(scans):
    inputs = find_slices([scans / "*"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert (inputs.problems, inputs.left_out) == ({}, {str(scans / "notes.txt"): UNSUPPORTED})


def test_a_recursive_pattern_follows_no_link_to_a_folder(scans):
    """Links that lead in a circle made the search take forever."""
    for name in ("c", "d"):
        (scans / "b" / name).symlink_to(scans)
    for pattern in ("**", "**/*.mat", "b/**/1.mat", "**/**/1.mat"):
        names = find_slices([scans / pattern, scans / "a.png"]).names
        assert [name for name in names if name.endswith(".mat")] == ["b/1.mat"]


def test_a_recursive_pattern_matches_nothing_in_hidden_folders(scans):
    (scans / ".git").mkdir()
    (scans / ".git" / "x.png").touch()
    assert find_slices([scans / "**" / "*.png"]).names == ["a.png"]


@pytest.mark.usefixtures("permissions")
def test_a_folder_below_a_recursive_pattern_that_may_not_be_looked_into_is_named(scans):
    (scans / "b").chmod(0)
    try:
        inputs = find_slices([scans / "**" / "*.png"])
    finally:
        (scans / "b").chmod(0o700)
    assert inputs.names == ["a.png"]
    assert "Permission denied" in inputs.problems[str(scans / "b")].problem
