"""What a run has done so far, input by input: how a killed run goes on without doing anything twice."""

import json
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from cascade.contract import Box
from cascade.errors import CascadeError
from cascade.files import sha256_of, write_atomically
from cascade.prediction.results import JOURNAL, SliceResult

BEGUN = "begun"
"""Key of a file's path."""


@dataclass(frozen=True)
class Entry:
    """One input, done.

    name    of the input.
    sha256  of its bytes (cascade/io/checksums.py: `sha256_of_files`).
    rows    of its slices.
    files   what was written for it: path below the results' folder → sha256.
    read    its files: paths below the folder of inputs, those of zips as if these were folders.
    """

    name: str
    sha256: str
    rows: tuple[SliceResult, ...]
    files: dict[str, str]
    read: tuple[str, ...]

    def stands(self, out: Path) -> bool:
        """Whether all that was written for it is there, and as it was written."""
        try:
            return all(sha256_of(out / path) == sha256 for path, sha256 in self.files.items())
        except OSError:
            return False


class Journal:
    """Lines of JSON in the results' folder, added from any thread: what the run depends on; then before each file that
    it writes for an input, that file's path, and an `Entry` for each input that is done.

    A line that was cut short by a kill is none.
    """

    def __init__(self, out: Path, depends_on: dict[str, Any], kept: Iterable[Entry] = ()) -> None:
        """Begins anew, with the entries that are `kept`. Raises CascadeError where the folder cannot be written."""
        self._path = out / JOURNAL
        self._lock = threading.Lock()
        lines = [json.dumps(depends_on), *(_line(entry) for entry in kept)]
        write_atomically(self._path, "".join(f"{line}\n" for line in lines).encode())
        self._file: BinaryIO = self._path.open("ab")

    def begin(self, below: str) -> None:
        """Before a file is written, so that a later run can remove it though its input was never done.

        below  its path below the results' folder.

        Raises CascadeError on a full disk.
        """
        self._append(json.dumps({BEGUN: below}))

    def add(self, entry: Entry) -> None:
        """Raises CascadeError on a full disk."""
        self._append(_line(entry))

    def _append(self, line: str) -> None:
        with self._lock:
            try:
                self._file.write(f"{line}\n".encode())
                self._file.flush()
            except OSError as error:
                raise CascadeError(
                    f"{self._path}: cannot be written ({error.strerror})", fix="free space and go on with --resume"
                ) from error

    def save(self) -> None:
        """Waits until the disk has what was added: a power failure takes no more than came after."""
        with self._lock:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # of what is left over from an `add` that could not write it, and said so
            self._file.close()


def read_journal(out: Path, depends_on: dict[str, Any]) -> dict[str, Entry]:
    """By name what an earlier run did; nothing where there was none.

    Raises CascadeError where it depended on something else: to go on would be to begin anew, and remove its results.
    """
    then, lines = _lines(out)
    entries = _entries(lines)
    now = json.loads(json.dumps(depends_on))
    if entries and then != now:
        differing = [f"{key} was {then.get(key)}, is {value}" for key, value in now.items() if then.get(key) != value]
        raise CascadeError(
            f"{out}: holds a run that cannot be gone on with: {'; '.join(differing)}",
            fix="give what it was begun with, begin anew by --overwrite, or name another folder with --out",
        )
    return entries


def earlier_files(out: Path) -> set[str]:
    """What the run in a folder wrote below it, also for inputs that it never ended."""
    lines = _lines(out)[1]
    begun = {line[BEGUN] for line in lines if BEGUN in line}
    return begun | {path for entry in _entries(lines).values() for path in entry.files}


def _lines(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the run depended on, and all lines after; nothing where there is no journal."""
    try:
        first, *lines = (out / JOURNAL).read_bytes().split(b"\n")
    except OSError:
        return {}, []
    return _parsed(first), [content for line in lines if (content := _parsed(line))]


def _entries(lines: Iterable[dict[str, Any]]) -> dict[str, Entry]:
    """By name."""
    return {entry.name: entry for line in lines if (entry := _entry(line))}


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry))


def _parsed(line: bytes) -> dict[str, Any]:
    """Nothing for a line that holds none."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _entry(content: dict[str, Any]) -> Entry | None:
    try:
        rows = tuple(_row(row) for row in content["rows"])
        return Entry(content["name"], content["sha256"], rows, dict(content["files"]), tuple(content["read"]))
    except (KeyError, TypeError, ValueError):
        return None


def _row(content: dict[str, Any]) -> SliceResult:
    known = {field.name: content[field.name] for field in fields(SliceResult)}
    box, probabilities = known["box"], known["probabilities"]
    return SliceResult(
        **known
        | {
            "box": Box(*box) if box else None,
            "probabilities": tuple(probabilities) if probabilities else None,
            "notes": tuple(known["notes"]),
        }
    )
