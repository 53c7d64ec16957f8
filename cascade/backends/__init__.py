"""The runtimes that can run a graph; `open_graph` chooses and opens one."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cascade.errors import CascadeError

FloatArray = NDArray[np.float32]

BACKENDS = ("onnxruntime",)


class Backend(Protocol):
    """A loaded graph: named arrays in, named arrays out."""

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        """All arrays are float32 and share their first length, the batch."""
        ...


def open_graph(path: Path, backend: str) -> Backend:
    """Raises CascadeError for a backend that is unknown or cannot run here, and for a graph that cannot be loaded."""
    if backend == "onnxruntime":
        from cascade.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(path)
    raise CascadeError(f"there is no backend {backend!r}", fix=f"choose one of {', '.join(BACKENDS)}")
