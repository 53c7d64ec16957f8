"""Backends are loaded one by one, then take turns: each in its own process, each in every round."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from cascade.benchmarking.report import Settings, device_of
from cascade.benchmarking.timing import Measurement, Request
from cascade.benchmarking.worker import Loaded, Measurer, Unavailable, Worker
from cascade.discovery.inputs import Inputs
from cascade.errors import CascadeError
from cascade.runtime.machine import gpu_memory_in_use_mb

UNDER_WAY = 5
"""Batches that `cascade predict` has in memory at most: so many show the memory it takes."""

SLICES_A_ROUND, BATCHES_A_ROUND = 64, 4
"""Of each backend and batch size, at least: so few, for many short rounds even out what a few long ones do not."""

Turns = dict[str, dict[int, list[Measurement]]]
"""By backend and batch size, a measurement a round."""

Step = Callable[[str, float], object]
"""Called with what comes next, and the share of all turns that is done, 0 to 1."""


@dataclass(frozen=True)
class Started:
    """A backend that runs: loaded, and warmed up once at each batch size.

    peak_host_mb  by batch size.
    """

    worker: Measurer
    loaded: Loaded
    peak_host_mb: dict[int, float]
    device_memory_mb: float | None


def start_backends(
    names: Sequence[str],
    models: Path,
    engines: Path,
    slices: Inputs,
    batch_sizes: Sequence[int],
    warm_up: int,
    scratch: Path,
    stack: ExitStack,
    step: Step = lambda what, done: None,
) -> tuple[dict[str, Started], dict[str, Unavailable]]:
    """Those that run, and why the others do not. The workers end with the `stack`.

    One after the other, and each warmed up before the next is loaded, so that memory is told apart.
    """
    started: dict[str, Started] = {}
    unavailable: dict[str, Unavailable] = {}
    for name in names:
        step(f"loading {name}", 0)
        before_mb = gpu_memory_in_use_mb() if device_of(name) == "gpu" else None
        try:
            worker = Worker(name, models, engines, slices, scratch)
            stack.callback(worker.close)
            batches = max(warm_up, UNDER_WAY)
            peaks = {size: worker.measure(Request(size, batches, 0)).peak_host_mb for size in batch_sizes}
        except CascadeError as error:
            unavailable[name] = Unavailable(error.problem, error.fix)
            continue
        after_mb = gpu_memory_in_use_mb() if device_of(name) == "gpu" else None
        grown_mb = after_mb - before_mb if after_mb is not None and before_mb is not None else None
        started[name] = Started(worker, worker.loaded, peaks, grown_mb)
    if not started:
        reasons = "\n".join(f"{name}: {item.problem}" for name, item in unavailable.items())
        fixes = "; ".join(dict.fromkeys(item.fix for item in unavailable.values()))
        raise CascadeError(f"no backend can run\n{reasons}", fix=fixes)
    return started, unavailable


def take_turns(
    workers: Mapping[str, Measurer],
    settings: Settings,
    before_round: Callable[[], object] = lambda: None,
    step: Step = lambda what, done: None,
) -> Turns:
    """Round after round, size after size, every backend once: A B C A B C, so that none has the machine's best hour."""
    turns: Turns = {name: {size: [] for size in settings.batch_sizes} for name in workers}
    order = list(product(range(1, settings.rounds + 1), settings.batch_sizes, workers))
    for done, (number, size, name) in enumerate(order):
        if done % (len(order) // settings.rounds) == 0:
            before_round()
        step(f"round {number} of {settings.rounds}, batch {size}, {name}", done / len(order))
        turns[name][size].append(workers[name].measure(Request(size, slices_a_round(size) // size, settings.warm_up)))
    return turns


def slices_a_round(batch_size: int) -> int:
    """Whole batches."""
    return batch_size * max(BATCHES_A_ROUND, SLICES_A_ROUND // batch_size)
