"""What may not be read is named, and the rest is found."""

from pathlib import Path

import pytest
from input_files import scans as scans

from cascade.discovery.inputs import find_slices


@pytest.mark.usefixtures("permissions")
def test_a_folder_that_may_not_be_looked_into_is_named(scans):
    (scans / "b").chmod(0)
    inputs = find_slices([scans])
    (scans / "b").chmod(0o755)
    assert inputs.names == ["a.png"]
    assert "cannot be opened" in inputs.problems[str(scans / "b")].problem


@pytest.mark.usefixtures("permissions")
def test_a_file_in_a_folder_without_access_is_not_called_missing(scans):
    closed = scans / "b"
    closed.chmod(0)
    try:
        inputs = find_slices([scans / "a.png", closed / "1.mat", closed / "*.JPG", scans / "gone.png"])
    finally:
        closed.chmod(0o700)
    problems = {Path(path).name: error.problem for path, error in inputs.problems.items()}
    assert "Permission denied" in problems["1.mat"]
    assert "Permission denied" in problems["*.JPG"]
    assert "there is no such file" in problems["gone.png"]


@pytest.mark.usefixtures("permissions")
def test_a_folder_whose_files_may_be_listed_but_not_read_stops_nothing(scans):
    """The search for results of an earlier run in it ended with a traceback."""
    closed = scans / "b"
    closed.chmod(0o400)
    try:
        inputs = find_slices([scans])
    finally:
        closed.chmod(0o700)
    assert inputs.names == ["a.png"]
    assert "Permission denied" in inputs.problems[str(closed)].problem


def test_a_file_without_suffix_that_cannot_be_read_is_an_input(scans, monkeypatch):
    """It may be DICOM: it was left out as if it were none. Its reader says why it cannot be read."""
    (scans / "IM0001").touch()
    open_file = Path.open

    def refuse(self, *arguments):
        if self.name == "IM0001":
            raise PermissionError
        return open_file(self, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    assert find_slices([scans], formats=("image", "dicom")).names == ["IM0001", "a.png", "b/1.mat", "b/a.JPG"]
