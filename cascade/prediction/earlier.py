"""The earlier run in a results folder: which of its finished inputs a resumed run keeps, and what it wrote."""

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from cascade.discovery.inputs import Inputs
from cascade.discovery.store import StoreError
from cascade.errors import CascadeError
from cascade.io.checksums import sha256_of_files
from cascade.io.source import Source
from cascade.prediction.batch import io_threads
from cascade.prediction.fetched import fetched
from cascade.prediction.journal import FAILED, READ_BYTES, STARTED, Entry, entry_of, parse_line
from cascade.prediction.output_dir import JOURNAL
from cascade.prediction.output_store import THREADS
from cascade.prediction.results import ResultsFolder

CHECKED_AT_ONCE = 1024
"""Entries in memory while their files are compared."""


class EarlierEntries(Mapping[str, Entry]):
    """The finished inputs of an earlier run: name → entry. Each access reads an entry from the journal.

    In memory, it keeps the name of each input and its place in the journal: 150 bytes.

    Attributes:
        settings: Settings of the run; empty if there is no journal.
    """

    def __init__(self, out: Path) -> None:
        """Look through the journal in a results folder, which another one may replace afterwards."""
        self.settings: dict[str, Any] = {}
        self._positions: dict[str, int] = {}
        self._file: BinaryIO
        with suppress(OSError):
            self._file = (out / JOURNAL).open("rb", READ_BYTES)
            self.settings = parse_line(self._file.readline())
            position = self._file.tell()
            for line in self._file:
                if entry := entry_of(parse_line(line)):
                    self._positions[entry.name] = position
                position += len(line)

    def __getitem__(self, name: str) -> Entry:
        self._file.seek(self._positions[name])
        entry = entry_of(parse_line(self._file.readline()))
        if entry is None:
            raise CascadeError(f"{self._file.name}: was changed by another program", fix="start over with --overwrite")
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)


def read_entries(out: Path, settings: dict[str, Any]) -> EarlierEntries:
    """Read the finished inputs of an earlier run; none if there is no journal.

    Args:
        out: Results folder.
        settings: Settings of this run; they must equal those of the earlier run.

    Raises:
        CascadeError: The settings differ, so that the results of both runs cannot be combined.
    """
    entries = EarlierEntries(out)
    previous, current = entries.settings, json.loads(json.dumps(settings))
    if entries and previous != current:
        changes = [
            f"{key} was {previous.get(key)}, is {value}" for key, value in current.items() if previous.get(key) != value
        ]
        raise CascadeError(
            f"{out}: contains a run that cannot be resumed: {'; '.join(changes)}",
            fix="use the same settings, start over with --overwrite, or choose another folder with --out",
        )
    return entries


def reusable_names(
    entries: Mapping[str, Entry], inputs: Inputs, sources: Sequence[Source], folder: ResultsFolder
) -> list[str]:
    """Select the finished inputs of an earlier run whose files and results are unchanged.

    Results of inputs that no longer exist are dropped.

    Returns:
        Their names, in the order of the tables.

    Raises:
        CascadeError: The earlier run covered inputs that exist but are not part of this run. Resuming would delete
            their results. Or the object store of the inputs or of the results cannot be read.
    """
    if not entries:
        return []
    source_of_name = {source.name: source for source in sources}
    names = set(inputs.names)
    unfetched = {inputs.name(path): error for path, error in inputs.problems.items() if isinstance(error, StoreError)}
    for name in sorted({name for entry in entries.values() for name in entry.read if name not in names}):
        for container in (name, *map(str, PurePosixPath(name).parents)):
            if container in unfetched:
                raise unfetched[container]
        if inputs.is_left_out(name):
            raise CascadeError(
                f"{folder.out}: contains results of {inputs.location}/{name}, which is not part of this run",
                fix="use all inputs of the earlier run, start over with --overwrite, or choose another folder with "
                "--out",
            )

    def is_reusable(entry: Entry) -> bool:
        source = source_of_name[entry.name]
        if entry.read != tuple(map(folder.input_name, source.files)):  # its rows contain the names of its files
            return False
        with fetched([source], folder.store) as problems:
            for error in problems.values():
                if isinstance(error, StoreError):
                    raise error
            try:
                is_same = entry.sha256 == sha256_of_files(source.files)
            except CascadeError:
                return False  # reading it again will report the reason
        return is_same and folder.files.are_unchanged(entry.files)

    candidates = (entries[name] for name in sorted(entries) if name in source_of_name)
    reusable = []
    pool = ThreadPoolExecutor(THREADS if folder.output_store else io_threads())
    try:
        while window := list(islice(candidates, CHECKED_AT_ONCE)):
            answers = pool.map(is_reusable, window)
            reusable += [entry.name for entry, keep in zip(window, answers, strict=True) if keep]
    finally:
        pool.shutdown(cancel_futures=True)
    return reusable


def previous_files(out: Path, kept: Container[str] = ()) -> Iterator[str]:
    """Yield what the run in a folder wrote, also for inputs that it did not finish, as paths below the folder.

    Args:
        out: Results folder.
        kept: Names of finished inputs whose files are not needed.
    """
    begun: dict[str, Iterable[str]] = {}
    with suppress(OSError), (out / JOURNAL).open("rb") as file:
        for line in map(parse_line, islice(file, 1, None)):
            files = line.get(STARTED, {})
            for name, written in ({files: [files]} if isinstance(files, str) else files).items():  # str: version 0.1
                if name not in kept:
                    begun[name] = written
            if (entry := entry_of(line.get(FAILED, line))) and entry.name not in kept:
                begun[entry.name] = entry.files  # these, and no others, were written
    return (path for files in begun.values() for path in files)
