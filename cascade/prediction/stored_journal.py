"""The journal of a run whose results go to an object store, which cannot append."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cascade.prediction.journal import Journal, JournalLine
from cascade.prediction.output_dir import JOURNAL
from cascade.prediction.output_store import OutputStore

SEGMENTS = ".cascade-journal"
"""Folder of the segments, which are there only until the run ends."""


class StoredJournal(Journal):
    """A local journal, of which the store always has a copy.

    At the start of a run, the copy is one object. All lines that are added later go to segments: objects of their own,
    numbered from 1. The first line of each repeats the settings, since a run that was killed may leave segments behind.
    At the end, one object replaces all.

    A segment is put before the first file of a block of inputs is written, and at each `sync`. Finished inputs that are
    not in the store when the driver is killed are processed again.

    Attributes:
        store: The object store.
    """

    def __init__(self, store: OutputStore, settings: dict[str, Any], lines: Iterable[JournalLine] = ()) -> None:
        """Replace the journal, see `Journal`.

        Raises:
            CascadeError: The local folder or the store cannot be written.
        """
        super().__init__(store.folder, settings, lines)
        self.store = store
        self._put_lock = threading.Lock()
        self._segments, self._put = 0, self._end
        with self.path.open("rb") as file:
            self._settings = file.readline()
        self._merge()

    def begin(self, files: Mapping[str, Sequence[str]]) -> None:
        """See `Journal.begin`. The store has the names when this returns."""
        super().begin(files)
        self._put_segment()

    def sync(self) -> None:
        """See `Journal.sync`. The store has all entries when this returns."""
        super().sync()
        self._put_segment()

    def close(self) -> None:
        """Close the journal, and put it as a whole.

        Raises:
            CascadeError: The store cannot be written. The segments are still there.
        """
        super().close()
        self._merge()

    def _merge(self) -> None:
        """Put the whole journal in place of the segments."""
        self.store.upload(JOURNAL)
        self.store.remove(self.store.names_in(SEGMENTS))

    def _put_segment(self) -> None:
        """Put all lines that are not in the store yet."""
        with self._put_lock:
            with self._lock:
                start, end = self._put, self._end
            if start < end:
                lines = os.pread(self._reader.fileno(), end - start, start)
                self.store.put(f"{SEGMENTS}/{self._segments + 1:09}.jsonl", self._settings + lines)
                self._segments, self._put = self._segments + 1, end


def fetch_journal(store: OutputStore) -> None:
    """Copy the journal of the earlier run to the local folder, with its segments, if there is one.

    Raises:
        CascadeError: The store cannot be read.
    """
    if JOURNAL not in store.names_in():
        return
    path = store.folder / JOURNAL
    with path.open("wb") as file:
        store.download(JOURNAL, file)
    with path.open("rb") as file:
        settings = file.readline()
    with path.open("ab") as file:
        for segment in store.read_all(sorted(store.names_in(SEGMENTS))):
            if segment.startswith(settings):  # else it is of a run before the one that has replaced the journal
                file.write(segment.removeprefix(settings))
