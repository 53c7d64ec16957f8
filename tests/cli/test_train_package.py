"""`cascade train` imports the package `train` of cascade, and no other module of this name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def cascade_in(folder, *arguments, path=()):
    """Run `python -m cascade` in a folder. Folders in `path` are searched for modules before the one of cascade."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    command = [sys.executable, "-m", "cascade", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def no_torch(tmp_path):
    """A folder with a module `torch` that stops `cascade train` before it loads anything heavy."""
    (tmp_path / "no_torch").mkdir()
    (tmp_path / "no_torch" / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    return tmp_path / "no_torch"


def test_python_m_cascade_does_not_run_a_train_py_in_the_current_folder(tmp_path, no_torch):
    """`python -m` searches the current folder first, so that the train.py of the user ran."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "train.py").write_text("open('ran', 'w')")
    done = cascade_in(tmp_path / "work", "train", "segmenter", ".", "--split", "split.json", path=[no_torch])
    assert done.returncode == 1
    assert "torch" in done.stderr  # which the package `train` of cascade imports
    assert not (tmp_path / "work" / "ran").exists()


@pytest.mark.parametrize("name", ["train.py", "train/__init__.py"])
def test_another_module_named_train_is_reported_and_not_imported(tmp_path, name):
    """The foreign module ran, and the error said that the package train.segmenter is not installed."""
    (tmp_path / "others" / name).parent.mkdir(parents=True)
    (tmp_path / "others" / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    done = cascade_in(tmp_path, "train", "segmenter", ".", "--split", "split.json", path=[tmp_path / "others"])
    assert done.returncode == 1
    assert str(tmp_path / "others" / name) in done.stderr
    assert not (tmp_path / "ran").exists()


def test_python_m_cascade_trains_in_a_checkout(no_torch):
    done = cascade_in(ROOT, "train", "segmenter", ".", "--split", "split.json", path=[no_torch])
    assert (done.returncode, "torch" in done.stderr) == (1, True)
