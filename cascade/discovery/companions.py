"""Find the second file of a volume that is stored in two: a header, and the voxels."""

import re
from collections.abc import Iterator
from pathlib import Path

PAIRS = {".hdr": ".img", ".img": ".hdr"}
"""Suffix of each file of a pair of the same name → suffix of the other."""

NAMING_SUFFIXES = (".mhd", ".mha", ".nhdr", ".nrrd")
"""Suffixes of headers that may name the file of the voxels: MetaImage and NRRD."""

DATA_FILE_KEYS = (b"elementdatafile", b"data file", b"datafile")

IN_THIS_FILE = b"local"

MAX_HEADER_BYTES = 2**16
"""Bytes at the beginning of a file that are searched for the name."""

NRRD = b"NRRD"
"""First bytes of a NRRD file."""


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
        is_local = name and Path(name) == Path(Path(name).name) and (path.parent / name).is_file()  # also ./name
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
    for key, value in header_fields(header):
        if key.lower() in DATA_FILE_KEYS:
            return None if value.lower() == IN_THIS_FILE else value.decode(errors="surrogateescape")
    return None


def header_fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of each field at the beginning of a MetaImage or NRRD file.

    A blank line ends a NRRD header. In MetaImage it may be within a text, whose further lines are no fields. In NRRD a
    field is `key: value`; `key:=value` is a text of the user, whose key may contain colons.
    """
    is_nrrd = header.startswith(NRRD)
    for line in header.splitlines():
        if is_nrrd and not line.strip():
            return
        key, *value = re.split(rb": " if is_nrrd else rb"[=:]", line, maxsplit=1)
        is_text = is_nrrd and b":=" in key
        if value and not is_text and not line.startswith(b"#"):
            yield key.strip(), value[0].strip()
