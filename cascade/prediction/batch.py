"""Sources through the cascade in batches: threads read and write files while the models compute."""

import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, starmap
from signal import default_int_handler

from cascade.discovery.filters import format_of_name
from cascade.errors import CascadeError
from cascade.io.checksums import file_stats
from cascade.io.slices import Slice, Source
from cascade.pipeline import Cascade, Prediction
from cascade.prediction.journal import Entry, Journal
from cascade.prediction.recorder import InputState, ProgressCallback, Recorder
from cascade.prediction.results import ResultsFolder, SliceResult
from cascade.prediction.volumes import VolumeResult
from cascade.runtime.machine import usable_threads
from cascade.runtime.protocol import Future

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that stop a run after the current batch, unless the program ignores or handles them itself."""

SECONDS_BETWEEN_SYNCS = 30.0
"""A power failure loses at most this much of the journal."""


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run.

    Attributes:
        rows: One row per slice of each finished input, and one per input that could not be opened.
        seconds: Time from the first slice read to the last result written, without loading the models.
        remaining: Number of slices that were not processed; above 0 only after Ctrl-C.
        resumed_rows: How many of the rows an earlier run has produced.
        sha256: Name of a finished input → checksum of its files.
        left_out: Absolute path → reason, for files and folders in the inputs that were not used.
        dropped: Inputs that an earlier run has finished and that are no longer there; their results were removed.
        volumes: One row per volume: a finished input of several slices.
    """

    rows: list[SliceResult]
    seconds: float
    remaining: int = 0
    resumed_rows: int = 0
    sha256: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    volumes: list[VolumeResult] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        """True if the run ended before all slices were predicted."""
        return self.remaining > 0

    @property
    def failed(self) -> list[SliceResult]:
        """Results of the slices that could not be read, predicted or written."""
        return [row for row in self.rows if row.status == "error"]

    @property
    def exit_code(self) -> int:
        """0: all succeeded, 1: all failed, 2: some failed, 130: interrupted (128 + SIGINT, as in a shell)."""
        if self.interrupted:
            return 130
        if not self.failed:
            return 0
        return 1 if len(self.failed) == len(self.rows) else 2


ReadItem = tuple[InputState, int, Slice | CascadeError]
"""An input, the index of a slice in it, and the slice or the reason why it cannot be read."""

Batch = list[tuple[InputState, int, Slice]]


def io_threads() -> int:
    """Return how many threads read, and how many write. More than 8 do not help, since they share Python's lock."""
    return max(2, min(8, usable_threads() // 2))


def predict_sources(
    cascade: Cascade,
    sources: Sequence[Source],
    folder: ResultsFolder,
    *,
    batch_size: int,
    problems: Mapping[str, CascadeError] | None = None,
    journal: Journal | None = None,
    entries: Sequence[Entry] = (),
    on_progress: ProgressCallback = lambda count: None,
) -> RunResult:
    """Predict all slices of the sources and write their results.

    At most five batches are in memory: two being read, two in the models, one being written. A slice that cannot be
    read or written becomes a row with status "error". The tables are written once, however the run ends; until then,
    the journal is the record of what is finished.

    Args:
        cascade: Loaded models.
        sources: Inputs to process.
        folder: Where the results go.
        batch_size: Number of slices that go through the models at once.
        problems: Name → error, for inputs that could not be opened.
        journal: Journal to add finished inputs to.
        entries: Finished inputs of an earlier run, whose rows are kept.
        on_progress: Called with the number of slices that have just been finished.

    Raises:
        CascadeError: The models computed NaN, or the journal or a table cannot be written.
    """
    recorder = Recorder(folder, journal, on_progress)
    recorder.rows += [recorder.error_row(name, error) for name, error in (problems or {}).items()]
    recorder.volumes += [
        VolumeResult(row.name, "error", 0, problem=row.problem, fix=row.fix)
        for row in recorder.rows
        if format_of_name(row.name) == "nifti"
    ]
    for entry in entries:
        recorder.restore(entry)
    states = starmap(InputState, [(source, file_stats(source.files)) for source in sources])
    expected = len(recorder.rows) + sum(source.count for source in sources)
    start = synced = time.monotonic()
    writes: list[futures.Future[None]] = []

    def write(batch: Batch, future: Future[list[Prediction]]) -> None:
        """Wait for the models and for the batch before, then hand this batch to the writers."""
        nonlocal writes
        predictions = future.result()
        for earlier in writes:
            earlier.result()
        writes = [
            writers.submit(recorder.record, *item, prediction)
            for item, prediction in zip(batch, predictions, strict=True)
        ]

    threads = io_threads()
    with _stop_signals() as stop, ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
        try:
            submitted: tuple[Batch, Future[list[Prediction]]] | None = None
            for items in _read_ahead(readers, states, batch_size):
                if stop.is_set():
                    break
                batch = [(state, index, item) for state, index, item in items if isinstance(item, Slice)]
                future = cascade.submit([slice_ for _, _, slice_ in batch])
                if submitted:
                    write(*submitted)
                submitted = batch, future
                for state, index, item in items:
                    if isinstance(item, CascadeError):
                        recorder.record_failure(state, index, item)
                if journal and time.monotonic() - synced > SECONDS_BETWEEN_SYNCS:
                    journal.sync()
                    synced = time.monotonic()
            if submitted and not stop.is_set():
                write(*submitted)
            for earlier in writes:
                earlier.result()
        finally:
            readers.shutdown(cancel_futures=True)
            writers.shutdown()
            remaining = expected - len(recorder.rows)
            recorder.save(complete=remaining == 0)
    seconds = time.monotonic() - start
    return RunResult(
        recorder.rows,
        seconds,
        remaining,
        recorder.resumed_rows,
        recorder.sha256,
        volumes=recorder.volumes,
    )


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets, so that the current batch is finished; a second one interrupts.

    The same holds for SIGTERM and SIGHUP. Outside the main thread, which receives all signals, it is never set.
    """
    stop = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in SIGNALS if is_main and signal.getsignal(number) is default_int_handler]

    def handle(number: int, frame: object) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number in numbers:
            signal.signal(number, default_int_handler)

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()


def _read_ahead(pool: ThreadPoolExecutor, states: Iterable[InputState], batch_size: int) -> Iterator[list[ReadItem]]:
    """Yield batches in order, while the pool reads the next two."""
    queue: deque[list[tuple[InputState, int, futures.Future[Slice | CascadeError]]]] = deque()
    slices = ((state, index) for state in states for index in range(state.source.count))
    while batch := list(islice(slices, batch_size)):
        queue.append([(state, index, pool.submit(_read, state.source, index)) for state, index in batch])
        if len(queue) > 2:
            yield [(state, index, future.result()) for state, index, future in queue.popleft()]
    while queue:
        yield [(state, index, future.result()) for state, index, future in queue.popleft()]


def _read(source: Source, index: int) -> Slice | CascadeError:
    try:
        return source.read(index)
    except CascadeError as error:
        return error
