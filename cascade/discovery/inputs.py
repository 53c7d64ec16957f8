"""Find the slices in files, folders, patterns and zip files, and give each a unique name."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cascade.discovery.archives import LIMITS, Limits, unpack_zip
from cascade.discovery.filters import HIDDEN, FileFilter, Format, format_of_name
from cascade.discovery.sequences import other_sequences
from cascade.discovery.store import Store
from cascade.discovery.walk import InputWalker, absolute_path
from cascade.errors import CascadeError

PROBLEMS_SHOWN = 20
"""Maximum number of problems that an error lists."""


@dataclass(frozen=True)
class Inputs:
    """The files to read.

    Attributes:
        folder: The deepest folder that contains all inputs; absolute.
        names: Names of the slice files, sorted and unique: their paths below `folder`, with "/" between folders. A zip
            file counts as a folder: scans/study.zip/a.png.
        problems: Inputs that cannot be processed, by path.
        left_out: Why other files and folders in the inputs were left out, by absolute path.
        seen: Every file that was given, in a folder or in a zip file: absolute path → name, whatever became of it. Zip
            files that could be opened count as folders.
        zipped: The names of files in zip files. They lie in the folder `unpacked`, under the same names.
        unpacked: The folder that zip files were unpacked to.
        store: The object store that `folder` stands for; None if the inputs are on this machine.
        listed: Inputs in the store. The names of all objects in them are known.
    """

    folder: Path
    names: list[str]
    problems: dict[str, CascadeError]
    left_out: dict[str, str] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    zipped: frozenset[str] = frozenset()
    unpacked: Path = Path()
    store: Store | None = None
    listed: tuple[Path, ...] = ()

    @property
    def location(self) -> str:
        """The folder that names are relative to, as the user knows it: a path or a URL."""
        return self.with_urls(str(self.folder))

    def with_urls(self, text: str) -> str:
        """Return a text with URLs in place of the local paths that stand for them."""
        return self.store.with_urls(text) if self.store else text

    def name(self, path: str) -> str:
        """Return the name of a file, which need not exist: its path below `folder`, or else its absolute path."""
        return _name(_absolute(path), str(self.folder))

    def root(self, name: str) -> Path:
        """Return the folder on disk that a name is relative to."""
        return self.unpacked if name in self.zipped else self.folder

    def path(self, name: str) -> Path:
        """Return the path of a file on disk."""
        return self.root(name) / name

    def is_left_out(self, name: str) -> bool:
        """Return True if a name not in `names` refers to an existing file or zip member that was left out.

        Raises:
            CascadeError: The object store does not say whether it exists.
        """
        path = self.folder / name
        if self.store and not any(path.is_relative_to(listed) for listed in self.listed):
            return self.store.may_exist(path)
        archive = next((parent for parent in path.parents if os.path.isfile(parent)), None)  # noqa: PTH113
        if archive is None:
            return _may_exist(path)
        archive_name = self.name(str(archive))
        is_problem = archive_name in {self.name(problem) for problem in self.problems}
        is_used = is_problem or any(other.startswith(f"{archive_name}/") for other in self.zipped)
        return not is_used or str(path) in self.left_out

    def format(self, name: str) -> Format:
        """Return the format of a file."""
        return format_of_name(name.rpartition("/")[2]) or "dicom"  # accepted without a suffix: its content is DICOM

    def of_format(self, format_: Format) -> list[str]:
        """Return the names of all files of a format, sorted."""
        return [name for name in self.names if self.format(name) == format_]


def find_slices(
    paths: Iterable[Path],
    own_output: Iterable[Path] = (),
    *,
    formats: Sequence[Format] = ("image",),
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    unpack_into: Path | None = None,
    limits: Limits = LIMITS,
) -> Inputs:
    """Find the slices in files, folders and zip files.

    Expands the patterns `*`, `?`, `[..]` and `**` in `paths`. Leaves out hidden files, links to folders and unsupported
    files in folders and zip files, and the output of earlier runs everywhere.

    Args:
        paths: Files, folders and patterns.
        own_output: Files and folders to leave out, with everything below them.
        formats: The formats to accept.
        recursive: Walk into folders inside folders. Folders in zip files are always included.
        include: If there are any, a file must match one of these patterns; see `FileFilter`.
        exclude: Patterns of files and folders to leave out, even if they are in `paths`.
        unpack_into: An empty folder for the content of zip files, which the caller removes. None rejects zip files.
        limits: Limits for zip files.

    Raises:
        CascadeError: If there is no slice, or a pattern is invalid.
    """
    file_filter = FileFilter(tuple(formats), tuple(include), tuple(exclude))
    real_output = {os.path.realpath(path) for path in own_output}
    walker = InputWalker(file_filter, real_output, recursive, zips=unpack_into is not None)
    for pattern in paths:
        for path in _expand(pattern):
            walker.add(path, is_named=path == pattern)
    try:
        folder = os.path.commonpath(walker.roots) if walker.roots else ""
    except ValueError:
        raise CascadeError("the inputs are on several drives", fix="start one run for each drive") from None
    walker.leave_out_sequences()
    walker.add_companions()
    zipped = _unpack(walker, folder, unpack_into, limits) if unpack_into else []
    names = sorted([*(_relative(path, folder) for path in walker.files), *zipped])
    if not names:
        raise _no_slices(walker)
    failed = {_absolute(path) for path in walker.problems}
    for used in (*walker.files, *walker.archives, *walker.walked, *failed):
        walker.left_out.pop(used, None)  # left out of one input, but part of another
    return Inputs(
        folder=Path(folder),
        names=names,
        problems=walker.problems,
        left_out=walker.left_out,
        seen={path: _name(path, folder) for path in walker.seen},
        zipped=frozenset(zipped),
        unpacked=unpack_into or Path(folder),
    )


def _may_exist(path: Path) -> bool:
    """Return False if there is no such file: in a folder that cannot be searched now, there may be one."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _expand(pattern: Path) -> list[Path]:
    """Return the paths that match, or the path itself if it exists or nothing matches."""
    if os.path.lexists(pattern):
        return [pattern]
    return sorted(set(_matches(pattern))) or [pattern]


def _matches(pattern: Path) -> Iterator[Path]:
    """Yield the paths that match. `**` follows no links to folders; a folder below it that cannot be read matches."""
    parts = pattern.parts
    if "**" not in parts:
        yield from map(Path, glob.glob(str(pattern)))  # noqa: PTH207  Path.glob does not accept absolute patterns
        return
    at = parts.index("**")
    errors: list[OSError] = []
    for start in _matches(Path(*parts[:at])):
        for folder, folders, _ in os.walk(start, onerror=errors.append):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _matches(Path(glob.escape(folder), *(parts[at + 1 :] or ("*",))))
    yield from (Path(error.filename) for error in errors)


def _absolute(path: str) -> str:
    """Return the absolute path of a file or member of a zip file, without following a link at its end."""
    original = Path(path)
    parents = (original, *original.parents)  # one of them may be a zip file
    file = next((path for path in parents if os.path.isfile(path)), original)  # noqa: PTH113  too long a name is no error
    return str(Path(absolute_path(file), original.relative_to(file)))


def _name(path: str, folder: str) -> str:
    """Return the path below the folder, with "/" between folders; the absolute path of a file that is elsewhere."""
    if path == folder:
        return "."
    return _relative(path, folder) if path.startswith(os.path.join(folder, "")) else path  # noqa: PTH118


def _relative(path: str, folder: str) -> str:
    return path.removeprefix(folder).lstrip(os.sep).replace(os.sep, "/")


def _unpack(walker: InputWalker, folder: str, into: Path, limits: Limits) -> list[str]:
    """Unpack all zip files and return the names of their slices."""
    names: list[str] = []
    bytes_used = 0
    for path, (original, prefix) in sorted(walker.archives.items()):
        name = _relative(path, folder)
        try:
            content = unpack_zip(
                original, into / name, walker.file_filter, prefix=prefix, limits=limits, bytes_used=bytes_used
            )
        except CascadeError as error:
            walker.problems[str(original)] = error
            continue
        for member, reason in other_sequences(content.names).items():
            content.names.remove(member)
            content.left_out[member] = reason
        if content.members:
            walker.seen.remove(path)
        walker.seen |= {str(Path(f"{path}/{member}")) for member in content.members}
        if not (content.names or content.problems):
            walker.add_problem(
                original, f"contains no {walker.file_filter.format_names}", "give zip files that contain slices"
            )
        bytes_used += content.size
        names += [f"{name}/{member}" for member in content.names]
        walker.problems |= {f"{original}/{member}": error for member, error in content.problems.items()}
        walker.left_out |= {f"{path}/{member}": reason for member, reason in content.left_out.items()}
    return names


def _no_slices(walker: InputWalker) -> CascadeError:
    errors = list(walker.problems.values())
    problems = [error.problem for error in errors[:PROBLEMS_SHOWN]] or ["the inputs contain no slice"]
    if len(errors) > PROBLEMS_SHOWN:
        problems.append(f"and {len(errors) - PROBLEMS_SHOWN:,} more")
    reasons = Counter(reason for reason in walker.left_out.values() if reason != HIDDEN)
    problems += [f"left out: {count:,} ({reason})" for reason, count in reasons.most_common()]
    fixes = dict.fromkeys(error.fix for error in errors) or [
        f"give files or folders of {walker.format_names}{walker.or_fewer_filters}"
    ]
    return CascadeError("\n".join(problems), fix="; ".join(fixes))


def read_list(stream: BinaryIO) -> list[str]:
    """Read a list of paths or URLs, one per line, or separated by NUL characters as from `find -print0`.

    Blank lines are ignored. Paths may contain any bytes.
    """
    content = stream.read()
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]
