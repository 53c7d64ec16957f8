"""A backend in a process of its own: fresh to load in, and with no other's memory in its peak."""

import multiprocessing
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol, TypeVar

from cascade.benchmarking.timing import Measurement, Request, measure
from cascade.discovery.inputs import Inputs
from cascade.errors import CascadeError
from cascade.io.image import read_slice
from cascade.pipeline import Cascade
from cascade.runtime.select import open_backend

T = TypeVar("T")

SECONDS_TO_END = 2.0


@dataclass(frozen=True)
class Loaded:
    """A backend that is ready, in milliseconds.

    start_ms        from the process's start to both graphs loaded: Python, packages, runtime, graphs.
    load_ms         of that, runtime and graphs.
    first_slice_ms  the first slice through both models, thereafter: some runtimes compile as they go.
    """

    description: str
    start_ms: float
    load_ms: float
    first_slice_ms: float


@dataclass(frozen=True)
class Unavailable:
    """Why something cannot be done, as a CascadeError says it."""

    problem: str
    fix: str


class Measurer(Protocol):
    """What measures one backend when its turn comes."""

    def measure(self, request: Request) -> Measurement:
        """Raises CascadeError where it cannot."""
        ...


class Worker:
    """The process of one backend; it sleeps while others have their turn."""

    def __init__(self, name: str, models: Path, engines: Path, slices: Inputs, scratch: Path) -> None:
        """Where the process is killed, it leaves files in the folder `scratch`.

        Raises CascadeError where the backend cannot run here.
        """
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, name, models, engines, slices, scratch, time.monotonic())
        self._process = context.Process(target=serve, args=arguments, daemon=True, name=f"benchmark {name}")
        self._process.start()
        theirs.close()
        try:
            self.loaded = self._answer(Loaded)
        except BaseException:
            self.close()
            raise

    def measure(self, request: Request) -> Measurement:
        return self._answer(Measurement, request)

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=SECONDS_TO_END)
        if self._process.is_alive():  # in the middle of a measurement that nobody waits for any more
            self._process.kill()
            self._process.join()

    def _answer(self, kind: type[T], request: Request | None = None) -> T:
        try:
            if request:
                self._connection.send(request)
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(timeout=10)
            raise CascadeError(
                f"the process that ran {self.name} died with exit code {self._process.exitcode}",
                fix="give smaller --batch-sizes if memory ran out, or leave this backend out of --backends",
            ) from None
        if isinstance(answer, Unavailable):
            raise CascadeError(answer.problem, fix=answer.fix)
        if not isinstance(answer, kind):
            raise TypeError(f"{self.name} answered {answer!r}")
        return answer


def serve(
    connection: Connection, name: str, models: Path, engines: Path, slices: Inputs, scratch: Path, started: float
) -> None:
    """The process: loads the backend, then answers requests until nobody asks any more.

    started  when it was asked for; time.monotonic() is one clock for all processes of a machine.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this
    try:
        began = time.monotonic()
        backend = open_backend(name, models, engines).backend
        ready = time.monotonic()
        Cascade(backend).predict(read_slice(slices.folder / slices.names[0]))
        ended = time.monotonic()
        times_ms = (round(1000 * seconds, 2) for seconds in (ready - started, ready - began, ended - ready))
        connection.send(Loaded(backend.description, *times_ms))
        while True:
            request = connection.recv()
            connection.send(measure(backend, slices, request, scratch))
    except (EOFError, ConnectionError):
        return  # nobody asks any more
    except CascadeError as error:
        connection.send(Unavailable(error.problem, error.fix))
    except Exception as error:  # a runtime that loads here and then fails to run raises whatever it likes
        connection.send(
            Unavailable(f"{name} failed: {type(error).__name__}: {error}", "leave it out of --backends, or report this")
        )
