"""Journal of a run: what has been written so far, input by input, so that `--resume` can continue a killed run."""

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
from cascade.prediction.output_dir import JOURNAL
from cascade.prediction.results import SliceResult
from cascade.prediction.volumes import VolumeResult, volume_from_json

STARTED = "begun"
"""Key of a line that names a file which is about to be written."""


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

    def is_valid(self, out: Path) -> bool:
        """Return True if all files written for this input exist and are unchanged."""
        try:
            return all(sha256_of(out / path) == sha256 for path, sha256 in self.files.items())
        except OSError:
            return False


class Journal:
    """Appends to the journal in the results folder; every method may be called from any thread.

    Each line is a JSON object. The first contains the settings of the run. Each of the others is an `Entry`, or names a
    file that is about to be written. A line that a kill cut short is ignored.
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
        self._path = out / JOURNAL
        self._lock = threading.Lock()
        lines = [json.dumps(settings), *(_line(entry) for entry in entries)]
        write_atomically(self._path, "".join(f"{line}\n" for line in lines).encode())
        self._file: BinaryIO = self._path.open("ab")

    def add_file(self, path: str) -> None:
        """Note a file before it is written, so that a later run can remove it even if its input was never finished.

        Args:
            path: Path below the results folder.

        Raises:
            CascadeError: The disk is full.
        """
        self._append(json.dumps({STARTED: path}))

    def add(self, entry: Entry) -> None:
        """Note a finished input.

        Raises:
            CascadeError: The disk is full.
        """
        self._append(_line(entry))

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

    def _append(self, line: str) -> None:
        with self._lock:
            try:
                self._file.write(f"{line}\n".encode())
                self._file.flush()
            except OSError as error:
                raise self._error(error) from error

    def _error(self, error: OSError) -> CascadeError:
        return CascadeError(
            f"{self._path}: cannot be written ({error.strerror})", fix="free disk space and continue with --resume"
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
    previous, lines = _read(out)
    entries = _entries(lines)
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
    lines = _read(out)[1]
    started = {line[STARTED] for line in lines if STARTED in line}
    return started | {path for entry in _entries(lines).values() for path in entry.files}


def _read(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings and all lines after them; empty if there is no journal."""
    try:
        first, *lines = (out / JOURNAL).read_bytes().split(b"\n")
    except OSError:
        return {}, []
    return _parse(first), [content for line in lines if (content := _parse(line))]


def _entries(lines: Iterable[dict[str, Any]]) -> dict[str, Entry]:
    return {entry.name: entry for line in lines if (entry := _entry(line))}


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry))


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
    values = {field.name: content[field.name] for field in fields(SliceResult)}
    box, probabilities = values["box"], values["probabilities"]
    return SliceResult(
        **values
        | {
            "box": Box(*box) if box else None,
            "probabilities": tuple(probabilities) if probabilities else None,
            "notes": tuple(values["notes"]),
        }
    )
