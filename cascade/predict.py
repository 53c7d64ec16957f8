"""Many slices through the cascade: files are read and written in threads while the models work."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cascade.backends import Choice, open_backend
from cascade.contract import CLASS_NAMES, Box
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.graphs import CLASSIFIER, SEGMENTER, find_graph
from cascade.inputs import Inputs, find_slices
from cascade.overlay import mask_png, overlay_png
from cascade.pipeline import Cascade, Prediction
from cascade.results import ResultsFolder, SliceResult, claim, written_folders
from cascade.slices import Slice, read_slice

THREADS = max(2, min(8, (os.cpu_count() or 2) // 2))
"""That read, and as many that write: more are no use, for they share Python's lock."""

SECONDS_BETWEEN_SAVES = 30.0
"""What a killed run may lose of results.csv and results.json; Ctrl-C loses nothing."""


@dataclass(frozen=True)
class Run:
    """What came of a run.

    rows         a row for each slice that was reached, and for each input that was none.
    seconds      from the first slice read to the last result written; the models were loaded before.
    interrupted  by Ctrl-C.
    """

    rows: list[SliceResult]
    seconds: float
    interrupted: bool

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


Opened = Callable[[Choice], object]
"""Called once with what runs the models, when they are loaded."""

Begin = Callable[[int], object]
"""Called once with the number of slices."""

Advance = Callable[[SliceResult], object]
"""Called with each slice's row, when its files are written."""


def predict_paths(
    paths: Iterable[Path],
    out: Path,
    *,
    models: Path,
    backend: str,
    engines: Path,
    batch_size: int,
    overlays: bool,
    overwrite: bool,
    opened: Opened = lambda choice: None,
    begin: Begin = lambda count: None,
    advance: Advance = lambda row: None,
) -> Run:
    """`cascade predict`: finds the slices, loads the models, does the slices and writes all results to `out`.

    Raises CascadeError, before anything is written, where there is nothing to do or nothing to do it with.
    """
    inputs = find_slices(paths, written_folders(out))
    graphs = {name: find_graph(name, models) for name in (SEGMENTER, CLASSIFIER)}
    hashes = {name: graph.sha256 for name, graph in graphs.items()}
    choice = open_backend(backend, models, engines)
    opened(choice)
    uncertain_below = graphs[CLASSIFIER].uncertain_below
    folder = ResultsFolder(out, inputs.folder, overlays, hashes, choice.backend.description, uncertain_below)
    claim(folder, overwrite=overwrite)
    begin(len(inputs.names))
    return predict_slices(Cascade(choice.backend), inputs, folder, batch_size=batch_size, advance=advance)


def predict_slices(
    cascade: Cascade, inputs: Inputs, folder: ResultsFolder, *, batch_size: int, advance: Advance = lambda row: None
) -> Run:
    """Five batches are in memory at most: two read ahead, two in the models, one being written.

    A slice that cannot be read or written becomes a row that says why. However the run ends, its rows are saved.
    """
    problems = [SliceResult.failed(name, error) for name, error in inputs.problems.items()]
    rows: dict[str, SliceResult] = {}
    began = saved = time.monotonic()
    complete = False
    writing: list[Future[SliceResult]] = []

    def finish(row: SliceResult) -> None:
        rows[row.name] = row
        advance(row)

    def write(found: list[tuple[str, Slice, Prediction]]) -> None:
        """Hands a batch to the writers when they are through with the one before."""
        nonlocal writing
        for future in writing:
            finish(future.result())
        writing = [writers.submit(write_pictures, folder, *item) for item in found]

    with _ctrl_c() as pressed, ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as writers:
        try:
            under_way: Callable[[], list[tuple[str, Slice, Prediction]]] = list
            for batch in _read_ahead(readers, inputs, batch_size):
                if pressed.is_set():
                    break
                for name, found in batch:
                    if isinstance(found, CascadeError):
                        finish(SliceResult.failed(name, found))
                begun = _begin(cascade, [(name, found) for name, found in batch if isinstance(found, Slice)])
                write(under_way())
                under_way = begun
                if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                    folder.save([*problems, *rows.values()], complete=False)
                    saved = time.monotonic()
            if not pressed.is_set():
                write(under_way())
            write([])
            complete = len(rows) == len(inputs.names)
        finally:
            readers.shutdown(cancel_futures=True)
            writers.shutdown()
            for future in writing:
                if future.exception() is None:  # else it is on its way up already
                    rows[future.result().name] = future.result()
            folder.save([*problems, *rows.values()], complete=complete)
    return Run([*problems, *rows.values()], time.monotonic() - began, interrupted=not complete)


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, so that it parts no file from its row; the second interrupts as ever."""
    pressed = threading.Event()

    def note(number: int, frame: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _read_ahead(
    pool: ThreadPoolExecutor, inputs: Inputs, batch_size: int
) -> Iterator[list[tuple[str, Slice | CascadeError]]]:
    """Batch after batch, in order; the pool has the next two while one is worked on."""
    waiting: deque[list[tuple[str, Future[Slice | CascadeError]]]] = deque()
    for start in range(0, len(inputs.names), batch_size):
        names = inputs.names[start : start + batch_size]
        waiting.append([(name, pool.submit(_read, inputs.folder / name)) for name in names])
        if len(waiting) > 2:
            yield [(name, future.result()) for name, future in waiting.popleft()]
    while waiting:
        yield [(name, future.result()) for name, future in waiting.popleft()]


def _read(path: Path) -> Slice | CascadeError:
    try:
        return read_slice(path)
    except CascadeError as error:
        return error


def _begin(cascade: Cascade, batch: list[tuple[str, Slice]]) -> Callable[[], list[tuple[str, Slice, Prediction]]]:
    """Starts the models; what is returned waits for them and adds to each slice what was found."""
    wait = cascade.begin([slice_ for _, slice_ in batch])
    return lambda: [(name, slice_, found) for (name, slice_), found in zip(batch, wait(), strict=True)]


def write_pictures(folder: ResultsFolder, name: str, slice_: Slice, found: Prediction) -> SliceResult:
    """Writes the pictures, then returns the row that says they are there."""
    try:
        write_atomically(folder.mask(name), mask_png(found.mask), durable=False)
        if folder.overlays:
            write_atomically(folder.overlay(name), overlay_png(slice_, found), durable=False)
    except CascadeError as error:
        return SliceResult.failed(name, error)
    area = int(found.mask.sum())
    return SliceResult(
        name,
        "tumor" if found.label else "no_tumor",
        probabilities=tuple(round(found.probabilities[label], 6) for label in CLASS_NAMES) if found.label else None,
        box=Box(*(round(edge, 2) for edge in found.box)) if found.box else None,
        mask_pixels=area,
        mask_mm2=round(area * slice_.spacing_mm[0] * slice_.spacing_mm[1], 2) if slice_.spacing_mm else None,
        latency_ms=round(found.latency_ms, 2),
    )
