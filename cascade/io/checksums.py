"""The bytes that an input is made of, as one number, and whether they are still what they were."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cascade.errors import CascadeError
from cascade.files import sha256_of

Stamps = tuple[tuple[int, int] | None, ...]
"""Of each file its size and the time of its last change; None where there is none."""


def stamps(files: Sequence[Path]) -> Stamps:
    """To be compared with those of later."""
    return tuple(_stamp(path) for path in files)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_size, told.st_mtime_ns


def content_sha256(files: Sequence[Path]) -> str:
    """Of one file what `sha256sum` says; of several the digest of their digests, in their order.

    Raises CascadeError for a file that may not be read, or cannot be any more.
    """
    try:
        digests = [sha256_of(path) for path in files]
    except PermissionError as error:
        raise CascadeError(f"{error.filename}: may not be read", fix="change the file's permissions") from error
    except OSError as error:
        raise CascadeError(
            f"{error.filename}: could not be read to its end ({error.strerror})", fix="leave inputs alone during a run"
        ) from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
