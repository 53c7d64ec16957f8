"""The walk through what was given: no pipe is opened, no link to a folder followed, nothing that a run wrote taken."""

# Paths are strings here: 100,000 of them take the least memory so, and os.path has an answer for any name.
# ruff: noqa: PTH110, PTH112, PTH113, PTH118, PTH120

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cascade.discovery.filters import HIDDEN, NO_SLICE, Wanted, is_zip
from cascade.discovery.output_marker import written_in
from cascade.errors import CascadeError

LINK = "is a link to a folder"
DEEPER = "is a folder in a folder"
WRITTEN = "was written by a run"


class Archive(NamedTuple):
    """A zip. given  as the user knows it; below  what stands before its members' names where patterns are matched."""

    given: Path
    below: str


@dataclass
class Search:
    """What is looked for, and then what has been found; paths are absolute but for those of `problems`.

    written   files and folders that are not taken, nor what is below them; real paths.
    zips      whether zips are taken.
    files     the slices, by real folder and own name.
    archives  the zips, likewise.
    tops      the folders that hold what was given.
    problems  by path as it was given, what cannot be done.
    left_out  why the rest is not taken.
    """

    wanted: Wanted
    written: set[str]
    recursive: bool
    zips: bool
    files: set[str] = field(default_factory=set)
    archives: dict[str, Archive] = field(default_factory=dict)
    tops: set[str] = field(default_factory=set)
    problems: dict[str, CascadeError] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    _looked_through: dict[str, set[str]] = field(default_factory=dict)

    @property
    def formats(self) -> str:
        return f"{self.wanted.formats}{', or zips of them' if self.zips else ''}"

    def refuse(self, path: str | Path, problem: str, fix: str) -> None:
        self.problems[str(path)] = CascadeError(f"{path}: {problem}", fix=fix)

    def look_at(self, given: Path) -> None:
        """At a file or folder that was named, and so may be hidden or a link."""
        real = os.path.realpath(given)
        path = os.path.join(os.path.realpath(given.parent), given.name)  # a link keeps its own name
        if any(real == folder or real.startswith(os.path.join(folder, "")) for folder in self.written):
            self.refuse(given, "lies where the results go", "name another folder with --out")
        elif not os.path.exists(real):
            pattern = glob.has_magic(str(given))
            self.refuse(given, "matches nothing" if pattern else "there is no such file or folder", "check the path")
        elif self._lies_in_results(path):
            self.left_out[path] = WRITTEN  # patterns and lists name all that is there
        elif os.path.isdir(real):
            self._look_into(given, real)
        elif why := self._sort(path, given.name, given, os.path.dirname(path)):
            if why == NO_SLICE:
                self.refuse(given, "is no slice, going by its name", f"give {self.formats}")
            else:
                self.left_out[path] = why

    def _look_into(self, given: Path, top: str) -> None:
        """Looks at all that lies below the folder `top`, a real path."""
        if why := self.wanted.excluded(given.name):
            self.left_out[top] = why
            return
        some = False
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as found:
                    entries = list(found)
            except OSError as error:
                self.refuse(folder, f"cannot be looked into ({error.strerror})", "change the folder's permissions")
                some = True
                continue
            self.written |= self._written_in(folder)
            for entry in entries:
                name = entry.path.removeprefix(os.path.join(top, "")).replace(os.sep, "/")
                is_folder = os.path.isdir(entry.path)
                why = self._skip(entry, name, is_folder)
                if not why and is_folder:
                    waiting.append(entry.path)
                elif why := why or self._sort(entry.path, name, Path(entry.path), top, f"{name}/"):
                    self.left_out[entry.path] = why
                else:
                    some = True
        if not some:
            self.refuse(given, f"holds no {self.formats}", f"give a folder of slices{self._or_ask_for_more}")

    def _lies_in_results(self, path: str) -> bool:
        """Whether a run wrote the file or folder, going by what is beside the folders that it is in."""
        within = [path, *map(str, Path(path).parents)]
        return any(inner in self._written_in(os.path.dirname(inner)) for inner in within[:-1])

    def _written_in(self, folder: str) -> set[str]:
        if folder not in self._looked_through:
            self._looked_through[folder] = written_in(folder)
        return self._looked_through[folder]

    def _skip(self, entry: os.DirEntry[str], name: str, is_folder: bool) -> str | None:
        """Why what lies in a folder is left out, before it is looked at."""
        if entry.name.startswith("."):
            return HIDDEN
        if entry.path in self.written:
            return WRITTEN
        if is_folder:
            if entry.is_symlink():
                return LINK
            return self.wanted.excluded(name) or (None if self.recursive else DEEPER)
        return None

    def _sort(self, path: str, name: str, given: Path, top: str, below: str = "") -> str | None:
        """Puts the file, whose path below `top` is `name`, where it belongs, or returns why it is left out."""
        zipped = self.zips and is_zip(name)
        if why := self.wanted.excluded(name) if zipped else self.wanted.unasked(name):
            return why
        if not zipped and not self.wanted.is_slice(Path(path)):
            return NO_SLICE
        if not os.path.isfile(path):  # a pipe would be waited for, for ever
            self.refuse(given, "is no file" if os.path.exists(path) else "leads nowhere", "leave it out")
            return None
        self.tops.add(top)
        if zipped:
            self.archives.setdefault(path, Archive(given, below))
        else:
            self.files.add(path)
        return None

    @property
    def _or_ask_for_more(self) -> str:
        narrowed = self.wanted.include or self.wanted.exclude or not self.recursive
        return ", or leave out fewer" if narrowed else ""
