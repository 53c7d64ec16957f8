"""Keep the libraries that decode files from printing warnings, which may quote patient data from a header."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LIBRARIES = ("PIL", "highdicom", "numpy.lib", "pydicom", "tifffile")

_lock = threading.Lock()
_open_blocks = 0
_restore = ExitStack()


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Ignore the warnings and log messages of `LIBRARIES` inside the block.

    Blocks may overlap in several threads: warning filters belong to the process, so the first block sets them and the
    last one restores them.
    """
    global _open_blocks
    with _lock:
        if _open_blocks == 0:
            _restore.enter_context(_silenced())
        _open_blocks += 1
    try:
        yield
    finally:
        with _lock:
            _open_blocks -= 1
            if _open_blocks == 0:
                _restore.close()


@contextmanager
def _silenced() -> Iterator[None]:
    handler = logging.NullHandler()  # without any handler, Python would print log messages to stderr
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    with warnings.catch_warnings():
        for name, logger in zip(LIBRARIES, loggers, strict=True):
            warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
