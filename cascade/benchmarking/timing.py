"""One backend, one batch size, one round: what it takes, in this process."""

import resource
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from cascade.contract import FloatArray
from cascade.discovery.inputs import Inputs
from cascade.errors import CascadeError
from cascade.io.checksums import stamps
from cascade.io.image import Picture, read_slice
from cascade.io.preprocess import Letterbox
from cascade.pipeline import Cascade
from cascade.prediction.batch import predict_sources
from cascade.prediction.recorder import InputState, Recorder
from cascade.prediction.results import ResultsFolder
from cascade.runtime.protocol import Backend, Outputs, Pending

STAGES = ("read", "upload", "segmenter", "classifier", "download", "write")
"""In order. A backend on the CPU has neither upload nor download."""


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    batches   timed, of `batch_size` slices each.
    warm_up   batches that go before, untimed.
    overlays  whether the pictures are drawn too that `cascade predict` draws by default.
    """

    batch_size: int
    batches: int
    warm_up: int = 1
    overlays: bool = True

    @property
    def slices(self) -> int:
        """That the longest part, end to end, goes through."""
        return self.batch_size * self.batches


@dataclass(frozen=True)
class Measurement:
    """What came of a request. Lists hold a value for each of its batches, in milliseconds.

    stages_ms   by stage, of those the backend has: batches one at a time, files read and written by one thread.
    models_ms   from the models' call to their answer, waiting included.
    total_ms    from the first file of a batch opened to its last written. More than the stages together: slices are
                brought to their square, and masks back.
    classified  slices of all timed batches that went through the classifier too.
    models_slices_per_second      arrays in memory → arrays in memory, the next batch begun before the last is awaited.
    end_to_end_slices_per_second  files → results below --out, reading, models and writing overlapping as in
                                  `cascade predict`.
    peak_host_mb                  most memory that the process ever had, in MiB.
    """

    stages_ms: dict[str, list[float]]
    models_ms: list[float]
    total_ms: list[float]
    classified: int
    models_slices_per_second: float
    end_to_end_slices_per_second: float
    peak_host_mb: float


def measure(backend: Backend, slices: Inputs, request: Request, scratch: Path) -> Measurement:
    """`slices` are at least one; where the request needs more, they come round again.

    scratch  folder for links and results, which are removed again.

    Raises CascadeError where a slice cannot be read or a result not be written.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        timed = _stage_by_stage(backend, slices, request, Path(temporary, "stages"))
        arrays = [_squares(slices, start, request.batch_size) for start in (0, request.batch_size)]
        _run_models(backend, arrays, request.warm_up)
        seconds = _run_models(backend, arrays, request.batches)
        end_to_end = _end_to_end(backend, slices, request, Path(temporary))
    stages_ms: dict[str, list[float]] = defaultdict(list)
    for batch in timed:
        for stage, value in batch.stages_ms.items():
            stages_ms[stage].append(value)
    return Measurement(
        dict(stages_ms),
        [batch.models_ms for batch in timed],
        [batch.total_ms for batch in timed],
        sum(batch.classified for batch in timed),
        request.slices / seconds,
        end_to_end,
        peak_host_mb(),
    )


@dataclass
class TimedBatch:
    stages_ms: dict[str, float]
    models_ms: float = 0.0
    total_ms: float = 0.0
    classified: int = 0


class TimedBackend:
    """Passes batches on, and notes of the last one what the pipeline would not tell."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.description = backend.description
        self.segment, self.classify = backend.segment, backend.classify
        self.last = TimedBatch({})

    def begin(self, slices: FloatArray) -> Pending:
        began = time.perf_counter()
        wait = self._backend.begin(slices)

        def outputs() -> Outputs:
            found = wait()
            classified = int(found.class_probability.any(axis=1).sum())  # rows of zeros were not asked about
            self.last = TimedBatch(dict(found.stages_ms), _ms_since(began), classified=classified)
            return found

        return outputs


def _stage_by_stage(backend: Backend, slices: Inputs, request: Request, out: Path) -> list[TimedBatch]:
    timed = TimedBackend(backend)
    cascade = Cascade(timed)
    results = ResultsFolder(out, slices.folder, request.overlays, {}, backend.description)
    names = cycle(slices.names)
    batches = []
    for _ in range(request.warm_up + request.batches):
        batch = list(islice(names, request.batch_size))
        began = time.perf_counter()
        read = [read_slice(slices.folder / name) for name in batch]
        read_ms = _ms_since(began)
        predictions = cascade.predict_batch(read)
        writing = time.perf_counter()
        recorder = Recorder(results)
        for name, slice_, found in zip(batch, read, predictions, strict=True):
            picture = Picture(name, slices.path(name))
            recorder.record(InputState(picture, stamps(picture.files)), 0, slice_, found)
        for row in recorder.rows:
            if row.status == "error":
                raise CascadeError(row.problem, fix=row.fix)
        timed.last.stages_ms |= {"read": read_ms, "write": _ms_since(writing)}
        timed.last.total_ms = _ms_since(began)
        batches.append(timed.last)
    return batches[request.warm_up :]


def _run_models(backend: Backend, arrays: list[FloatArray], batches: int) -> float:
    """Seconds, two batches under way where the backend can."""
    began = time.perf_counter()
    under_way: Pending | None = None
    for array in islice(cycle(arrays), batches):
        begun = backend.begin(array)
        if under_way:
            under_way()
        under_way = begun
    if under_way:
        under_way()
    return time.perf_counter() - began


def _end_to_end(backend: Backend, slices: Inputs, request: Request, folder: Path) -> float:
    """Slices a second of a run of `cascade predict`, of which each slice is a link to one of those given."""
    links = folder / "slices"
    links.mkdir()
    names = []
    for number, name in enumerate(islice(cycle(slices.names), request.slices)):
        names.append(f"{number:06}{Path(name).suffix}")
        (links / names[-1]).symlink_to(slices.folder / name)
    results = ResultsFolder(folder / "results", links, request.overlays, {}, backend.description)
    sources = [Picture(name, links / name) for name in names]
    run = predict_sources(Cascade(backend), sources, results, batch_size=request.batch_size)
    if run.failed:
        raise CascadeError(run.failed[0].problem, fix=run.failed[0].fix)
    return len(run.rows) / run.seconds


def _squares(slices: Inputs, start: int, count: int) -> FloatArray:
    """(count, 1, SLICE_SIZE, SLICE_SIZE), from the start-th slice on."""
    read = [read_slice(slices.folder / name).pixels for name in islice(cycle(slices.names), start, start + count)]
    return np.stack([Letterbox(*pixels.shape).square(pixels) for pixels in read])[:, None]


def _ms_since(began: float) -> float:
    return 1000 * (time.perf_counter() - began)


def peak_host_mb() -> float:
    """Most memory that this process ever had, in MiB.

    Linux's VmHWM is of this program alone. getrusage, asked elsewhere, may count what a parent process had when it
    started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
