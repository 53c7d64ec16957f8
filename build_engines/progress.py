"""TensorRT's nested phases → one share that is done; a build of minutes is then no hang, and Ctrl-C ends it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Report = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""


class Phases:
    """Phases lie in one another, and each step of one is as long as any other step of it: so it is only a guess.

    The share is that of the outermost phase, plus what its running step's phase has done of that step, and so on.
    """

    def __init__(self) -> None:
        self._running: dict[str, list[int]] = {}  # name → steps done and steps in all, outermost first
        self._shown = 0.0

    def start(self, name: str, steps: int) -> None:
        self._running[name] = [0, max(1, steps)]

    def step(self, name: str, step: int) -> None:
        """`step` counts from 0 and is over."""
        if name in self._running:
            self._running[name][0] = step + 1

    def finish(self, name: str) -> None:
        self._running.pop(name, None)

    @property
    def share(self) -> float:
        """Never falls: phases that run side by side would make it jump."""
        share, width = 0.0, 1.0
        for done, steps in list(self._running.values()):  # TensorRT calls from several threads
            share += width * min(done, steps) / steps
            width /= steps
        self._shown = max(self._shown, min(share, 1.0))
        return self._shown


def progress_monitor(tensorrt: Any, report: Report) -> Any:
    """An IProgressMonitor that calls `report`, and ends the build once its `interrupted` is True."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._phases = Phases()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._phases.start(name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            self._phases.step(name, step)
            report(self._phases.share)
            return not self.interrupted

        def phase_finish(self, name: str) -> None:
            self._phases.finish(name)

    return Monitor()


@contextmanager
def interruptible(monitor: Any) -> Iterator[None]:
    """Ctrl-C ends the build between two steps, and is raised when it has ended.

    Python would raise it inside one of the monitor's methods, out of which C++ takes no exception.
    """
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        monitor.interrupted = True

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if monitor.interrupted:
        raise KeyboardInterrupt
