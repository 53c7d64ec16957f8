"""Find the second file of a volume that is stored in two: a header, and the voxels."""

from pathlib import Path

PAIRS = {".hdr": ".img", ".img": ".hdr"}
"""Suffix of each file of a pair of the same name → suffix of the other."""

NAMING_SUFFIXES = (".mhd", ".mha", ".nhdr", ".nrrd")
"""Suffixes of headers that may name the file of the voxels: MetaImage and NRRD."""

DATA_FILE_KEYS = (b"elementdatafile", b"data file", b"datafile")

IN_THIS_FILE = b"local"

MAX_HEADER_BYTES = 2**16
"""Bytes at the beginning of a file that are searched for the name."""


def has_separate_voxels(name: str) -> bool:
    """Return True for the name of a header whose voxels may be in another file."""
    return name.lower().endswith((".hdr", *NAMING_SUFFIXES))


def has_companion(name: str) -> bool:
    """Return True for the name of a file that may belong to another one."""
    return name.lower().endswith((*PAIRS, *NAMING_SUFFIXES))


def companion_of(path: Path) -> Path | None:
    """Return the existing file that belongs to another one, or None. It lies in the same folder."""
    if path.suffix.lower() in NAMING_SUFFIXES:
        name = data_file_of(path)
        # A header from elsewhere could name any file of this machine.
        is_local = name and Path(name).name == name and (path.parent / name).is_file()
        return path.parent / name if name and is_local else None
    suffix = PAIRS.get(path.suffix.lower())
    if suffix is None:
        return None
    candidates = (path.with_suffix(case) for case in (suffix, suffix.upper()))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def data_file_of(path: Path) -> str | None:
    """Return what a MetaImage or NRRD header says about the place of its voxels; None if they are in the same file."""
    try:
        if not path.is_file():  # opening a pipe would block
            return None
        with path.open("rb") as file:
            header = file.read(MAX_HEADER_BYTES)
    except OSError:
        return None
    for line in header.splitlines():
        if not line.strip():
            return None  # the end of a NRRD header
        key, _, value = line.partition(b"=" if b"=" in line else b":")
        if key.strip().lower() in DATA_FILE_KEYS:
            return None if value.strip().lower() == IN_THIS_FILE else value.strip().decode(errors="surrogateescape")
    return None
