"""A zip file → the slices in it, unpacked: no member gets outside, fills the disk or keeps the others back."""

import errno
import io
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cascade.discovery.filters import HIDDEN, NO_SLICE, Wanted, is_zip, named_kind, starts_as_dicom
from cascade.errors import CascadeError

CHUNK = 2**16
MOST_DIRECTORY_BYTES = 2**24
"""An archive's own list of 100,000 members with names of 100 letters."""

MOST_FOLDERS = 32
"""That a member may lie in: each member could bring so many of its own."""

UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""All that packers write unless told otherwise; bzip2 and LZMA unpack in steps whose memory nothing bounds."""

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError)
"""What zipfile raises on damaged bytes."""

PACK_AGAIN = "pack it again, or unpack it yourself and give the folder"
UNPACK_YOURSELF = "if you trust the archive, unpack it yourself and give the folder"
FIXES = {
    errno.ENOSPC: "free space, or set TMPDIR to a folder that has more",
    errno.EDQUOT: "free space, or set TMPDIR to a folder that has more",
    errno.ENAMETOOLONG: "shorten the names in the archive",
}


@dataclass(frozen=True)
class Limits:
    """What may come out of archives, counted while it does: headers lie.

    members  of an archive, folders and all.
    ratio    of a member's bytes to those it takes in the archive, once they are more than `small`: a blank picture may
             have 1,000 : 1, the most that zip can do, a scan has about 2 : 1.
    total    bytes, of all archives together.
    """

    members: int = 100_000
    ratio: int = 200
    small: int = 2**24
    total: int = 2**35


LIMITS = Limits()


@dataclass
class Unpacked:
    """What came of an archive, by the members' names, "/" between folders.

    names     of the slices: each is a file of this name below the folder that was unpacked to.
    problems  what looks like a slice but cannot be had.
    left_out  why the rest was not taken.
    size      bytes that were unpacked, kept or not; of a damaged member all but its last chunk.
    """

    names: list[str] = field(default_factory=list)
    problems: dict[str, CascadeError] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    size: int = 0


def unpacked(
    path: Path, into: Path, wanted: Wanted, *, below: str = "", limits: Limits = LIMITS, spent: int = 0
) -> Unpacked:
    """Unpacks the archive's slices below `into`, a folder that no one else writes to and that the caller removes.

    below  what stands before the members' names where patterns are matched.
    spent  bytes of `limits.total` that other archives have used.

    Raises CascadeError where the archive as a whole cannot be read.
    """
    found = Unpacked()
    most_of_all = limits.total - spent
    with _opened(path, limits) as (archive, archive_size):
        members = [(_name(info), info) for info in archive.infolist()]
        times = Counter(name for name, _ in members)
        for name, info in members:
            if name.endswith("/"):
                continue
            try:
                _check_name(name)
                why = _why_not(name, wanted, below)
                if not why:
                    _check(info, name, times[name])
                    packed = min(info.compress_size, archive_size)  # its header may say any number
                    most = max(limits.small, limits.ratio * packed)
                    why = _unpack(archive, info, into / name, most, most_of_all, found)
            except CascadeError as error:  # made anew: its traceback would keep what was being unpacked in memory
                found.problems[name] = CascadeError(f"{path}/{name}: {error.problem}", fix=error.fix)
            else:
                if why:
                    found.left_out[name] = why
                else:
                    found.names.append(name)
            if found.size > most_of_all:
                break
    return found


class _Bounded(io.FileIO):
    """zipfile reads an archive's list of members at once, however long, and makes an object of every 46 bytes."""

    def read(self, size: int | None = -1, /) -> bytes | Any:
        if size is not None and size > MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its list of members is longer than {MOST_DIRECTORY_BYTES:,} bytes")
        return super().read(size)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """The archive, and its size in bytes."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_Bounded(path))
            size = file.seek(0, io.SEEK_END)
            archive = stack.enter_context(zipfile.ZipFile(file))
        except OSError as error:
            raise CascadeError(
                f"{path}: cannot be read ({error.strerror or error})", fix="check the path and the permissions"
            ) from None
        except DAMAGE as error:
            raise CascadeError(
                f"{path}: cannot be read as a zip file ({error})", fix="download or pack it again"
            ) from None
        if len(archive.infolist()) > limits.members:
            raise CascadeError(
                f"{path}: has {len(archive.infolist()):,} members", fix=f"give archives of at most {limits.members:,}"
            )
        yield archive, size


def _name(info: zipfile.ZipInfo) -> str:
    """Its path with "/" between folders, also where it was packed on Windows; one of a folder ends in "/"."""
    name = info.filename
    if not info.flag_bits & UTF8_FLAG:  # zipfile reads it as code page 437, but macOS writes UTF-8 here as well
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    name = name.replace("\\", "/")
    return f"{PurePosixPath(name)}{'/' * name.endswith('/')}"


def _check_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        raise CascadeError("has a name that leads out of the archive", fix="ask who made it; such names do harm")
    if len(parts) > MOST_FOLDERS:
        raise CascadeError(f"lies in more than {MOST_FOLDERS} folders", fix=PACK_AGAIN)


def _why_not(name: str, wanted: Wanted, below: str) -> str | None:
    """Why a member is left out, going by its name."""
    parts = PurePosixPath(name).parts
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return HIDDEN
    if is_zip(name):
        return wanted.excluded(below + name)
    return wanted.unasked(below + name) or (None if wanted.takes(parts[-1]) else NO_SLICE)


def _check(info: zipfile.ZipInfo, name: str, times: int) -> None:
    """Raises CascadeError for what need not be opened to know that it cannot be had."""
    if is_zip(name):
        raise CascadeError("is an archive in an archive", fix="unpack the outer one and give the folder")
    if times > 1:
        raise CascadeError(f"is there {times} times", fix="pack the archive again, each name once")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise CascadeError("is a link or device, no file", fix="pack the file itself")
    if info.flag_bits & ENCRYPTED_FLAG:
        raise CascadeError("is encrypted", fix="unpack the archive with its password and give the folder")
    if info.compress_type not in METHODS:
        raise CascadeError(f"is packed by method {info.compress_type}, not 8 (deflate)", fix=PACK_AGAIN)


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, most: int, most_of_all: int, found: Unpacked
) -> str | None:
    """Writes the member to `target`, or returns why it is left out after all."""
    try:
        with archive.open(info) as member:
            if not named_kind(target.name):
                if not starts_as_dicom(member):
                    return NO_SLICE
                member.seek(0)
            _copy(member, target, most, most_of_all, found)
    except DAMAGE as error:
        raise CascadeError(f"is damaged ({str(error) or 'it ends too early'})", fix=PACK_AGAIN) from None
    except OSError as error:
        raise CascadeError(
            f"cannot be unpacked ({error.strerror or error})", fix=FIXES.get(error.errno or 0, PACK_AGAIN)
        ) from None
    return None


def _copy(member: IO[bytes], target: Path, most: int, most_of_all: int, found: Unpacked) -> None:
    """At most `most` bytes of it, and as many as let `found.size` grow to `most_of_all`: else no file is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    file = target.open("xb")  # x: where case does not tell names apart, the first stays
    size = 0
    try:
        with file:
            while chunk := member.read(CHUNK):
                size += len(chunk)
                found.size += len(chunk)
                if found.size > most_of_all:
                    raise CascadeError("and all after it are more than may be unpacked in a run", fix=UNPACK_YOURSELF)
                if size > most:
                    raise CascadeError(f"unpacks to more than {most:,} bytes, as no scan does", fix=UNPACK_YOURSELF)
                file.write(chunk)
    except BaseException:
        target.unlink()
        raise
