"""Atomic writes, checksums, and errors that name the file."""

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cascade.errors import CascadeError

TEMPORARY_PREFIX = ".writing-"
"""First characters of the name of a file that is not complete yet."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of a file that git-lfs has not fetched."""

ANNEX_POINTER = b"/annex/objects/"
"""Part of the first line of a file, and of the target of a link, that git-annex has not fetched."""

MAX_POINTER_BYTES = 32 * 1024
"""Maximum size of a pointer of git-annex; those of git-lfs are smaller."""

WRITE_FIXES = {
    errno.EACCES: "close the program that has it open, change the permissions, or choose another folder",
    errno.ENAMETOOLONG: "choose a folder with a shorter path, or give the inputs shorter names",
    errno.ENOTDIR: "choose a folder, or give the inputs other names",
}


@contextmanager
def read_errors(path: Path, damaged: Callable[[Exception], CascadeError]) -> Iterator[None]:
    """Convert any exception in the block to a CascadeError that names the file.

    Only what decodes the file belongs into the block. Of other code, a bug would be reported as a damaged file.

    Args:
        path: The file that the block reads.
        damaged: Makes the error if the content of the file is at fault. It gets the original exception: on damaged
            files, decoders raise nearly every type.

    Raises:
        CascadeError: If the block raises any exception.
    """
    try:
        yield
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix="check the path") from None
    except PermissionError:
        raise CascadeError(f"{path}: permission denied", fix="change the permissions of the file") from None
    except Exception as error:
        if pointer := pointer_error(path):
            raise pointer from None
        if isinstance(error, CascadeError):
            raise
        if os.path.isfile(path) and path.stat().st_size == 0:  # noqa: PTH113  Path raises for a name too long
            raise CascadeError(f"{path}: the file is empty", fix="copy or export it again") from None
        raise damaged(error) from None


def pointer_error(path: Path) -> CascadeError | None:
    """Return the error for a file that stands for content which git-lfs or git-annex has not fetched yet, or None.

    Such a file is a small text. git-annex also uses links to missing files.
    """
    try:
        if path.is_symlink() and not path.exists():
            content = os.fsencode(path.readlink())
        elif path.is_file() and path.stat().st_size <= MAX_POINTER_BYTES:
            content = path.read_bytes()
        else:
            return None
    except OSError:
        return None
    if content.startswith(LFS_POINTER):
        return CascadeError(f"{path}: is a Git LFS pointer", fix="fetch its content with: git lfs pull")
    if ANNEX_POINTER in content.partition(b"\n")[0].replace(b"\\", b"/"):
        return CascadeError(
            f"{path}: is a git-annex pointer", fix="fetch its content with: datalad get, or git annex get"
        )
    return None


def without_home(text: str) -> str:
    """Replace the home folder by ~ in all paths of a text, since its name often is the name of a person.

    Only whole path components count: with the home folder /home/jo, /home/jo/a becomes ~/a, and /home/jon/a stays.
    The text stays as it is if the user has no home folder, or if it is the root of the file system.
    """
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry in the user database, as in containers with an arbitrary user id
        return text
    if not home.is_absolute() or home == home.parent:
        return text
    begins = r"(?<![\w/\\.~-])"
    ends = r"(?=[/\\]|\.?(?:$|[^\w.~-]))"  # a period may end the sentence
    return re.sub(begins + re.escape(str(home)) + ends, "~", text)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Return the SHA-256 of bytes as hex digits."""
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that it holds either its old or its new content, even after a crash.

    Creates missing parent folders.

    Args:
        path: The file to write.
        content: Its new content.
        durable: Wait until the content is on the disk. False is faster and protects against a crash of this program,
            but not against a power failure.

    Raises:
        CascadeError: If the disk is full or the permissions do not allow it.
    """
    with open_atomically(path, durable=durable) as file:
        file.write(content)


@contextmanager
def open_atomically(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write to; it replaces `path` when the block ends without an exception.

    See `write_atomically` for the arguments. For content that is too large to be in memory at once.

    Raises:
        CascadeError: If the disk is full or the permissions do not allow it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                yield file
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
            fix=WRITE_FIXES.get(error.errno or 0, "free space or choose another folder"),
        ) from error
