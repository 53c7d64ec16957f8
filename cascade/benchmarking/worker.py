"""Run a backend in a process of its own, so that its start-up and peak memory are not affected by other backends."""

import multiprocessing
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cascade.benchmarking.roofline import measure_convolutions
from cascade.benchmarking.timing import Measurement, Request, measure
from cascade.discovery.inputs import Inputs
from cascade.errors import CascadeError
from cascade.io.image import read_slice
from cascade.pipeline import Cascade
from cascade.runtime.engines import FLAVORS
from cascade.runtime.machine import gpu_memory_in_use_mb
from cascade.runtime.protocol import Backend
from cascade.runtime.select import open_backend

SHUTDOWN_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class LoadedBackend:
    """Start-up times of a backend in milliseconds.

    Attributes:
        description: The backend's description.
        start_ms: From the start of the process until both graphs are loaded: Python, packages, runtime, graphs.
        load_ms: The part of it that loads the runtime and the graphs.
        first_slice_ms: The first slice through both models. Some runtimes compile during it.
    """

    description: str
    start_ms: float
    load_ms: float
    first_slice_ms: float


class Worker:
    """The process of one backend. It is idle while other backends are measured.

    Args:
        name: One of BACKENDS.
        models: Folder of the models.
        engines: Folder of the engines; None for the default.
        slices: Slices to run. They repeat if there are too few.
        scratch: Folder for temporary results.
        device: Number of the GPU; None for the first. Backends on the CPU ignore it.

    Attributes:
        loaded: Start-up times.
        peak_host_mb: Peak memory of the process after the warm-up with each batch size, in MiB; None if unknown.
        device_memory_mb: Growth in MiB of the GPU memory in use by all processes, from before the start to after the
            warm-up; None on the CPU.

    Raises:
        CascadeError: If the backend cannot run, or its process died. So do the methods.
    """

    def __init__(
        self, name: str, models: Path, engines: Path | None, slices: Inputs, scratch: Path, device: int | None = None
    ) -> None:
        self.name = name
        self.peak_host_mb: dict[int, float | None] = {}
        self.device_memory_mb: float | None = None
        self._before_mb = gpu_memory_in_use_mb() if name in FLAVORS else None
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        device = device if name in FLAVORS else None
        arguments = (child_connection, name, models, engines, device, slices, scratch, time.monotonic())
        self._process = context.Process(target=serve, args=arguments, daemon=True, name=f"benchmark {name}")
        self._process.start()
        child_connection.close()
        try:
            self.loaded: LoadedBackend = self._receive()
        except BaseException:
            self.close()
            raise

    def warm_up(self, batch_sizes: Sequence[int], batches: int) -> None:
        """Run batches of each size, ascending, and note the peak memory."""
        for size in batch_sizes:
            self.peak_host_mb[size] = self.measure(Request(size, batches, 0)).peak_host_mb
        if self._before_mb is not None and (now_mb := gpu_memory_in_use_mb()) is not None:
            self.device_memory_mb = now_mb - self._before_mb

    def measure(self, request: Request) -> Measurement:
        """Measure the backend."""
        measurement: Measurement = self._receive(request)
        return measurement

    def measure_peak(self, convolutions: Path) -> float:
        """Measure the peak of its runtime in GFLOP/s, with the graphs of `write_convolutions`."""
        return float(self._receive(convolutions))

    def close(self) -> None:
        """End the process; kill it if it is still measuring after SHUTDOWN_TIMEOUT_S."""
        self._connection.close()
        self._process.join(timeout=SHUTDOWN_TIMEOUT_S)
        if self._process.is_alive():  # interrupted during a measurement
            self._process.kill()
            self._process.join()

    def _receive(self, request: Request | Path | None = None) -> Any:
        """Send a request, if there is one, and wait for the reply."""
        try:
            if request:
                self._connection.send(request)
            reply = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(timeout=10)
            raise CascadeError(
                f"the process of {self.name} died with exit code {self._process.exitcode}",
                fix="choose smaller --batch-sizes if it ran out of memory, or omit this backend from --backends",
            ) from None
        if isinstance(reply, CascadeError):
            raise reply
        return reply


def serve(
    connection: Connection,
    name: str,
    models: Path,
    engines: Path | None,
    device: int | None,
    slices: Inputs,
    scratch: Path,
    requested: float,
) -> None:
    """Load a backend, then fulfill requests until the connection closes. Runs in the worker's process.

    `requested` is when the process was requested. All processes of a machine share the clock of time.monotonic().
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    try:
        start = time.monotonic()
        backend = open_backend(name, models, engines, device=device).backend
        loaded = time.monotonic()
        slice_ = read_slice(slices.folder / slices.names[0])
        read = time.monotonic()
        Cascade(backend).predict(slice_)
        end = time.monotonic()
        times_ms = (round(1000 * seconds, 2) for seconds in (loaded - requested, loaded - start, end - read))
        connection.send(LoadedBackend(backend.description, *times_ms))
        convolutions: Backend | None = None
        while True:
            request = connection.recv()
            if isinstance(request, Request):
                connection.send(measure(backend, slices, request, scratch))
            else:  # loaded on demand, to keep it out of the backend's peak memory
                convolutions = convolutions or open_backend(name, request).backend
                connection.send(measure_convolutions(convolutions))
    except (EOFError, ConnectionError):
        return  # the parent closed the connection
    except CascadeError as error:
        connection.send(error)
    except Exception as error:  # a runtime that loads here and then fails may raise any exception
        problem = f"{name} failed: {type(error).__name__}: {error}"
        connection.send(CascadeError(problem, fix="omit it from --backends, or report this"))
