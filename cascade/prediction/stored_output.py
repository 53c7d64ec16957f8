"""Results of a run at a URL: a local folder stands for it, and the tables are uploaded at the start and at the end."""

import json
import os
import platform
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cascade.discovery.output_marker import MARKER_BYTES, is_marked
from cascade.discovery.store import is_url
from cascade.errors import CascadeError
from cascade.prediction.journal import Journal, JournalLine
from cascade.prediction.output_dir import ACCESS_PREFIX, JOURNAL, access_name, check_existing, output_paths
from cascade.prediction.output_store import OutputStore
from cascade.prediction.stored_journal import StoredJournal, fetch_journal

RUN_LOCK = ".cascade-run.lock"
"""Exists while a run writes to the store."""

RESULTS_JSON = "results.json"


@dataclass(frozen=True)
class StoredOutput:
    """Results in an object store, see `Output`.

    Attributes:
        store: The object store.
    """

    store: OutputStore

    @property
    def folder(self) -> Path:
        """See `Output`."""
        return self.store.folder

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """See `Output.check`."""
        names = self.store.names_in()
        existing = [path.name for path in output_paths(self.folder) if path.name in names]
        beginning = self.store.read(RESULTS_JSON, MARKER_BYTES) if RESULTS_JSON in existing else b""
        is_ours = is_marked(RESULTS_JSON, beginning)
        check_existing(self.store.url, existing, is_ours=is_ours, overwrite=overwrite, resume=resume)

    @contextmanager
    def lock(self, *, overwrite: bool, resume: bool) -> Iterator[None]:
        """See `Output.lock`."""
        self.check(overwrite=overwrite, resume=resume)  # before the lock is written
        started = datetime.now(UTC).isoformat(timespec="seconds")
        run = {"host": platform.node(), "pid": os.getpid(), "started": started, "id": secrets.token_hex(8)}
        lock = json.dumps(run).encode()
        try:
            self.store.create(RUN_LOCK, lock)
        except CascadeError as error:
            # The package of the store repeats a request whose answer was lost. Then the lock is there, and it is ours.
            if not self._is_ours(lock):
                raise self._locked(error) from error
        try:
            self.check(overwrite=overwrite, resume=resume)  # another run may have ended in the meantime
            fetch_journal(self.store)
            yield
        finally:
            with suppress(CascadeError):  # the next run reports it
                if self._is_ours(lock):  # else somebody took this run for dead, and another one has begun
                    self.store.remove([RUN_LOCK])

    @contextmanager
    def access_file(self) -> Iterator[str]:
        """See `Output.access_file`."""
        self.store.remove(name for name in self.store.names_in() if name.startswith(ACCESS_PREFIX))
        name = access_name()
        self.store.put(name, b"")
        try:
            yield f"{self.store.url}/{name}"
        finally:
            with suppress(CascadeError):
                self.store.remove([name])

    def open_journal(self, settings: dict[str, Any], lines: Iterable[JournalLine]) -> Journal:
        """See `Output.open_journal`."""
        return StoredJournal(self.store, settings, lines)

    def publish(self, *, at_end: bool) -> None:
        """Upload all tables, see `Output.publish`.

        results.json tells the next run that the folder is cascade's, so it is the first object of a run. At the end it
        is the last: whoever finds `complete` in it also finds everything else.
        """
        names = {path.name for path in self.folder.iterdir() if path.is_file()} - {JOURNAL, RESULTS_JSON}
        for name in [*sorted(names), RESULTS_JSON] if at_end else [RESULTS_JSON, *sorted(names)]:
            self.store.upload(name)

    def read_results(self) -> bytes:
        """See `Output.read_results`."""
        return self.store.read(RESULTS_JSON)

    def _is_ours(self, lock: bytes) -> bool:
        return RUN_LOCK in self.store.names_in() and self.store.read(RUN_LOCK) == lock

    def _locked(self, error: CascadeError) -> CascadeError:
        """Return the error for a lock that could not be created: another run is writing, or the store refuses it."""
        if RUN_LOCK not in self.store.names_in():
            return error
        try:
            run = json.loads(self.store.read(RUN_LOCK))
            writer = f"process {run['pid']} on {run['host']} has been writing to this folder since {run['started']}"
        except (CascadeError, ValueError, KeyError, TypeError):  # it has just ended, or is about to write this
            writer = "another run is writing to this folder"
        return CascadeError(
            f"{self.store.url}: {writer}",
            fix=f"wait until it has ended; if it was killed, remove {self.store.url}/{RUN_LOCK}, and continue with "
            "--resume",
        )


@contextmanager
def open_stored_output(url: str) -> Iterator[StoredOutput]:
    """Yield the results at a URL, with an empty local folder that stands for it. Nothing is written yet.

    Errors in the block name the URL in place of the local folder, unless it is the local disk that fails.

    Raises:
        CascadeError: It is no URL of a folder, or the package of the store is not installed.
    """
    url = url.rstrip("/")
    name = url.rpartition("/")[2]
    if not name or not is_url(url):
        raise CascadeError(f"{url}: names no folder", fix="give a folder with --out, such as s3://bucket/results")
    with tempfile.TemporaryDirectory(prefix="cascade-") as temporary:
        store = OutputStore(url, Path(temporary).absolute() / name)
        store.folder.mkdir()
        try:
            yield StoredOutput(store)
        except CascadeError as error:
            if isinstance(error.__cause__, OSError) and str(store.folder) in error.problem:
                fix = "let TMPDIR be a folder on a disk with more space, and continue with --resume"
                raise CascadeError(error.problem, fix=fix) from error
            raise CascadeError(store.with_urls(error.problem), fix=error.fix) from error
