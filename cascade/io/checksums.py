"""Checksums of the files of an input, and detection of changes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cascade.errors import CascadeError
from cascade.files import sha256_of

FileStats = tuple[tuple[int, int] | None, ...]
"""Size in bytes and modification time in nanoseconds of each file; None for a missing file."""


def file_stats(files: Sequence[Path]) -> FileStats:
    """Return sizes and modification times, to detect later changes of the files."""
    return tuple(_file_stat(path) for path in files)


def _file_stat(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def sha256_of_files(files: Sequence[Path]) -> str:
    """Return the SHA-256 of one file, or of the digests of several files in their order, as hex digits.

    Raises:
        CascadeError: If a file cannot be read.
    """
    try:
        digests = [sha256_of(path) for path in files]
    except PermissionError as error:
        raise CascadeError(f"{error.filename}: permission denied", fix="change the permissions of the file") from error
    except OSError as error:
        raise CascadeError(
            f"{error.filename}: could not be read to its end ({error.strerror})",
            fix="do not change the inputs during a run",
        ) from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
