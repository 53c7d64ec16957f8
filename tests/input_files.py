"""Folders and zips that slices are looked for in, and zips whose directory lies."""

import warnings
import zipfile

import pytest

from cascade.discovery.archives import unpacked
from cascade.discovery.filters import KINDS, Wanted

ALL = Wanted(KINDS)
DICOM = bytes(128) + b"DICM" + b"the rest"


@pytest.fixture
def scans(tmp_path):
    """scans/ with a.png, b/a.JPG, b/1.mat, and what is no slice. Empty files: finding opens none."""
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
    """A zip of (name or ZipInfo, content) in this order; one name may come twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return path


def patch(path, name, offset, value):
    """Overwrites what the zip's directory says of the member, at `offset` of its entry (APPNOTE 4.3.12)."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    content[entry + offset : entry + offset + len(value)] = value
    path.write_bytes(content)


@pytest.fixture
def unpack(tmp_path):
    """unpack(path, **options) → Unpacked; `into` is tmp_path/into/study.zip."""

    def run(path, wanted=ALL, **options):
        return unpacked(path, tmp_path / "into" / path.name, wanted, **options)

    return run


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def only_problem(found):
    (error,) = found.problems.values()
    return error
