"""Journal of a run: what has been finished so far, input by input, so that `--resume` can continue a killed run.

It also holds the rows of the run until the tables are written, so that they need no memory.
"""

import json
import os
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from cascade.contract import Box
from cascade.errors import CascadeError
from cascade.files import open_atomically, sha256_of
from cascade.io.slices import Source, UnopenedVolume, slice_name
from cascade.prediction.output_dir import JOURNAL
from cascade.prediction.results import ResultsFolder, SliceResult
from cascade.prediction.volumes import VolumeResult, volume_from_json

STARTED = "begun"
"""Key of a line that names files which are about to be written."""

FAILED = "failed"
"""Key of a line with an entry that has rows with errors. It is reported, and `--resume` processes its input again."""

ROW_FIELDS = tuple(field.name for field in fields(SliceResult))


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

    def is_valid(self, out: Path) -> bool:
        """Return True if all files written for this input exist and are unchanged."""
        try:
            return all(sha256_of(out / path) == sha256 for path, sha256 in self.files.items())
        except OSError:
            return False


def failed_source(folder: ResultsFolder, source: Source, error: CascadeError) -> Entry:
    """Return the entry of an input of which no slice could be processed."""
    rows = tuple(
        folder.error_row(slice_name(source, index), error, index if source.count > 1 else None)
        for index in range(source.count)
    )
    volume = _failed_volume(rows[0], source.name, source.count, source.notes) if source.count > 1 else None
    return Entry(source.name, "", rows, {}, (), volume)


def unopened_input(folder: ResultsFolder, name: str, error: CascadeError) -> Entry:
    """Return the entry of an input that could not be opened."""
    row = folder.error_row(name, error)
    volume = _failed_volume(row, name, error.slices) if isinstance(error, UnopenedVolume) else None
    return Entry(name, "", (row,), {}, (), volume)


def _failed_volume(row: SliceResult, name: str, slices: int, notes: tuple[str, ...] = ()) -> VolumeResult:
    """Return the row of a volume without a finding, for the reason of a row with an error."""
    return VolumeResult(name, "error", slices, notes=notes, problem=row.problem, fix=row.fix)


class Journal:
    """Appends to the journal in the results folder; every method may be called from any thread.

    Each line is a JSON object. The first contains the settings of the run. Each of the others is an `Entry`, or names
    files that are about to be written. A line that a kill cut short is ignored.

    Attributes:
        path: The file.
    """

    def __init__(self, out: Path, settings: dict[str, Any], entries: Iterable[Entry] = ()) -> None:
        """Replace the journal in a folder.

        Args:
            out: Results folder.
            settings: What the results depend on besides the inputs, ready for JSON.
            entries: Entries to keep from an earlier run.

        Raises:
            CascadeError: The folder cannot be written.
        """
        self.path = out / JOURNAL
        self._lock = threading.Lock()
        self._positions = array("q")
        with open_atomically(self.path) as file:
            self._end = file.write(_line(settings))
            for entry in entries:
                self._positions.append(self._end)
                self._end += file.write(_line(_content(entry)))
        self._file: BinaryIO = self.path.open("ab")
        self._reader = self.path.open("rb")  # reads this journal even if another run replaces it

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
        content = _parse(line)
        entry = _entry(content.get(FAILED, content))
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

    def add(self, entry: Entry) -> None:
        """Note a finished input.

        Raises:
            CascadeError: The disk is full.
        """
        content = _content(entry)
        line = _line({FAILED: content} if entry.failed else content)
        with self._lock:
            self._positions.append(self._append(line))

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

    def _append(self, line: bytes) -> int:
        """Append a line, and return where it begins."""
        start, self._end = self._end, self._end + len(line)
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:  # the rest of the line stays in the buffer
            raise self._error(error) from error
        return start

    def _error(self, error: OSError) -> CascadeError:
        return CascadeError(
            f"{self.path}: cannot be written ({error.strerror})", fix="free disk space and continue with --resume"
        )


def read_entries(out: Path, settings: dict[str, Any]) -> dict[str, Entry]:
    """Read the finished inputs of an earlier run.

    Args:
        out: Results folder.
        settings: Settings of this run; they must equal those of the earlier run.

    Returns:
        Name of the input → entry; empty if there is no journal.

    Raises:
        CascadeError: The settings differ, so that the results of both runs cannot be combined.
    """
    lines = _read(out)
    previous = next(lines, {})
    entries = {entry.name: entry for line in lines if (entry := _entry(line))}
    current = json.loads(json.dumps(settings))
    if entries and previous != current:
        changes = [
            f"{key} was {previous.get(key)}, is {value}" for key, value in current.items() if previous.get(key) != value
        ]
        raise CascadeError(
            f"{out}: contains a run that cannot be resumed: {'; '.join(changes)}",
            fix="use the same settings, start over with --overwrite, or choose another folder with --out",
        )
    return entries


def previous_files(out: Path) -> set[str]:
    """Return what the run in a folder wrote, also for inputs that it did not finish, as paths below the folder."""
    begun: dict[str, Iterable[str]] = {}
    for line in _read(out):
        files = line.get(STARTED, {})
        begun |= {files: [files]} if isinstance(files, str) else files  # version 0.1 noted each file by itself
        if entry := _entry(line.get(FAILED, line)):
            begun[entry.name] = entry.files  # these, and no others, were written
    return {path for files in begun.values() for path in files}


def _content(entry: Entry) -> dict[str, Any]:
    """Return an entry as a dictionary. `asdict` would copy all values, and takes ten times as long."""
    rows = [{name: getattr(row, name) for name in ROW_FIELDS} for row in entry.rows]
    return vars(entry) | {"rows": rows, "volume": asdict(entry.volume) if entry.volume else None}


def _line(content: dict[str, Any]) -> bytes:
    return f"{json.dumps(content)}\n".encode()


def _read(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the settings, then all lines after them; nothing if there is no journal."""
    with suppress(OSError), (out / JOURNAL).open("rb") as file:
        yield from map(_parse, file)


def _parse(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line; empty if there is none."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _entry(content: dict[str, Any]) -> Entry | None:
    try:
        rows = tuple(_row(row) for row in content["rows"])
        volume = volume_from_json(content["volume"]) if content["volume"] else None
        return Entry(content["name"], content["sha256"], rows, dict(content["files"]), tuple(content["read"]), volume)
    except (KeyError, TypeError, ValueError):
        return None


def _row(content: dict[str, Any]) -> SliceResult:
    values = {name: content[name] for name in ROW_FIELDS}
    box, probabilities = values["box"], values["probabilities"]
    return SliceResult(
        **values
        | {
            "box": Box(*box) if box else None,
            "probabilities": tuple(probabilities) if probabilities else None,
            "notes": tuple(values["notes"]),
        }
    )
