"""Files that are whole or not there, and their hashes."""

import hashlib
import os
import tempfile
from pathlib import Path

from cascade.errors import CascadeError


def sha256_of(path: Path) -> str:
    """Hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Makes `path`, and its folders, hold `content` or, after a crash at any moment, what it held before.

    Raises CascadeError where the disk or the permissions do not allow it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise CascadeError(f"{path}: cannot be written ({error.strerror})", fix="free space or choose another folder") from error
