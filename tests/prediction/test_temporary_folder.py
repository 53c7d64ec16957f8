"""The folder that a run on a cluster shares with its workers is on the storage of the results."""

import tempfile
import zipfile

import pytest
from run_inputs import out as out
from run_inputs import save
from run_inputs import scans as scans
from worker_here import WorkerHere

from cascade.errors import CascadeError
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.prediction.temporary_folder import temporary_folder


def test_it_is_in_results_that_exist_and_beside_those_that_do_not(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    old.mkdir()
    for results, place in ((new, tmp_path), (old, old)):
        with temporary_folder(results) as folder:
            assert (folder.parent, folder.name[0]) == (place, ".")
            assert not new.exists()
        assert not folder.exists()


def test_a_system_without_a_temporary_folder_is_told_how_to_name_one(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/null/gone"])
    with pytest.raises(CascadeError) as caught, temporary_folder(None):
        pass
    assert "a temporary folder: cannot be created (No usable temporary directory" in caught.value.problem
    assert "TMPDIR" in caught.value.fix


@pytest.mark.usefixtures("permissions")
@pytest.mark.parametrize("kind", ["picture", "zip"])
def test_the_folder_above_the_results_need_not_be_writable(scans, out, kind):
    """The run was refused, even if it had nothing to unpack."""
    save(scans / "a.png")
    if kind == "zip":
        with zipfile.ZipFile(scans / "study.zip", "w") as archive:
            archive.write(scans / "a.png", "b.png")
    out.mkdir()
    out.parent.chmod(0o500)
    try:
        run = predict_paths(WorkerHere(), [scans], out, RunOptions(report=False))
    finally:
        out.parent.chmod(0o700)
    assert (run.exit_code, len(run.rows)) == (0, 1 + (kind == "zip"))
    assert not list(out.glob(".out-*"))
