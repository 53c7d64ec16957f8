"""Files, folders, patterns and zips → the slices to do, each with the name its results go by."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cascade.discovery.archives import LIMITS, Limits, unpacked
from cascade.discovery.filters import HIDDEN, Kind, Wanted, named_kind
from cascade.discovery.walk import Search
from cascade.errors import CascadeError

PROBLEMS_SHOWN = 20
"""An error that ends the run names this many and counts the rest."""


@dataclass(frozen=True)
class Inputs:
    """What was asked for.

    folder    absolute; the deepest folder that holds all that was given. A slice's name is its path below it.
    names     of the slices, sorted, each once, "/" between folders: no two files share one. A zip counts as a folder:
              scans/study.zip/a.png.
    problems  by path, what was given but cannot be done.
    left_out  by absolute path, why a file or folder that lies in what was given is not taken.
    zipped    the names that are in zips. These files lie, under the same names, in the folder `unpacked`.
    """

    folder: Path
    names: list[str]
    problems: dict[str, CascadeError]
    left_out: dict[str, str] = field(default_factory=dict)
    zipped: frozenset[str] = frozenset()
    unpacked: Path = Path()

    def name(self, path: str) -> str:
        """What the results of a path go by, there or not: below `folder`, else as it is."""
        given = Path(path)
        file = next((above for above in (given, *given.parents) if above.is_file()), given)  # a zip of that member
        whole = Path(os.path.realpath(file.parent), file.name, given.relative_to(file))  # a link keeps its own name
        return whole.relative_to(self.folder).as_posix() if whole.is_relative_to(self.folder) else path

    def root(self, name: str) -> Path:
        """The folder that the name is relative to on disk."""
        return self.unpacked if name in self.zipped else self.folder

    def path(self, name: str) -> Path:
        """Where the slice's file is."""
        return self.root(name) / name

    def is_left_out(self, name: str) -> bool:
        """Whether a name that is none of `names` is of a file that is there all the same, or of a zip's member."""
        path = self.folder / name
        archive = next((folder for folder in path.parents if folder.is_file()), None)
        if archive is None:
            return path.exists()
        zipped, broken = self.name(str(archive)), {self.name(given) for given in self.problems}
        taken = zipped in broken or any(other.startswith(f"{zipped}/") for other in self.zipped)
        return not taken or str(path) in self.left_out

    def kind(self, name: str) -> Kind:
        return named_kind(name.rpartition("/")[2]) or "dicom"  # what no name told was opened, and seen to be DICOM

    def of_kind(self, kind: Kind) -> list[str]:
        """The names of one kind, sorted."""
        return [name for name in self.names if self.kind(name) == kind]


def find_slices(
    paths: Iterable[Path],
    written: Iterable[Path] = (),
    *,
    kinds: Sequence[Kind] = ("picture",),
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    unpack_into: Path | None = None,
    limits: Limits = LIMITS,
) -> Inputs:
    """Takes files as they are, looks into folders, and expands `*`, `?`, `[..]` and `**`.

    Inside folders and zips it skips what is hidden, links to folders, and what is no slice. It never takes the files
    and folders `written`, what lies below them, or the pictures of earlier runs: no run reads what a run wrote.

    kinds        the kinds of file to take.
    recursive    False looks into no folder inside a folder. A zip counts as one file, whatever folders are in it.
    include      patterns that a file must match one of, where there are any; see Wanted for how they are read.
    exclude      patterns of files and folders to leave out, of those given too.
    unpack_into  an empty folder, which the caller removes; None takes no zips.

    Raises CascadeError where no slice is left.
    """
    wanted = Wanted(tuple(kinds), tuple(include), tuple(exclude))
    search = Search(wanted, {os.path.realpath(path) for path in written}, recursive, zips=unpack_into is not None)
    for given in paths:
        for path in _matches(given):
            search.look_at(path)
    try:
        folder = os.path.commonpath(search.tops) if search.tops else ""
    except ValueError:
        raise CascadeError(
            "the inputs lie on several drives", fix="give those of each drive to a run of its own"
        ) from None
    zipped = _unpack(search, folder, unpack_into, limits) if unpack_into else []
    names = sorted([*(_name(path, folder) for path in search.files), *zipped])
    if not names:
        raise _nothing_to_do(search)
    for taken in (*search.files, *search.archives, *search.tops):
        search.left_out.pop(taken, None)  # left out of one folder that was given, and taken for another
    return Inputs(Path(folder), names, search.problems, search.left_out, frozenset(zipped), unpack_into or Path(folder))


def _matches(given: Path) -> list[Path]:
    """What the pattern matches; the path itself where it exists, whatever characters it holds, or matches nothing."""
    if os.path.lexists(given):
        return [given]
    matches = glob.glob(str(given), recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern
    return sorted(Path(match) for match in matches) or [given]


def _name(path: str, folder: str) -> str:
    return path.removeprefix(folder).lstrip(os.sep).replace(os.sep, "/")


def _unpack(search: Search, folder: str, into: Path, limits: Limits) -> list[str]:
    """Unpacks the zips that were found, and returns the names of their slices."""
    names: list[str] = []
    spent = 0
    for path, (given, below) in sorted(search.archives.items()):
        name = _name(path, folder)
        try:
            found = unpacked(given, into / name, search.wanted, below=below, limits=limits, spent=spent)
        except CascadeError as error:
            search.problems[str(given)] = error
            continue
        if not (found.names or found.problems):
            search.refuse(given, f"holds no {search.wanted.formats}", "give archives of slices")
        spent += found.size
        names += [f"{name}/{member}" for member in found.names]
        search.problems |= {f"{given}/{member}": error for member, error in found.problems.items()}
        search.left_out |= {f"{path}/{member}": why for member, why in found.left_out.items()}
    return names


def _nothing_to_do(search: Search) -> CascadeError:
    errors = list(search.problems.values())
    problems = [error.problem for error in errors[:PROBLEMS_SHOWN]] or ["there is no slice among what was given"]
    if len(errors) > PROBLEMS_SHOWN:
        problems.append(f"and {len(errors) - PROBLEMS_SHOWN:,} more")
    reasons = Counter(why for why in search.left_out.values() if why != HIDDEN)
    problems += [f"left out: {count:,}, for: {why}" for why, count in reasons.most_common()]
    fixes = dict.fromkeys(error.fix for error in errors) or [f"give files or folders of {search.formats}"]
    return CascadeError("\n".join(problems), fix="; ".join(fixes))


def read_list(stream: BinaryIO) -> list[Path]:
    """Paths of any bytes, one a line; where there is any NUL, between NULs, as `find -print0` writes them.

    Blank ones are skipped.
    """
    content = stream.read()
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [Path(os.fsdecode(line)) for line in lines if line.strip()]
