"""Tables as JSON and CSV, written record by record, so that their size is not limited by the memory."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cascade.files import open_atomically
from cascade.tables import TableWriter

Record = dict[str, Any]

AddRecord = Callable[[Record], object]


class JsonWriter:
    """Writes a JSON object: the header indented, then lists with one line per record.

    `indent` for all records would take three times as long.
    """

    def __init__(self, file: BinaryIO, header: Record) -> None:
        self._file, self._separator = file, b""
        file.write(json.dumps(header, indent=1).removesuffix("\n}").encode())

    def begin(self, key: str) -> None:
        """Begin a list, whose records `add` writes."""
        if self._separator:
            self._file.write(b"\n ]")
        self._file.write(f",\n {json.dumps(key)}: [".encode())
        self._separator = b"\n  "

    def add(self, record: Record) -> None:
        """Append a record to the list."""
        self._file.write(self._separator + json.dumps(record).encode())
        self._separator = b",\n  "

    def end(self) -> None:
        """Close the list and the object."""
        self._file.write(b"\n ]\n}\n")


@contextmanager
def open_json(path: Path, header: Record) -> Iterator[JsonWriter]:
    """Yield the writer of a JSON file, which replaces `path` at the end of the block. It needs at least one list.

    Raises:
        CascadeError: The file cannot be written.
    """
    with open_atomically(path) as file:
        writer = JsonWriter(file, header)
        yield writer
        writer.end()


@contextmanager
def open_csv(path: Path, columns: Sequence[str]) -> Iterator[AddRecord]:
    """Yield a function that adds a row to a CSV file, which replaces `path` at the end of the block.

    Raises:
        CascadeError: The file cannot be written.
    """
    with open_atomically(path) as file:
        yield TableWriter(file, columns).add
