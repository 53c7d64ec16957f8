"""An array that is read from its file when it is first needed."""

import threading
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from cascade.errors import CascadeError


class LazyArray:
    """Shares one array between threads. In a pickle, it travels without its content."""

    def __init__(self, read: Callable[[], NDArray[Any]]) -> None:
        """Take the function that reads the array, which raises CascadeError if it cannot."""
        self._read = read
        self._lock = threading.Lock()
        self._loaded: NDArray[Any] | CascadeError | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return LazyArray, (self._read,)

    def get(self) -> NDArray[Any]:
        """Return the array. After an error it is not read again for the next slice, but after `free`."""
        with self._lock:
            if self._loaded is None:
                try:
                    self._loaded = self._read()
                except CascadeError as error:
                    self._loaded = error
            if isinstance(self._loaded, CascadeError):
                raise self._loaded
            return self._loaded

    def free(self) -> None:
        """Free the memory. `get` reads the array again."""
        with self._lock:
            self._loaded = None
