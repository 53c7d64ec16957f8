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


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Makes `path`, and its folders, hold `content` or, after a crash at any moment, what it held before.

    durable  False does not wait for the disk: whole or not there if this program dies, maybe not if the power fails.

    Raises CascadeError where the disk or the permissions do not allow it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CascadeError(
            f"{path}: cannot be written ({error.strerror})", fix="free space or choose another folder"
        ) from error
