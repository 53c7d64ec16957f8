"""Journal of a run: what has been finished so far, input by input, so that `--resume` can continue a killed run.

It also holds the rows of the run until the tables are written, so that they need no memory.
"""

import json
import os
import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from cascade.contract import Box
from cascade.errors import CascadeError
from cascade.files import open_atomically
from cascade.prediction.output_dir import JOURNAL
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult, volume_from_json

STARTED = "begun"
"""Key of a line that names files which are about to be written."""

FAILED = "failed"
"""Key of a line with an entry that has rows with errors. It is reported, and `--resume` processes its input again."""

ROW_FIELDS = tuple(field.name for field in fields(SliceResult))

READ_BYTES = 2**16
"""Neighboring entries often follow each other in the tables: so many bytes hold about 80."""


@dataclass(frozen=True)
class Entry:
    """One finished input.

    Attributes:
        name: Name of the input.
        sha256: Checksum of its files.
        rows: One row per slice.
        volume: The row of the volume; None for a single slice.
        files: What was written for it: path below the results folder → SHA-256.
        read: Files of the input, as paths below the input folder; a zip counts as a folder.
    """

    name: str
    sha256: str
    rows: tuple[SliceResult, ...]
    files: dict[str, str]
    read: tuple[str, ...]
    volume: VolumeResult | None = None

    @property
    def failed(self) -> bool:
        """True if a slice could not be processed."""
        return any(row.status == "error" for row in self.rows)


class JournalLine(NamedTuple):
    """An entry as the journal stores it. Workers make it, so that the driver of many need not encode anything.

    Attributes:
        name: Name of the input.
        text: The line.
        slices: Number of rows.
        volumes: 1 if there is a row of a volume, else 0.
        failed: True if a slice could not be processed.
    """

    name: str
    text: bytes
    slices: int
    volumes: int
    failed: bool


def journal_line(entry: Entry) -> JournalLine:
    """Encode a finished input for the journal."""
    content, failed = _content(entry), entry.failed
    text = _line({FAILED: content} if failed else content)
    return JournalLine(entry.name, text, len(entry.rows), 1 if entry.volume else 0, failed)


class Journal:
    """Appends to the journal in the results folder; every method may be called from any thread.

    Each line is a JSON object. The first contains the settings of the run. Each of the others is an `Entry`, or names
    files that are about to be written. A line that a kill cut short is ignored.

    Attributes:
        path: The file.
    """

    def __init__(self, out: Path, settings: dict[str, Any], lines: Iterable[JournalLine] = ()) -> None:
        """Replace the journal in a folder.

        Args:
            out: Results folder.
            settings: What the results depend on besides the inputs, ready for JSON.
            lines: Entries to keep from an earlier run.

        Raises:
            CascadeError: The folder cannot be written.
        """
        self.path = out / JOURNAL
        self._lock = threading.Lock()
        self._positions = array("q")
        with open_atomically(self.path) as file:
            self._end = file.write(_line(settings))
            for line in lines:
                self._positions.append(self._end)
                self._end += file.write(line.text)
        self._file = self.path.open("ab", buffering=0)
        self._reader = self.path.open("rb", READ_BYTES)  # reads this journal even if another run replaces it

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._positions)

    def entry(self, number: int) -> Entry:
        """Read an entry from the disk, also one of an input that failed.

        Args:
            number: Number of the entry, from 0, in the order in which they were added.
        """
        with self._lock:
            self._reader.seek(self._positions[number])
            line = self._reader.readline()
        content = parse_line(line)
        entry = entry_of(content.get(FAILED, content))
        if entry is None:
            raise CascadeError(f"{self.path}: was changed during the run", fix="start over with --overwrite")
        return entry

    def begin(self, files: Mapping[str, Sequence[str]]) -> None:
        """Note files before they are written, so that a later run can remove them even if their input is not finished.

        Args:
            files: Name of an input → the files that may be written for it, as paths below the results folder.

        Raises:
            CascadeError: The disk is full.
        """
        line = _line({STARTED: files})
        with self._lock:
            self._append(line)

    def add(self, lines: Sequence[JournalLine]) -> None:
        """Note finished inputs.

        Raises:
            CascadeError: The disk is full.
        """
        text = b"".join(line.text for line in lines)
        with self._lock:
            start = self._append(text)
            for line in lines:
                self._positions.append(start)
                start += len(line.text)

    def sync(self) -> None:
        """Wait until everything is on the disk, so that even a power failure does not take it.

        Raises:
            CascadeError: The disk fails.
        """
        with self._lock:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._error(error) from error

    def close(self) -> None:
        """Write the journal to disk and close it; a failed write does not raise."""
        with suppress(CascadeError):
            self.sync()
        with suppress(OSError):  # an `add` that could not write its text has already reported it
            self._file.close()

    def _append(self, text: bytes) -> int:
        """Append whole lines, and return where they begin."""
        start, rest = self._end, memoryview(text)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(start)  # half a line would damage the next one
            raise self._error(error) from error
        self._end += len(text)
        return start

    def _error(self, error: OSError) -> CascadeError:
        return CascadeError(
            f"{self.path}: cannot be written ({error.strerror})", fix="free disk space and continue with --resume"
        )


def _content(entry: Entry) -> dict[str, Any]:
    """Return an entry as a dictionary. `asdict` would copy all values, and takes ten times as long."""
    rows = [{name: getattr(row, name) for name in ROW_FIELDS} for row in entry.rows]
    return vars(entry) | {"rows": rows, "volume": asdict(entry.volume) if entry.volume else None}


def _line(content: dict[str, Any]) -> bytes:
    return f"{json.dumps(content)}\n".encode()


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line; empty if the line is damaged."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def entry_of(content: dict[str, Any]) -> Entry | None:
    """Return the entry that a line contains, or None. The dictionary is used up."""
    try:
        rows = tuple(_row(row) for row in content["rows"])
        volume = volume_from_json(content["volume"]) if content["volume"] else None
        return Entry(content["name"], content["sha256"], rows, dict(content["files"]), tuple(content["read"]), volume)
    except (KeyError, TypeError, ValueError):
        return None


def _row(content: dict[str, Any]) -> SliceResult:
    box, probabilities = content["box"], content["probabilities"]
    content["box"] = Box(*box) if box else None
    content["probabilities"] = tuple(probabilities) if probabilities else None
    content["notes"] = tuple(content["notes"])
    return SliceResult(*map(content.__getitem__, ROW_FIELDS))
