"""Sources through the cascade in batches: threads read and write files while the models compute."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from cascade.errors import CascadeError
from cascade.io.checksums import FileStats, file_stats
from cascade.io.slices import Slice
from cascade.io.source import HeaderSource, Source
from cascade.pipeline import Cascade
from cascade.prediction.executor import Job
from cascade.prediction.journal import journal_line
from cascade.prediction.output_store import THREADS
from cascade.prediction.recorder import InputState, Recorder
from cascade.prediction.results import ResultsFolder
from cascade.result import Prediction
from cascade.runtime.machine import usable_threads
from cascade.runtime.protocol import Future

ReadItem = tuple[InputState, int, Slice | CascadeError]
"""An input, the index of a slice in it, and the slice or the reason why it cannot be read."""

Batch = list[tuple[InputState, int, Slice]]


def io_threads(threads: int | None = None) -> int:
    """Return how many threads read, and how many write. More than 8 do not help, since they share Python's lock.

    Args:
        threads: Number of threads that the models use; None for all that this process may use.
    """
    return max(2, min(8, (threads or usable_threads()) // 2))


class InProcess:
    """The executor that runs the models in this process."""

    is_remote = False

    def __init__(self, cascade: Cascade, threads: int | None = None) -> None:
        """Take over loaded models.

        Args:
            cascade: Loaded models.
            threads: Number of threads that the models use; None for all that this process may use.
        """
        self.models = cascade.models
        self.uncertain_below = cascade.uncertain_below
        self.volume_rule = cascade.volume_rule
        self.skipped_backends = cascade.skipped_backends
        self._cascade, self._threads = cascade, io_threads(threads)

    @property
    def description(self) -> str:
        """See `Executor.description`."""
        return self._cascade.description

    def check_access(self, paths: Sequence[Path | str]) -> None:
        """Do nothing: this process has found the paths."""

    def run(self, sources: Sequence[Source], job: Job) -> None:
        """Predict batch by batch, see `Executor.run`.

        At most five batches are in memory: two being read, two in the models, one being written.
        """
        recorder = Recorder(job.folder, lambda entry: job.on_finished([journal_line(entry)]), job.on_progress)
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

        states = [InputState(source, _stats_before(source, job.folder)) for source in sources]
        write_threads = THREADS if job.folder.output_store else self._threads  # those of a store wait most of the time
        with ThreadPoolExecutor(self._threads) as readers, ThreadPoolExecutor(write_threads) as writers:
            try:
                submitted: tuple[Batch, Future[list[Prediction]]] | None = None
                for items in _read_ahead(readers, states, job):
                    if job.stop.is_set():
                        break
                    batch = [(state, index, item) for state, index, item in items if isinstance(item, Slice)]
                    slices = [slice_ for _, _, slice_ in batch]
                    future = self._cascade.submit(slices, probability_map=job.folder.probabilities)
                    if submitted:
                        write(*submitted)
                    submitted = batch, future
                    for state, index, item in items:
                        if isinstance(item, CascadeError):
                            recorder.record_failure(state, index, item)
                if submitted and not job.stop.is_set():
                    write(*submitted)
                for earlier in writes:
                    earlier.result()
            finally:
                readers.shutdown(cancel_futures=True)
                writers.shutdown()


def _stats_before(source: Source, folder: ResultsFolder) -> FileStats:
    """Return the `InputState.file_stats` of a source, of which at most the header has been read."""
    if isinstance(source, HeaderSource) and source.file_stats and folder.store is None:
        return source.file_stats
    return file_stats(source.files)  # a worker may have fetched them from the store just now


def _read_ahead(pool: ThreadPoolExecutor, states: Iterable[InputState], job: Job) -> Iterator[list[ReadItem]]:
    """Yield batches in order, while the pool reads the next two."""
    queue: deque[list[tuple[InputState, int, futures.Future[Slice | CascadeError]]]] = deque()
    slices = ((state, index) for state in states for index in range(state.source.count))
    while batch := list(islice(slices, job.batch_size)):
        job.on_begin([state.source for state, index in batch if index == 0])
        queue.append([(state, index, pool.submit(state.read, index)) for state, index in batch])
        if len(queue) > 2:
            yield [(state, index, future.result()) for state, index, future in queue.popleft()]
    while queue:
        yield [(state, index, future.result()) for state, index, future in queue.popleft()]
