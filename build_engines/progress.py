"""Progress and Ctrl-C during a TensorRT build, which takes minutes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ProgressCallback = Callable[[float], None]
"""Called with the completed fraction, 0 to 1."""


class Phases:
    """Estimates the completed fraction of TensorRT's nested phases, assuming that all steps of a phase take equal time.

    The fraction is that of the outermost phase, plus the fraction of its current step that the next phase completed,
    and so on inwards.
    """

    def __init__(self) -> None:
        self._running: dict[str, list[int]] = {}  # name → completed steps and number of steps, outermost phase first
        self._max_fraction = 0.0

    def start(self, name: str, steps: int) -> None:
        """Record that a phase starts inside the phases that are running."""
        self._running[name] = [0, max(1, steps)]

    def complete_step(self, name: str, step: int) -> None:
        """Record that a step is complete. Steps count from 0."""
        if name in self._running:
            self._running[name][0] = step + 1

    def finish(self, name: str) -> None:
        """Record that a phase is complete."""
        self._running.pop(name, None)

    @property
    def fraction(self) -> float:
        """Completed fraction, 0 to 1. It never decreases, although concurrent phases would make it jump."""
        fraction, width = 0.0, 1.0
        for completed, steps in list(self._running.values()):  # TensorRT calls from several threads
            fraction += width * min(completed, steps) / steps
            width /= steps
        self._max_fraction = max(self._max_fraction, min(fraction, 1.0))
        return self._max_fraction


def progress_monitor(tensorrt: Any, on_progress: ProgressCallback) -> Any:
    """Create an IProgressMonitor that calls `on_progress`, and cancels the build once its `interrupted` is True."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._phases = Phases()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._phases.start(name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            self._phases.complete_step(name, step)
            on_progress(self._phases.fraction)
            return not self.interrupted

        def phase_finish(self, name: str) -> None:
            self._phases.finish(name)

    return Monitor()


@contextmanager
def interruptible(monitor: Any) -> Iterator[None]:
    """Let Ctrl-C cancel the build between two steps, and raise KeyboardInterrupt afterwards.

    By default Python would raise it inside one of the monitor's methods, which C++ calls and cannot handle.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        monitor.interrupted = True

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if monitor.interrupted:
        raise KeyboardInterrupt
