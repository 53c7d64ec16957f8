"""Walk through the inputs. Opens no pipes, follows no links to folders, and leaves out the output of earlier runs."""

# Paths are strings here: they take the least memory, and os.path accepts any name.
# ruff: noqa: PTH110, PTH112, PTH113, PTH116, PTH118, PTH120

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cascade.discovery.companions import companion_of, has_companion
from cascade.discovery.filters import HIDDEN, OWN_OUTPUT, UNSUPPORTED, FileFilter, is_text_matrix, is_zip
from cascade.discovery.output_marker import written_in
from cascade.discovery.sequences import other_sequences
from cascade.errors import CascadeError
from cascade.files import pointer_error

FOLDER_LINK = "is a link to a folder"
SUBFOLDER = "is a subfolder, and --no-recursive was given"
TEXT_MATRIX = "is a matrix as text, not a slice"


class Archive(NamedTuple):
    """A zip file to unpack.

    Attributes:
        path: Its path as the user knows it.
        prefix: Put before the names of its members for the comparison with patterns.
    """

    path: Path
    prefix: str


def absolute_path(path: Path) -> str:
    """Return the real path of the folder and the name of the file: a link keeps its own name."""
    return os.path.join(os.path.realpath(path.parent), path.name)


@dataclass
class InputWalker:
    """Collects the files of all inputs. Paths are absolute, except for those in `problems`.

    Each path in `seen` ends up in `files`, `archives`, `problems` or `left_out`.

    Attributes:
        file_filter: Selects the files.
        own_output: Files and folders to leave out, with everything below them; real paths.
        recursive: Walk into folders inside folders.
        zips: Accept zip files.
        files: The accepted files, as the real path of the folder and the name of the file.
        archives: The accepted zip files, in the same form.
        roots: The folders that contain the inputs.
        problems: Inputs that cannot be processed, by the path that the user gave.
        left_out: Why the other files and folders were left out.
        walked: The folders whose entries were looked at.
        seen: Every input that is no folder, and every file in the folders.
        named: Those of `files` that are inputs themselves, not found in a folder or by a pattern.
    """

    file_filter: FileFilter
    own_output: set[str]
    recursive: bool
    zips: bool
    files: set[str] = field(default_factory=set)
    archives: dict[str, Archive] = field(default_factory=dict)
    roots: set[str] = field(default_factory=set)
    problems: dict[str, CascadeError] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    walked: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    _written: set[str] = field(default_factory=set)  # by earlier runs, in the folders walked
    _output_cache: dict[str, set[str]] = field(default_factory=dict)

    @property
    def format_names(self) -> str:
        """The accepted formats, for messages."""
        return f"{self.file_filter.format_names}{', or zip files of them' if self.zips else ''}"

    def add(self, path: Path, *, is_named: bool = True) -> None:
        """Add an input: a file, or a folder with all files in it. An input itself may be hidden or a link.

        Args:
            path: The input.
            is_named: False if it matches a pattern: like a folder, that may hold all sequences of a subject, and files
                that are no slices.
        """
        real = os.path.realpath(path)
        absolute = real if os.path.isdir(real) else absolute_path(path)  # "." and ".." have no name to keep
        if not os.path.isdir(real):
            self.seen.add(absolute)
        if any(real == folder or real.startswith(os.path.join(folder, "")) for folder in self.own_output):
            self.add_problem(path, "lies in the folder of the results", "choose another folder with --out")
        elif not os.path.exists(real):
            self._add_missing(path)
        elif self._is_own_output(absolute):
            self.left_out[absolute] = OWN_OUTPUT  # patterns and lists contain everything in a folder
        elif os.path.isdir(real):
            self._walk(path, real)
        elif reason := self._classify(absolute, path.name, path, os.path.dirname(absolute)):
            if reason == UNSUPPORTED and is_named:
                self.add_problem(path, UNSUPPORTED, f"give {self.format_names}")
            else:
                self.left_out[absolute] = reason
        elif is_named:
            self.named.add(absolute)

    def add_problem(self, path: str | Path, problem: str, fix: str) -> None:
        """Add an input that cannot be processed."""
        self.problems[str(path)] = CascadeError(f"{path}: {problem}", fix=fix)

    def _add_missing(self, path: Path) -> None:
        try:
            path.stat()
        except PermissionError as error:
            self.add_problem(path, f"cannot be opened ({error.strerror})", "change the permissions of its folder")
        except (OSError, ValueError):
            pattern = glob.has_magic(str(path))
            problem = "no file matches this pattern" if pattern else "there is no such file or folder"
            self.add_problem(path, problem, "check the path")

    def add_companions(self) -> None:
        """Add the second file of each volume that is stored in two, also if it was not given or not accepted alone."""
        for file in list(self.files):
            if has_companion(file) and (companion := companion_of(Path(file))):
                path = str(companion)
                self.seen.add(path)
                self.files.add(path)
                for problem in [name for name in self.problems if absolute_path(Path(name)) == path]:
                    del self.problems[problem]

    def leave_out_sequences(self) -> None:
        """Leave out other sequences and label maps beside the scans that are read, see `other_sequences`."""
        for path, reason in other_sequences(self.files - self.named).items():
            self.files.remove(path)
            self.left_out[path] = reason

    def _walk(self, path: Path, root: str) -> None:
        """Add all files below the folder `root`, a real path, which the user gave as `path`."""
        if reason := self.file_filter.exclusion_reason(f"{path.name}/"):
            self.left_out[root] = reason
            return
        is_empty = True
        pending = [root]
        while pending:
            folder = pending.pop()
            self.walked.add(folder)
            try:
                with os.scandir(folder) as iterator:
                    entries = list(iterator)
                os.stat(os.path.join(folder, "."))  # a folder may be listed but not searched
            except OSError as error:
                self.add_problem(folder, f"cannot be opened ({error.strerror})", "change the permissions of the folder")
                is_empty = False
                continue
            self._written |= self._written_in(folder)
            for entry in entries:
                name = entry.path.removeprefix(os.path.join(root, "")).replace(os.sep, "/")
                is_folder = os.path.isdir(entry.path)
                if not is_folder:
                    self.seen.add(entry.path)
                reason = self._left_out_reason(entry, name, is_folder)
                if not reason and is_folder:
                    pending.append(entry.path)
                elif reason := reason or self._classify(entry.path, name, Path(entry.path), root, f"{name}/"):
                    self.left_out[entry.path] = reason
                else:
                    is_empty = False
        if is_empty:
            self.add_problem(
                path, f"contains no {self.format_names}", f"give a folder of slices{self.or_fewer_filters}"
            )

    def _is_own_output(self, path: str) -> bool:
        """Return True if a run wrote the file or folder, judging by the files beside its parent folders."""
        chain = [path, *map(str, Path(path).parents)]
        return any(inner in self._written_in(os.path.dirname(inner)) for inner in chain[:-1])

    def _written_in(self, folder: str) -> set[str]:
        if folder not in self._output_cache:
            self._output_cache[folder] = written_in(folder)
        return self._output_cache[folder]

    def _left_out_reason(self, entry: os.DirEntry[str], name: str, is_folder: bool) -> str | None:
        """Return why an entry of a folder is left out without a look at its format."""
        if entry.name.startswith("."):
            return HIDDEN
        if entry.path in self.own_output or entry.path in self._written:
            return OWN_OUTPUT
        if is_folder:
            if entry.is_symlink():
                return FOLDER_LINK
            return self.file_filter.exclusion_reason(f"{name}/") or (None if self.recursive else SUBFOLDER)
        return TEXT_MATRIX if is_text_matrix(Path(entry.path)) else None

    def _classify(self, absolute: str, name: str, path: Path, root: str, prefix: str = "") -> str | None:
        """Add a file to `files`, `archives` or `problems`, or return why it is left out.

        Args:
            absolute: Its absolute path.
            name: Its path below `root`, with "/" between folders.
            path: Its path as the user knows it.
            root: The folder that contains the input.
            prefix: The `Archive.prefix`, if it is a zip file.
        """
        is_archive = self.zips and is_zip(name)
        if reason := self.file_filter.exclusion_reason(name) if is_archive else self.file_filter.left_out_reason(name):
            return reason
        if not is_archive and not self.file_filter.accepts_file(Path(absolute)):
            return UNSUPPORTED
        if not os.path.isfile(absolute):  # reading from a pipe would block
            if error := pointer_error(Path(absolute)):
                self.problems[str(path)] = error
            else:
                problem = "is not a regular file" if os.path.exists(absolute) else "is a broken link"
                self.add_problem(path, problem, "remove it from the inputs")
            return None
        self.roots.add(root)
        if is_archive:
            self.archives.setdefault(absolute, Archive(path, prefix))
        else:
            self.files.add(absolute)
        return None

    @property
    def or_fewer_filters(self) -> str:
        """What to add to a fix where filters may have left out the slices."""
        has_filters = self.file_filter.include or self.file_filter.exclude or not self.recursive
        return ", or exclude fewer files" if has_filters else ""
