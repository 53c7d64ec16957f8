"""Files, folders and patterns → the slices to do, each with the name its results go by."""

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import CascadeError
from cascade.slices import SLICE_SUFFIXES

FORMATS = "PNG, JPEG, TIFF, BMP, WebP or .mat"


@dataclass(frozen=True)
class Inputs:
    """What was asked for.

    folder    absolute; the deepest folder that holds all that was given. A slice's name is its path below it.
    names     of the slices, sorted, each once, "/" between folders: no two files share one.
    problems  by path, what was given but cannot be done.
    """

    folder: Path
    names: list[str]
    problems: dict[str, CascadeError]


def find_slices(paths: Iterable[Path], written: Iterable[Path] = ()) -> Inputs:
    """Takes files as they are, looks into folders at any depth, and expands `*`, `?`, `[..]` and `**`.

    Inside folders it skips hidden files, links to folders, and what by its suffix is no slice. What lies below the
    folders `written` is never taken: no run reads what a run wrote. Raises CascadeError where no slice is left.
    """
    taboo = [folder.resolve() for folder in written]
    found: set[Path] = set()
    tops: list[Path] = []
    problems: dict[str, CascadeError] = {}
    for path in [match for given in paths for match in _matches(given)]:
        absolute = path.parent.resolve() / path.name  # a link keeps its own name
        try:
            if any(path.resolve().is_relative_to(folder) for folder in taboo):
                raise CascadeError(f"{path}: lies where the results go", fix="name another folder with --out")
            if path.is_dir():
                found.update(_slices_below(path.resolve(), taboo, problems))
                tops.append(path.resolve())
            else:
                _check_file(path)
                found.add(absolute)
                tops.append(absolute.parent)
        except CascadeError as error:
            problems[str(path)] = error
    if not found:
        fixes = {error.fix: None for error in problems.values()} or {f"give files or folders of {FORMATS}": None}
        raise CascadeError("\n".join(error.problem for error in problems.values()), fix="; ".join(fixes))
    folder = Path(os.path.commonpath(tops))
    return Inputs(folder, sorted(path.relative_to(folder).as_posix() for path in found), problems)


def _matches(given: Path) -> list[Path]:
    """What the pattern matches; the path itself where it exists, whatever characters it holds, or matches nothing."""
    if given.exists():
        return [given]
    matches = glob.glob(str(given), recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern
    return sorted(Path(match) for match in matches) or [given]


def _check_file(path: Path) -> None:
    if not path.exists():
        raise CascadeError(f"{path}: there is no such file or folder", fix="check the path")
    if path.suffix.lower() not in SLICE_SUFFIXES:
        raise CascadeError(f"{path}: is no slice, going by its name", fix=f"give {FORMATS}")


def _slices_below(top: Path, taboo: list[Path], problems: dict[str, CascadeError]) -> list[Path]:
    """A folder that may not be looked into becomes one of the `problems`."""

    def refuse(error: OSError) -> None:
        problems[str(error.filename)] = CascadeError(
            f"{error.filename}: cannot be looked into ({error.strerror})", fix="change the folder's permissions"
        )

    found: list[Path] = []
    for folder, folders, files in os.walk(top, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(folder, name) not in taboo]
        paths = [Path(folder, name) for name in files if not name.startswith(".")]
        found += [path for path in paths if path.suffix.lower() in SLICE_SUFFIXES]
    if not found and not any(Path(name).is_relative_to(top) for name in problems):
        raise CascadeError(f"{top}: holds no {FORMATS}", fix="give a folder of slices")
    return found
