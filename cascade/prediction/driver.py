"""A run over inputs that are open: executor → journal → tables."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from signal import default_int_handler

from cascade.errors import CascadeError
from cascade.io.slices import Source
from cascade.pipeline import Cascade
from cascade.prediction.batch import InProcess
from cascade.prediction.executor import Executor, Job
from cascade.prediction.failures import failed_source, unopened_input
from cascade.prediction.journal import Entry, Journal, journal_line
from cascade.prediction.ledger import Ledger
from cascade.prediction.results import ResultsFolder
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that stop a run after the current batch, unless the program ignores or handles them itself."""


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run.

    Attributes:
        rows: One row per slice of each finished input, and one per input that could not be opened, in the order of the
            tables. They are read from the journal at each access.
        seconds: Time from the first slice read to the last result written, without loading the models.
        remaining: Number of slices that were not processed; above 0 only after Ctrl-C.
        resumed_rows: How many of the rows an earlier run has produced.
        entries: Returns the finished inputs, in the same order.
        left_out: Absolute path → reason, for files and folders in the inputs that were not used.
        dropped: Inputs that an earlier run has finished and that are no longer there; their results were removed.
        volumes: One row per volume: a finished input of several slices, or a NIfTI file that could not be opened. Read
            from the journal as `rows` are.
    """

    rows: Sequence[SliceResult]
    seconds: float
    remaining: int = 0
    resumed_rows: int = 0
    entries: Callable[[], Iterable[Entry]] = tuple
    left_out: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    volumes: Sequence[VolumeResult] = ()

    @property
    def interrupted(self) -> bool:
        """True if the run ended before all slices were predicted."""
        return self.remaining > 0

    @cached_property
    def statuses(self) -> Counter[str]:
        """Status → number of rows."""
        return Counter(row.status for row in self.rows)

    @cached_property
    def failed(self) -> list[SliceResult]:
        """Results of the slices that could not be read, predicted or written."""
        return [row for row in self.rows if row.status == "error"] if self.statuses["error"] else []

    @property
    def exit_code(self) -> int:
        """0: all succeeded, 1: all failed, 2: some failed, 130: interrupted (128 + SIGINT, as in a shell)."""
        if self.interrupted:
            return 130
        if not self.failed:
            return 0
        return 1 if len(self.failed) == len(self.rows) else 2


def predict_sources(
    executor: Executor | Cascade,
    sources: Sequence[Source],
    folder: ResultsFolder,
    *,
    batch_size: int,
    problems: Mapping[str, CascadeError] | None = None,
    collisions: Mapping[str, CascadeError] | None = None,
    journal: Journal | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
) -> RunResult:
    """Predict all slices of the sources and write their results.

    The tables are written once, however the run ends; until then, the journal is the record of what is finished.

    Args:
        executor: What runs the models. A `Cascade` runs in this process.
        sources: Inputs to process.
        folder: Where the results go.
        batch_size: Number of slices that go through the models at once.
        problems: Name → error, for inputs that could not be opened.
        collisions: Name → error, for those of the sources that are not processed: see `find_collisions`.
        journal: Journal to add finished inputs to. Inputs that it contains keep their rows.
        on_progress: Called with the number of slices that have just been finished.

    Raises:
        CascadeError: The models computed NaN, all workers are lost, or the journal or a table cannot be written.
    """
    if isinstance(executor, Cascade):
        executor = InProcess(executor)
    journal = Journal(folder.out, {}) if journal is None else journal
    problems, collisions = problems or {}, collisions or {}
    ledger = Ledger(folder, journal, [*(source.name for source in sources), *problems])
    resumed_rows = ledger.slices
    expected = resumed_rows + len(problems) + sum(source.count for source in sources)
    start = time.monotonic()
    with _stop_signals() as stop:
        try:
            if resumed_rows:
                on_progress(resumed_rows)
            for name, error in problems.items():
                ledger.add([journal_line(unopened_input(folder, name, error))])
            for source in sources:
                if source.name in collisions:
                    ledger.add([journal_line(failed_source(folder, source, collisions[source.name]))])
            job = Job(folder, batch_size, ledger.begin, ledger.add, on_progress, stop)
            executor.run([source for source in sources if source.name not in collisions], job)
        finally:
            rows, volumes = ledger.rows, ledger.volumes
            folder.save(rows, volumes, complete=len(rows) == expected)
    seconds = time.monotonic() - start
    return RunResult(rows, seconds, expected - len(rows), resumed_rows, rows.entries, volumes=volumes)


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
