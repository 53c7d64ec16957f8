"""The terminal: messages for the user go to stderr, with control characters escaped."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from rich.console import Console


def printable(text: str) -> str:
    """Escape all control characters but newlines: file names may contain some that move the cursor or reverse text."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def stderr() -> Console:
    """Return a console that writes to stderr."""
    return Console(stderr=True, highlight=False)


class _TolerantStream:
    """A text stream that keeps the first error of writing, instead of raising it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self.error = self.error or error
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self.error = self.error or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerate_write_errors() -> Iterator[dict[str, str]]:
    """Let a command end its work although stdout or stderr is on a full disk, or a pipe whose reader has ended.

    Yields:
        Name of a stream → reason why it could not be written; filled at the end of the block.
    """
    problems: dict[str, str] = {}
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    tolerant = {name: _TolerantStream(stream) for name, stream in streams.items() if stream}  # None: it is closed
    try:
        for name, stream in tolerant.items():
            setattr(sys, name, cast(IO[str], stream))
        yield problems
    finally:
        for name, stream in tolerant.items():
            stream.flush()
            setattr(sys, name, streams[name])
            if stream.error:
                problems[name] = stream.error.strerror or str(stream.error)
                _discard_buffer(streams[name])


def _discard_buffer(stream: IO[str]) -> None:
    """Redirect a stream to nowhere: Python writes the rest of its buffer when it exits, and would report a failure."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
