"""Measure one backend at one batch size for one round, in this process."""

import tempfile
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from cascade.contract import FloatArray
from cascade.discovery.inputs import Inputs
from cascade.errors import CascadeError
from cascade.io.checksums import file_stats
from cascade.io.image import ImageSource, read_slice
from cascade.io.preprocess import Letterbox
from cascade.pipeline import Cascade
from cascade.prediction.journal import Entry
from cascade.prediction.recorder import InputState, Recorder
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run import predict_sources
from cascade.runtime.machine import peak_host_mb
from cascade.runtime.protocol import Backend, Future, Outputs

STAGES = ("read", "upload", "segmenter", "classifier", "download", "write")
"""In order of execution. CPU backends have neither upload nor download."""


@dataclass(frozen=True)
class Request:
    """What to measure: a number of batches, after `warm_up` untimed ones, with or without drawing overlays."""

    batch_size: int
    batches: int
    warm_up: int = 1
    overlays: bool = True

    @property
    def slices(self) -> int:
        """Number of timed slices."""
        return self.batch_size * self.batches


@dataclass(frozen=True)
class Measurement:
    """Result of a request. Lists contain one value in milliseconds for each timed batch.

    Attributes:
        stages_ms: Duration of each stage that the backend has. Batches run one at a time, and one thread reads and
            writes files.
        models_ms: Duration of both models, including waiting.
        total_ms: Duration from opening the first file of a batch to writing its last result. It exceeds the sum of the
            stages, since slices are resized to squares and masks back.
        classified: Number of timed slices that the classifier ran on.
        models_slices_per_second: Throughput from arrays to arrays in memory, with two batches in flight.
        end_to_end_slices_per_second: Throughput of `cascade predict`, in which reading, models and writing overlap.
        peak_host_mb: Peak memory of the process in MiB; None if the system does not report it.
    """

    stages_ms: dict[str, list[float]]
    models_ms: list[float]
    total_ms: list[float]
    classified: int
    models_slices_per_second: float
    end_to_end_slices_per_second: float
    peak_host_mb: float | None


def measure(backend: Backend, slices: Inputs, request: Request, scratch: Path) -> Measurement:
    """Measure a backend with slices that repeat if there are too few, on the disk of `scratch`.

    Raises:
        CascadeError: If a slice cannot be read or a result cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        stages_ms, models_ms, total_ms, classified = _time_stages(backend, slices, request, Path(folder, "stages"))
        arrays = [_squares(slices, start, request.batch_size) for start in (0, request.batch_size)]
        _run_models(backend, arrays, request.warm_up)
        seconds = _run_models(backend, arrays, request.batches)
        end_to_end = _run_end_to_end(backend, slices, request, Path(folder, "results"))
    return Measurement(stages_ms, models_ms, total_ms, classified, request.slices / seconds, end_to_end, peak_host_mb())


class TimedBackend:
    """A backend that keeps the outputs and the duration of the last batch."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.description, self.segment, self.classify = backend.description, backend.segment, backend.classify
        self.outputs: Outputs
        self.models_ms = 0.0

    def submit(self, slices: FloatArray) -> Future[Outputs]:
        """Run a batch to its end."""
        start = time.perf_counter()
        self.outputs = self._backend.submit(slices).result()
        self.models_ms = _ms_since(start)
        return Future(lambda: self.outputs)


def _time_stages(
    backend: Backend, slices: Inputs, request: Request, out: Path
) -> tuple[dict[str, list[float]], list[float], list[float], int]:
    """Run batches one at a time. Returns the fields of `Measurement` up to `classified`."""
    timed = TimedBackend(backend)
    cascade = Cascade(timed)
    results = ResultsFolder(out, slices.folder, overlays=request.overlays, models={}, backend=backend.description)
    names = cycle(slices.names)
    stages_ms: dict[str, list[float]] = defaultdict(list)
    models_ms, total_ms, classified = [], [], 0
    for number in range(request.warm_up + request.batches):
        batch = list(islice(names, request.batch_size))
        start = time.perf_counter()
        read = [read_slice(slices.folder / name) for name in batch]
        read_ms = _ms_since(start)
        predictions = cascade.predict_batch(read)
        write_start = time.perf_counter()
        finished: list[Entry] = []
        recorder = Recorder(results, finished.append)
        for name, slice_, prediction in zip(batch, read, predictions, strict=True):
            picture = ImageSource(name, slices.path(name))
            recorder.record(InputState(picture, file_stats(picture.files)), 0, slice_, prediction)
        for row in (row for entry in finished for row in entry.rows):
            if row.status == "error":
                raise CascadeError(row.problem, fix=row.fix)
        write_ms, batch_ms = _ms_since(write_start), _ms_since(start)
        if number < request.warm_up:
            continue
        for stage, ms in {"read": read_ms, **timed.outputs.stages_ms, "write": write_ms}.items():
            stages_ms[stage].append(ms)
        models_ms.append(timed.models_ms)
        total_ms.append(batch_ms)
        classified += int(timed.outputs.class_probability.any(axis=1).sum())  # rows of skipped slices are zero
    return dict(stages_ms), models_ms, total_ms, classified


def _run_models(backend: Backend, arrays: list[FloatArray], batches: int) -> float:
    """Run both models with two batches in flight. Returns the seconds."""
    start = time.perf_counter()
    in_flight: deque[Future[Outputs]] = deque()
    for array in islice(cycle(arrays), batches):
        in_flight.append(backend.submit(array))
        if len(in_flight) == 2:
            in_flight.popleft().result()
    for future in in_flight:
        future.result()
    return time.perf_counter() - start


def _run_end_to_end(backend: Backend, slices: Inputs, request: Request, out: Path) -> float:
    """Run `cascade predict` on the slices, each as often as necessary. Returns slices per second."""
    results = ResultsFolder(out, slices.folder, overlays=request.overlays, models={}, backend=backend.description)
    sources = [
        ImageSource(f"{number:06}{Path(name).suffix}", slices.path(name))
        for number, name in enumerate(islice(cycle(slices.names), request.slices))
    ]
    run = predict_sources(Cascade(backend), sources, results, batch_size=request.batch_size)
    if run.failed:
        raise CascadeError(run.failed[0].problem, fix=run.failed[0].fix)
    return len(run.rows) / run.seconds


def _squares(slices: Inputs, start: int, count: int) -> FloatArray:
    """Read slices from the start-th on into an array (count, 1, SLICE_SIZE, SLICE_SIZE)."""
    read = [read_slice(slices.folder / name).pixels for name in islice(cycle(slices.names), start, start + count)]
    return np.stack([Letterbox(*pixels.shape).square(pixels) for pixels in read])[:, None]


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)
