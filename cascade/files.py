"""Files that are whole or not there, and their hashes."""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cascade.errors import CascadeError

TEMPORARY = ".writing-"
"""What a file's name begins with until it is whole."""

FIXES = {
    errno.EACCES: "close the program that has it open, change the permissions, or choose another folder",
    errno.ENAMETOOLONG: "choose a folder with a shorter path, or give the inputs shorter names",
    errno.ENOTDIR: "choose a folder, or give the inputs other names",
}


@contextmanager
def reading(path: Path, unreadable: Callable[[Exception], CascadeError]) -> Iterator[None]:
    """Whatever fails within becomes a CascadeError that names the file.

    unreadable  makes it where the file's bytes are at fault: on damaged ones decoders raise nearly everything.
    """
    try:
        yield
    except CascadeError:
        raise
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix="check the path") from None
    except PermissionError:
        raise CascadeError(f"{path}: may not be read", fix="change the file's permissions") from None
    except Exception as error:
        if path.is_file() and path.stat().st_size == 0:
            raise CascadeError(f"{path}: is empty", fix="copy or export it again") from None
        raise unreadable(error) from None


def without_home(text: str) -> str:
    """The text with ~ for the home folder, whose name is often a person's."""
    return text.replace(str(Path.home()), "~")


def sha256_of(path: Path) -> str:
    """Hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Makes `path`, and its folders, hold `content` or, after a crash at any moment, what it held before.

    durable  False does not wait for the disk: whole or not there if this program dies, maybe not if the power fails.

    Raises CascadeError where the disk or the permissions do not allow it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CascadeError(
            f"{path}: cannot be written ({error.strerror})",
            fix=FIXES.get(error.errno or 0, "free space or choose another folder"),
        ) from error
