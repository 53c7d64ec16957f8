"""Load the backends one after the other, then measure them and their peaks round-robin, each in its own process."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

from cascade.benchmarking.cublas import measure_gpu
from cascade.benchmarking.report import Settings, device_of
from cascade.benchmarking.roofline import CHANNELS, Roofline, measure_copy, write_convolutions
from cascade.benchmarking.timing import Measurement, Request
from cascade.benchmarking.worker import Worker
from cascade.errors import CascadeError

BATCHES_IN_FLIGHT = 5
"""Maximum number of batches that `cascade predict` keeps in memory. As many batches reveal its peak memory."""

MIN_SLICES_PER_ROUND, MIN_BATCHES_PER_ROUND = 64, 4
"""For each backend and batch size. Many short rounds even out disturbances better than a few long ones."""

Measurements = dict[str, dict[int, list[Measurement]]]
"""One measurement for each round, by backend and batch size."""

Measure = Callable[[Request], Measurement]
"""Measures one backend."""

ProgressCallback = Callable[[str, float], object]
"""Called with the next step, and the completed fraction of all rounds, 0 to 1."""


def start_backends(
    names: Sequence[str],
    start_worker: Callable[[str], Worker],
    batch_sizes: Sequence[int],
    warm_up: int,
    on_progress: ProgressCallback = lambda step, fraction: None,
) -> tuple[dict[str, Worker], dict[str, CascadeError]]:
    """Start backends one after the other, each warmed up before the next is loaded, to tell their memory apart.

    The caller closes the workers that `start_worker` starts. Each runs at least `warm_up` batches of each size.

    Returns:
        The backends that run, and why the others do not.

    Raises:
        CascadeError: If none runs.
    """
    ready: dict[str, Worker] = {}
    unavailable: dict[str, CascadeError] = {}
    for name in names:
        on_progress(f"loading {name}", 0)
        try:
            worker = start_worker(name)
            worker.warm_up(batch_sizes, max(warm_up, BATCHES_IN_FLIGHT))
            ready[name] = worker
        except CascadeError as error:
            unavailable[name] = error
    if not ready:
        reasons = "\n".join(f"{name}: {item.problem}" for name, item in unavailable.items())
        fixes = "; ".join(dict.fromkeys(item.fix for item in unavailable.values()))
        raise CascadeError(f"no backend can run\n{reasons}", fix=fixes)
    return ready, unavailable


class Peaks:
    """Rooflines of backends. Those on a GPU are measured at once, those on the CPU with each call of `measure`.

    Attributes:
        not_measured: What could not be measured, and why.
    """

    def __init__(self, workers: Mapping[str, Worker], scratch: Path, device: int | None = None) -> None:
        self.not_measured: dict[str, CascadeError] = {}
        self._on_cpu = {name: worker for name, worker in workers.items() if device_of(name) == "cpu"}
        self._gflops: dict[str, list[float]] = {name: [] for name in self._on_cpu}
        self._gb_per_second: list[float] = []
        self._on_gpu: dict[str, Roofline] = {}
        self._models = scratch / "convolutions"
        try:
            if on_gpu := workers.keys() - self._on_cpu.keys():
                self._on_gpu = dict.fromkeys(sorted(on_gpu), measure_gpu(device))
        except CascadeError as error:
            self.not_measured["gpu roofline"] = error
        try:
            write_convolutions(self._models)
        except CascadeError as error:
            self.not_measured["cpu roofline"] = error
            self._on_cpu = {}

    def measure(self) -> None:
        """Measure each backend on the CPU in its own process, then a copy in memory."""
        for name, worker in self._on_cpu.items():
            self._gflops[name].append(worker.measure_peak(self._models))
        if self._on_cpu:
            self._gb_per_second.append(measure_copy())

    def best(self) -> dict[str, Roofline]:
        """Return the best of all measurements by backend."""
        on_cpu = {}
        for name, worker in self._on_cpu.items():
            runtime, _, precision = worker.loaded.description.rpartition(", ")
            what = f"{precision} convolutions of {CHANNELS} channels, {runtime}"
            on_cpu[name] = Roofline(what, max(self._gflops[name]), self._gflops[name], max(self._gb_per_second))
        return self._on_gpu | on_cpu


def run_rounds(
    measures: Mapping[str, Measure],
    settings: Settings,
    before_round: Callable[[], object] = lambda: None,
    on_progress: ProgressCallback = lambda step, fraction: None,
) -> Measurements:
    """Measure every backend once in each round and at each batch size: A B C A B C.

    Changes in the machine's speed then affect all backends alike.
    """
    measurements: Measurements = {name: {size: [] for size in settings.batch_sizes} for name in measures}
    order = list(product(range(1, settings.rounds + 1), settings.batch_sizes, measures))
    for done, (number, size, name) in enumerate(order):
        if done % (len(order) // settings.rounds) == 0:
            before_round()
        on_progress(f"round {number} of {settings.rounds}, batch {size}, {name}", done / len(order))
        request = Request(size, slices_per_round(size) // size, settings.warm_up)
        measurements[name][size].append(measures[name](request))
    return measurements


def slices_per_round(batch_size: int) -> int:
    """Number of slices that a backend processes in a round, a multiple of the batch size."""
    return batch_size * max(MIN_BATCHES_PER_ROUND, MIN_SLICES_PER_ROUND // batch_size)
