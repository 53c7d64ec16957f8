"""Folders and zip files with slices, and zip files with a wrong directory."""

import warnings
import zipfile

import pytest

from cascade.discovery.archives import unpack_zip
from cascade.discovery.filters import FORMATS, FileFilter

ALL = FileFilter(FORMATS)
DICOM = bytes(128) + b"DICM" + b"the rest"


@pytest.fixture
def scans(tmp_path):
    """scans/ with a.png, b/a.JPG, b/1.mat, and files that are not slices. All are empty: the walk opens none."""
    for name in ("a.png", "b/a.JPG", "b/1.mat", "notes.txt", ".hidden.png", ".trash/x.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "scans"


def put(folder, *names, content=b""):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pack(path, *members, method=zipfile.ZIP_DEFLATED):
    """Write a zip file of (name or ZipInfo, content) in this order. A name may occur twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return path


def patch(path, name, offset, value):
    """Overwrite bytes of the directory of a zip file, at `offset` in the entry of a member (APPNOTE 4.3.12)."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    content[entry + offset : entry + offset + len(value)] = value
    path.write_bytes(content)


@pytest.fixture
def unpack(tmp_path):
    """unpack(path, **options) → UnpackedZip; `into` is tmp_path/into/study.zip."""

    def run(path, file_filter=ALL, **options):
        return unpack_zip(path, tmp_path / "into" / path.name, file_filter, **options)

    return run


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def only_problem(result):
    (error,) = result.problems.values()
    return error
