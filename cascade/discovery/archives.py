"""Unpack the slices of a zip file. No member leaves the target folder, fills the disk or stops the other members."""

import errno
import io
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cascade.discovery.dicom_prefix import PREFIX_BYTES, has_dicom_prefix
from cascade.discovery.filters import HIDDEN, OWN_OUTPUT, UNSUPPORTED, FileFilter, format_of_name, is_zip
from cascade.discovery.output_marker import MARKER_BYTES, MARKERS, WRITTEN, is_marked
from cascade.errors import CascadeError

CHUNK_BYTES = 2**16

MAX_DIRECTORY_BYTES = 2**24
"""Size of the directory of an archive with 100,000 members whose names have 100 characters."""

MAX_FOLDERS = 32
"""Maximum folder depth of a member: each member could create as many folders."""

UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The methods that archivers use by default. The memory that bzip2 and LZMA need for one step has no bound."""

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError)
"""The exceptions that zipfile raises on damaged archives."""

OVER_LIMIT = "was not unpacked: the run had reached its limit"
PACK_AGAIN = "pack it again, or unpack it yourself and give the folder"
UNPACK_YOURSELF = "if you trust the archive, unpack it yourself and give the folder"
UNPACK_FIXES = {
    errno.ENOSPC: "free space, or set TMPDIR to a folder that has more",
    errno.EDQUOT: "free space, or set TMPDIR to a folder that has more",
    errno.ENAMETOOLONG: "shorten the names in the archive",
}


@dataclass(frozen=True)
class Limits:
    """Limits of unpacking. They apply to the unpacked bytes, since the sizes in an archive may be wrong.

    Attributes:
        members: Maximum number of members of an archive, including folders.
        ratio: Maximum compression ratio of a member of more than `small` bytes. The highest ratio of deflate, that of a
            blank image, is about 1,000; scans have about 2.
        small: Members of up to this many bytes may have any ratio.
        total: Maximum size of all archives together, in bytes.
    """

    members: int = 100_000
    ratio: int = 200
    small: int = 2**24
    total: int = 2**35


LIMITS = Limits()


@dataclass
class UnpackedZip:
    """The result of unpacking an archive. Members are named by their path in it, with "/" between folders.

    Attributes:
        names: The unpacked slices. Each is a file of this name below the target folder.
        problems: Members that may be slices but could not be unpacked.
        left_out: Why the other members were left out.
        members: All members but folders, whatever became of them.
        size: Number of unpacked bytes, including those of members that turned out to be damaged.
    """

    names: list[str] = field(default_factory=list)
    problems: dict[str, CascadeError] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)
    size: int = 0


def unpack_zip(
    path: Path,
    into: Path,
    file_filter: FileFilter,
    *,
    prefix: str = "",
    limits: Limits = LIMITS,
    bytes_used: int = 0,
) -> UnpackedZip:
    """Unpack the slices of a zip file.

    Args:
        path: The archive.
        into: The target folder. Nobody else may write to it; the caller removes it.
        file_filter: Selects the members.
        prefix: Put before the names of the members for the comparison with patterns: the path of the archive below the
            input folder, with "/" at its end.
        limits: Limits of size and number.
        bytes_used: The part of `limits.total` that other archives have used.

    Raises:
        CascadeError: If the archive as a whole cannot be read.
    """
    result = UnpackedZip()
    max_total = limits.total - bytes_used
    with _open_zip(path, limits) as (archive, archive_size):
        members = [(name, info) for info in archive.infolist() if not (name := _member_name(info)).endswith("/")]
        result.members += [name for name, _ in members]
        copies = Counter(name.lstrip("/") for name, _ in members)
        written = _written_by_a_run(archive, members)
        for position, (name, info) in enumerate(members):
            try:
                _check_name(name)
                reason = _left_out_reason(name, file_filter, prefix, written)
                if not reason:
                    _check_member(info, name, copies[name])
                    packed_size = min(info.compress_size, archive_size)  # the header may contain any number
                    max_size = max(limits.small, limits.ratio * packed_size)
                    reason = _unpack_member(archive, info, into / name, max_size, max_total, result)
            except CascadeError as error:  # a new error: the traceback of this one would keep the last chunk in memory
                result.problems[name] = CascadeError(f"{path}/{name}: {error.problem}", fix=error.fix)
            else:
                if reason:
                    result.left_out[name] = reason
                else:
                    result.names.append(name)
            if result.size > max_total:
                result.left_out |= {name: OVER_LIMIT for name, _ in members[position + 1 :]}
                break
    return result


class _BoundedFile(io.FileIO):
    """Refuses to read a huge directory: zipfile reads it at once, and makes an object for every 46 bytes of it."""

    def read(self, size: int | None = -1, /) -> bytes | Any:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory is longer than {MAX_DIRECTORY_BYTES:,} bytes")
        return super().read(size)


@contextmanager
def _open_zip(path: Path, limits: Limits) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """Open an archive and return it with its size in bytes."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_BoundedFile(path))
            size = file.seek(0, io.SEEK_END)
            archive = stack.enter_context(zipfile.ZipFile(file))
        except OSError as error:
            raise CascadeError(
                f"{path}: cannot be read ({error.strerror or error})", fix="check the path and the permissions"
            ) from None
        except DAMAGED as error:
            raise CascadeError(
                f"{path}: cannot be read as a zip file ({error})", fix="download or pack it again"
            ) from None
        if len(archive.infolist()) > limits.members:
            raise CascadeError(
                f"{path}: contains {len(archive.infolist()):,} members",
                fix=f"give archives of at most {limits.members:,} members",
            )
        yield archive, size


def _member_name(info: zipfile.ZipInfo) -> str:
    """Return the path of a member with "/" between folders, even if packed on Windows, and at the end of a folder."""
    name = info.filename
    if not info.flag_bits & UTF8_FLAG:  # zipfile decodes it as code page 437, but macOS writes UTF-8 here too
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    name = name.replace("\\", "/")
    return f"{PurePosixPath(name)}{'/' * name.endswith('/')}"


def _check_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        raise CascadeError(
            "its path leads out of the archive", fix="do not unpack this archive; ask its author about this member"
        )
    if len(parts) > MAX_FOLDERS:
        raise CascadeError(f"lies in more than {MAX_FOLDERS} folders", fix=PACK_AGAIN)


def _written_by_a_run(archive: zipfile.ZipFile, members: Sequence[tuple[str, zipfile.ZipInfo]]) -> set[str]:
    """Return the images, and the folders of images, that cascade wrote before they were packed."""
    written = set()
    for name, info in members:
        marker = name.rpartition("/")[2]
        if marker not in MARKERS or info.flag_bits & ENCRYPTED_FLAG or info.compress_type not in METHODS:
            continue
        with suppress(OSError, *DAMAGED), archive.open(info) as file:
            if is_marked(marker, file.read(MARKER_BYTES)):
                written |= {f"{name.removesuffix(marker)}{image}" for image in WRITTEN[marker]}
    return written


def _left_out_reason(name: str, file_filter: FileFilter, prefix: str, written: Set[str]) -> str | None:
    """Return why a member is left out because of its name, or None."""
    path = PurePosixPath(name)
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return HIDDEN
    if written and any(str(part) in written for part in (path, *path.parents)):
        return OWN_OUTPUT
    for folder in reversed(PurePosixPath(prefix + name).parents[:-1]):
        if reason := file_filter.exclusion_reason(f"{folder}/"):
            return reason
    if is_zip(name):
        return file_filter.exclusion_reason(prefix + name)
    return file_filter.left_out_reason(prefix + name) or (None if file_filter.accepts(path.name) else UNSUPPORTED)


def _check_member(info: zipfile.ZipInfo, name: str, copies: int) -> None:
    """Raise CascadeError if the directory of the archive shows that a member cannot be unpacked."""
    if is_zip(name):
        raise CascadeError("is an archive in an archive", fix="unpack the outer one and give the folder")
    if copies > 1:
        raise CascadeError(f"the archive contains it {copies} times", fix="pack the archive again, with each name once")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise CascadeError("is a link or device, not a file", fix="pack the file itself")
    if info.flag_bits & ENCRYPTED_FLAG:
        raise CascadeError("is encrypted", fix="unpack the archive with its password and give the folder")
    if info.compress_type not in METHODS:
        raise CascadeError(f"is packed by method {info.compress_type}, not 8 (deflate)", fix=PACK_AGAIN)


def _unpack_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, max_size: int, max_total: int, result: UnpackedZip
) -> str | None:
    """Write a member to `target`, or return why it is left out because of its content."""
    try:
        with archive.open(info) as member:
            if not format_of_name(target.name):
                if not has_dicom_prefix(member.read(PREFIX_BYTES)):
                    return UNSUPPORTED
                member.seek(0)
            _copy(member, target, max_size, max_total, result)
    except DAMAGED as error:
        raise CascadeError(f"is damaged ({str(error) or 'it ends too early'})", fix=PACK_AGAIN) from None
    except OSError as error:
        raise CascadeError(
            f"cannot be unpacked ({error.strerror or error})", fix=UNPACK_FIXES.get(error.errno or 0, PACK_AGAIN)
        ) from None
    return None


def _copy(member: IO[bytes], target: Path, max_size: int, max_total: int, result: UnpackedZip) -> None:
    """Write a member to `target` and add to `result.size`. Removes the file if a limit is exceeded."""
    target.parent.mkdir(parents=True, exist_ok=True)
    file = target.open("xb")  # x: on a case-insensitive file system, the first of two members is kept
    size = 0
    try:
        with file:
            while chunk := member.read(CHUNK_BYTES):
                size += len(chunk)
                result.size += len(chunk)
                if result.size > max_total:
                    raise CascadeError(
                        "this and all later members exceed the size that one run may unpack", fix=UNPACK_YOURSELF
                    )
                if size > max_size:
                    raise CascadeError(f"unpacks to more than {max_size:,} bytes, unlike any scan", fix=UNPACK_YOURSELF)
                file.write(chunk)
    except BaseException:
        target.unlink()
        raise
