"""A run whose results go to a URL: a local folder stands for it, and the tables are uploaded at the end."""

import json
import os
import platform
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cascade.discovery.output_marker import MARKER_BYTES
from cascade.discovery.store import is_url
from cascade.errors import CascadeError
from cascade.prediction.output_dir import JOURNAL, check_output_dir, output_paths
from cascade.prediction.output_store import OutputStore
from cascade.prediction.stored_journal import fetch_journal

RUN_LOCK = ".cascade-run.lock"
"""Exists while a run writes to the store."""

MARKED = "results.json"


@contextmanager
def open_output_store(url: str) -> Iterator[OutputStore]:
    """Yield a results folder at a URL, with an empty local folder that stands for it. Nothing is written yet.

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
            yield store
        except CascadeError as error:
            if isinstance(error.__cause__, OSError) and str(store.folder) in error.problem:
                fix = "let TMPDIR be a folder on a disk with more space, and continue with --resume"
                raise CascadeError(error.problem, fix=fix) from error
            raise CascadeError(store.with_urls(error.problem), fix=error.fix) from error


@contextmanager
def lock_output_store(store: OutputStore, *, overwrite: bool = False, resume: bool = False) -> Iterator[None]:
    """Check the results folder as `check_output_dir` does, and keep other runs from writing to it.

    In the block, the local folder has the journal of the earlier run.

    Raises:
        CascadeError: The check fails, another run is writing to the folder, or the store cannot be used.
    """
    check_output_store(store, overwrite=overwrite, resume=resume)  # before the lock is written
    started = datetime.now(UTC).isoformat(timespec="seconds")
    run = {"host": platform.node(), "pid": os.getpid(), "started": started, "id": secrets.token_hex(8)}
    lock = json.dumps(run).encode()
    try:
        store.create(RUN_LOCK, lock)
    except CascadeError as error:
        # The package of the store repeats a request whose answer was lost. Then the lock is there, and it is ours.
        if not _is_ours(store, lock):
            raise _locked(store, error) from error
    try:
        check_output_store(store, overwrite=overwrite, resume=resume)  # another run may have ended in the meantime
        fetch_journal(store)
        yield
    finally:
        with suppress(CascadeError):  # the next run reports it
            if _is_ours(store, lock):  # else somebody took this run for dead, and another one has begun
                store.remove([RUN_LOCK])


def check_output(out: str, *, overwrite: bool = False, resume: bool = False) -> None:
    """Check that a run may write to a folder or URL, see `check_output_dir`. Nothing is written there.

    Raises:
        CascadeError: It may not, or the URL cannot be used.
    """
    if not is_url(out):
        check_output_dir(Path(out), overwrite=overwrite, resume=resume)
        return
    with open_output_store(out) as store:
        check_output_store(store, overwrite=overwrite, resume=resume)


def read_results(out: str) -> bytes:
    """Return the content of results.json in a folder or at a URL.

    Raises:
        CascadeError: It cannot be read from the URL.
    """
    if not is_url(out):
        return (Path(out) / MARKED).read_bytes()
    with open_output_store(out) as store:
        return store.read(MARKED)


def check_output_store(store: OutputStore, *, overwrite: bool = False, resume: bool = False) -> None:
    """Check that a run may write to the folder, see `check_output_dir`. Nothing is written to the store.

    Raises:
        CascadeError: It may not, or the store cannot be read.
    """
    names = store.names_in()
    for path in output_paths(store.folder):
        if path.name in names:
            path.mkdir(exist_ok=True) if names[path.name] else path.touch()
    if names.get(MARKED) is False:
        (store.folder / MARKED).write_bytes(store.read(MARKED, MARKER_BYTES))
    check_output_dir(store.folder, overwrite=overwrite, resume=resume)


def stand_in(store: OutputStore, names: Iterable[str]) -> None:
    """Create empty files in the local folder for objects, so that report.html can link to them."""
    for name in names:
        path = store.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def upload_tables(store: OutputStore, *, at_end: bool) -> None:
    """Put all tables of the local folder into the store.

    results.json tells the next run that the folder is cascade's, so it is the first object of a run. At the end it is
    the last: whoever finds `complete` in it also finds everything else.

    Args:
        store: Where they go.
        at_end: True at the end of the run, False at its start.

    Raises:
        CascadeError: One cannot be written.
    """
    others = (path for path in store.folder.iterdir() if path.is_file() and path.name not in (JOURNAL, MARKED))
    names = sorted(path.name for path in others)
    for name in [*names, MARKED] if at_end else [MARKED, *names]:
        store.upload(name)


def _is_ours(store: OutputStore, lock: bytes) -> bool:
    return RUN_LOCK in store.names_in() and store.read(RUN_LOCK) == lock


def _locked(store: OutputStore, error: CascadeError) -> CascadeError:
    """Return the error for a lock that could not be created: another run is writing, or the store refuses it."""
    if RUN_LOCK not in store.names_in():
        return error
    try:
        run = json.loads(store.read(RUN_LOCK))
        writer = f"process {run['pid']} on {run['host']} has been writing to this folder since {run['started']}"
    except (CascadeError, ValueError, KeyError, TypeError):  # it has just ended, or is about to write this
        writer = "another run is writing to this folder"
    return CascadeError(
        f"{store.url}: {writer}",
        fix=f"wait until it has ended; if it was killed, remove {store.url}/{RUN_LOCK} and continue with --resume",
    )
