"""Ctrl-C and its like: the first ends a run after its current batch, the second at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from signal import default_int_handler

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that stop a run after the current batch, unless the program ignores or handles them itself."""


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets, so that the current batch is finished; a second one interrupts.

    The same holds for SIGTERM and SIGHUP. Outside the main thread, which receives all signals, it is never set.
    """
    stop = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in SIGNALS if is_main and signal.getsignal(number) is default_int_handler]

    def handle(number: int, frame: object) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number in numbers:
            signal.signal(number, default_int_handler)

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
