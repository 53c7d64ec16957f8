"""A run on a cluster ends before it writes anything if a worker does not see its inputs and its results folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_files import put, whole_file
from worker_here import WorkerHere

from cascade.errors import CascadeError
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.prediction.worker import Worker

pytest.importorskip("pyarrow", reason="pip install 'cascade-mri[cluster]'")

OPTIONS = RunOptions(report=False)


class WorkerElsewhere(WorkerHere):
    """A worker on a machine where another disk is mounted at a folder."""

    def __init__(self, folder, mounted):
        super().__init__()
        self._folder, self._mounted = str(folder), str(mounted)

    def check_access(self, paths):
        Worker().check_access([Path(str(path).replace(self._folder, self._mounted)) for path in paths])


@pytest.fixture
def scans(tmp_path):
    for name in ("a.png", "b.png", "deep/c.png", "deep/d.png"):
        put(tmp_path / "scans" / name, whole_file("gray.png"))
    return tmp_path / "scans"


def test_a_results_folder_that_only_looks_the_same_is_an_error_before_anything_is_written(scans, tmp_path):
    """The lock of an earlier run lay in it. It was taken for the lock of this run, and all masks were lost."""
    mounted = put(tmp_path / "disk/out/.cascade.lock", b"").parent
    with pytest.raises(CascadeError, match="another folder on"):
        predict_paths(WorkerElsewhere(tmp_path / "out", mounted), [scans], tmp_path / "out", OPTIONS)
    assert [path.name for path in tmp_path.glob("out/*")] == [".cascade.lock"]
    assert [path.name for path in mounted.iterdir()] == [".cascade.lock"]


def test_the_file_that_workers_look_for_has_a_new_name_in_each_run_and_is_removed(scans, tmp_path):
    names = []

    class Noting(WorkerHere):
        def check_access(self, paths):
            assert paths[0].is_file()
            names.append(paths[0].name)

    left = put(tmp_path / "out/.cascade-access-0", b"")  # of a run that was killed
    for _ in range(2):
        predict_paths(Noting(), [scans], tmp_path / "out", RunOptions(report=False, overwrite=True))
        assert not list(tmp_path.glob("out/.cascade-access-*"))
    assert len({*names, left.name}) == 3


def test_a_worker_that_replaces_a_lost_one_still_finds_the_file(scans, tmp_path):
    class Replaced(WorkerHere):
        def check_access(self, paths):
            self._paths = paths

        def run(self, sources, job):
            super().run(sources, job)
            Worker().check_access(self._paths)

    assert predict_paths(Replaced(), [scans], tmp_path / "out", OPTIONS).exit_code == 0


def test_one_input_of_each_folder_is_looked_for(scans, tmp_path):
    """Only the first input was. All others became rows with errors, one by one."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(CascadeError, match=r"c\.png: does not exist on"):
        predict_paths(WorkerElsewhere(scans / "deep", tmp_path / "empty"), [scans], tmp_path / "out", OPTIONS)
    assert [path.name for path in tmp_path.glob("out/*")] == [".cascade.lock"]
