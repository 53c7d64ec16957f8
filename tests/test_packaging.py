"""The distributions are complete: the sdist tests itself, and the wheel holds models, documents and types."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import cascade

ROOT = Path(__file__).parent.parent
FOLDERS = (".ci", ".docker", ".github", "build_engines", "cascade", "docs", "samples", "tests", "train")
"""Folders of the repository. A checkout may hold data, runs and environments beside them."""

LIGHT_TESTS = ("tests/test_contract.py", "tests/test_docs.py::test_a_linked_file_exists", "tests/test_samples.py")
NAME = f"cascade_mri-{cascade.__version__}"


def test_the_distribution_is_not_called_like_the_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "cascade-mri"
    assert project["scripts"] == {"cascade": "cascade.cli:main"}


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_refuses_an_old_python_before_it_makes_an_environment(tmp_path):
    """Its links stayed in .venv, so that the next try with a newer Python failed too."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    old = tmp_path / "python3.10"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "predict", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Build the sdist from a copy of the repository, then the wheel from the sdist. Returns the folder of both."""
    pytest.importorskip("build", reason="pip install 'cascade-mri[dev]'")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in (path for path in ROOT.iterdir() if path.is_file()):
        shutil.copy(path, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.mark.slow
def test_the_wheel_holds_models_documents_and_types(distributions):
    with zipfile.ZipFile(distributions / f"{NAME}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        metadata = message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
    assert {
        "build_engines/py.typed",
        "cascade/RESULTS.md",
        "cascade/models/MODEL_CARD.md",
        "cascade/models/classifier.onnx",
        "cascade/models/models.json",
        "cascade/models/segmenter.onnx",
        "cascade/prediction/report/page.html",
        "cascade/py.typed",
        "train/__init__.py",
        f"{NAME}.dist-info/licenses/LICENSE",
    } <= names
    assert {name.split("/")[0] for name in names} == {"build_engines", "cascade", "train", f"{NAME}.dist-info"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cascade").rglob("*.py")}
    assert modules <= names
    assert metadata["Name"] == "cascade-mri"
    assert metadata["Author"] == "The cascade authors"
    assert "Typing :: Typed" in metadata.get_all("Classifier")


@pytest.mark.slow
def test_the_sdist_passes_its_own_tests(distributions, tmp_path):
    with tarfile.open(distributions / f"{NAME}.tar.gz") as sdist:
        sdist.extractall(tmp_path)
    unpacked = tmp_path / NAME
    for folder in (".ci", ".docker", ".github", "docs", "samples", "tests"):
        files = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
        missing = {path for path in files if "__pycache__" not in path.parts and not (unpacked / path).exists()}
        assert not missing
    for name in ("Makefile", "mkdocs.yml", "pyproject.toml", ".pre-commit-config.yaml", "CHANGELOG.md", "CITATION.cff"):
        assert (unpacked / name).is_file()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *LIGHT_TESTS]
    tested = subprocess.run(
        command, cwd=unpacked, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(unpacked)}
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
