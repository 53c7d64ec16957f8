"""Many slices through the cascade: files are read and written in threads while the models work."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice, starmap
from signal import default_int_handler

from cascade.errors import CascadeError
from cascade.io.checksums import file_stats
from cascade.io.slices import Slice, Source
from cascade.pipeline import Cascade, Prediction
from cascade.prediction.journal import Entry, Journal
from cascade.prediction.recorder import Advance, Recorder, Work
from cascade.prediction.results import ResultsFolder, SliceResult

THREADS = max(2, min(8, (os.cpu_count() or 2) // 2))
"""That read, and as many that write: more are no use, for they share Python's lock."""

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""That end a run in order, where the program lets them interrupt."""

SECONDS_BETWEEN_SAVES = 30.0
"""How old results.csv and results.json may be while a run goes on; its journal is never behind."""


@dataclass(frozen=True)
class Run:
    """What came of a run.

    rows         a row for each slice of each input that is done, and for each input that was none.
    seconds      from the first slice read to the last result written; the models were loaded before.
    left         how many slices are left to do: none, unless Ctrl-C ended it.
    resumed      how many of the rows an earlier run had done.
    sha256       of the content of each input that is done, by name.
    left_out     by absolute path, why what lies in the folders that were given was not taken.
    """

    rows: list[SliceResult]
    seconds: float
    left: int = 0
    resumed: int = 0
    sha256: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        return self.left > 0

    @property
    def failed(self) -> list[SliceResult]:
        return [row for row in self.rows if row.status == "error"]

    @property
    def exit_code(self) -> int:
        """0 all done, 1 nothing could be done, 2 some failed, 130 interrupted, as shells count signals."""
        if self.interrupted:
            return 130
        if not self.failed:
            return 0
        return 1 if len(self.failed) == len(self.rows) else 2


Read = tuple[Work, int, Slice]
"""A slice, the input it is from, and its index there."""

Found = tuple[Work, int, Slice, Prediction]


def predict_slices(
    cascade: Cascade,
    sources: Sequence[Source],
    folder: ResultsFolder,
    *,
    batch_size: int,
    problems: Mapping[str, CascadeError] | None = None,
    journal: Journal | None = None,
    done: Sequence[Entry] = (),
    advance: Advance = lambda count: None,
) -> Run:
    """Five batches of slices are in memory at most: two read ahead, two in the models, one being written.

    A slice that cannot be read or written becomes a row that says why. However the run ends, the rows of the inputs
    that are done are saved.

    problems  by name, what was given but cannot be done; they become rows.
    done      what an earlier run did of other inputs; its rows are taken over.
    """
    recorder = Recorder(folder, journal, advance)
    recorder.rows += [recorder.refused(name, error) for name, error in (problems or {}).items()]
    for entry in done:
        recorder.take_over(entry)
    stamped = [(source, file_stats(source.files)) for source in sources]
    expected = len(recorder.rows) + sum(source.count for source in sources)
    began = time.monotonic()
    writing: list[Future[None]] = []

    def write(batch: list[Found]) -> None:
        """Hands a batch to the writers when they are through with the one before."""
        nonlocal writing
        for future in writing:
            future.result()
        writing = [writers.submit(recorder.found, *found) for found in batch]

    with _ctrl_c() as pressed, ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as writers:
        try:
            under_way: Callable[[], list[Found]] = list
            for batch in _read_ahead(readers, starmap(Work, stamped), batch_size):
                if pressed.is_set():
                    break
                begun = _begin(cascade, [(work, index, item) for work, index, item in batch if isinstance(item, Slice)])
                write(under_way())
                under_way = begun
                for work, index, why in _refused(batch):
                    recorder.not_found(work, index, why)
                if recorder.seconds_since_saved() > SECONDS_BETWEEN_SAVES:
                    with suppress(CascadeError):  # another program may have a table open; the last save must succeed
                        recorder.save(complete=False)
            if not pressed.is_set():
                write(under_way())
            write([])
        finally:
            readers.shutdown(cancel_futures=True)
            writers.shutdown()
            left = expected - len(recorder.rows)
            recorder.save(complete=left == 0)
    return Run(recorder.rows, time.monotonic() - began, left, recorder.resumed, recorder.sha256)


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, so that it parts no file from its row; the second interrupts as ever.

    And so for each signal that interrupts like Ctrl-C. In a thread, where none arrives, it is never set.
    """
    pressed = threading.Event()
    listening = threading.current_thread() is threading.main_thread()
    interrupting = [number for number in SIGNALS if listening and signal.getsignal(number) is default_int_handler]

    def note(number: int, frame: object) -> None:
        pressed.set()
        restore()

    def restore() -> None:
        for number in interrupting:
            signal.signal(number, default_int_handler)

    for number in interrupting:
        signal.signal(number, note)
    try:
        yield pressed
    finally:
        restore()


def _read_ahead(
    pool: ThreadPoolExecutor, works: Iterable[Work], batch_size: int
) -> Iterator[list[tuple[Work, int, Slice | CascadeError]]]:
    """Batch after batch, in order; the pool has the next two while one is worked on."""
    waiting: deque[list[tuple[Work, int, Future[Slice | CascadeError]]]] = deque()
    slices = ((work, index) for work in works for index in range(work.source.count))
    while batch := list(islice(slices, batch_size)):
        waiting.append([(work, index, pool.submit(_read, work.source, index)) for work, index in batch])
        if len(waiting) > 2:
            yield [(work, index, future.result()) for work, index, future in waiting.popleft()]
    while waiting:
        yield [(work, index, future.result()) for work, index, future in waiting.popleft()]


def _read(source: Source, index: int) -> Slice | CascadeError:
    try:
        return source.read(index)
    except CascadeError as error:
        return error


def _refused(batch: list[tuple[Work, int, Slice | CascadeError]]) -> list[tuple[Work, int, CascadeError]]:
    return [(work, index, item) for work, index, item in batch if isinstance(item, CascadeError)]


def _begin(cascade: Cascade, batch: list[Read]) -> Callable[[], list[Found]]:
    """Starts the models; what is returned waits for them and adds to each slice what was found."""
    wait = cascade.begin([slice_ for _, _, slice_ in batch])
    return lambda: [(*read, found) for read, found in zip(batch, wait(), strict=True)]
