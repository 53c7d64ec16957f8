"""The books of a run: which inputs are finished, and their rows in the order of the tables."""

import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cascade.io.source import Source
from cascade.prediction.journal import Entry, Journal, JournalLine
from cascade.prediction.results import ResultsFolder
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult

Row = TypeVar("Row")

SECONDS_BETWEEN_SYNCS = 30.0
"""A power failure loses at most this much of the journal."""


class Ledger:
    """Adds finished inputs to the journal; every method may be called from any thread.

    The rows stay in the journal. In memory, it keeps 16 bytes for each input.

    Attributes:
        slices: Number of rows of slices so far.
    """

    def __init__(self, folder: ResultsFolder, journal: Journal, names: Iterable[str]) -> None:
        """Start with the entries that the journal has.

        Args:
            folder: Results folder.
            journal: Journal to add to.
            names: Names of all other inputs of the run, which determine the order of the tables.
        """
        self._journal, self._folder = journal, folder
        self._lock = threading.Lock()
        self._synced = time.monotonic()
        earlier = [(entry.name, *_counts(entry)) for entry in map(journal.entry, range(len(journal)))]
        self._names = sorted([*names, *(name for name, *_ in earlier)])
        self._places = array("q")  # number of an entry → place of its input in the tables
        self.slices = self._volumes = 0
        for counted in earlier:
            self._note(*counted)

    def begin(self, sources: Iterable[Source]) -> None:
        """Note inputs before the first file of theirs is written.

        Raises:
            CascadeError: The journal cannot be written.
        """
        if files := {source.name: self._folder.output_files(source) for source in sources}:
            self._journal.begin(files)

    def add(self, lines: Sequence[JournalLine]) -> None:
        """Note finished inputs.

        Raises:
            CascadeError: The journal cannot be written.
        """
        with self._lock:
            self._journal.add(lines)
            for line in lines:
                self._note(line.name, line.slices, line.volumes)
            if time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
                self._journal.sync()
                self._synced = time.monotonic()

    @property
    def rows(self) -> "LedgerRows[SliceResult]":
        """The rows of the slices of all inputs that are finished now."""
        with self._lock:
            return LedgerRows(self._journal, self._order(), lambda entry: entry.rows, self.slices)

    @property
    def volumes(self) -> "LedgerRows[VolumeResult]":
        """The rows of the volumes that are finished now."""
        with self._lock:
            return LedgerRows(self._journal, self._order(), _volumes, self._volumes)

    def _order(self) -> NDArray[np.intp]:
        return np.argsort(np.asarray(self._places), kind="stable")

    def _note(self, name: str, slices: int, volumes: int) -> None:
        self._places.append(bisect_left(self._names, name))
        self.slices += slices
        self._volumes += volumes


class LedgerRows(Sequence[Row]):
    """Rows in the order of the tables: by input, then by slice. They are read from the journal, and not kept."""

    def __init__(
        self, journal: Journal, order: NDArray[np.intp], rows_of: Callable[[Entry], Iterable[Row]], count: int
    ) -> None:
        """Note which rows to read.

        Args:
            journal: Journal that has the entries.
            order: Numbers of the entries, in the order of the tables.
            rows_of: Returns the rows of an entry.
            count: Number of rows.
        """
        self._journal, self._order, self._rows_of, self._count = journal, order, rows_of, count

    def entries(self) -> Iterator[Entry]:
        """Yield the finished inputs in the order of the tables."""
        return (self._journal.entry(int(number)) for number in self._order)

    def __iter__(self) -> Iterator[Row]:
        entries = self.entries() if self._count else ()  # most runs have no volumes: do not read the journal for them
        return (row for entry in entries for row in self._rows_of(entry))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return list(self)[index]


def _volumes(entry: Entry) -> tuple[VolumeResult, ...]:
    return (entry.volume,) if entry.volume else ()


def _counts(entry: Entry) -> tuple[int, int]:
    """Return the number of rows of slices, and of volumes."""
    return len(entry.rows), len(_volumes(entry))
