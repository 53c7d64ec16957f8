"""ONNX Runtime on the CPU, the backend that is always installed."""

import os
from pathlib import Path
from types import ModuleType

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.runtime.cpu import CpuBackend
from cascade.runtime.models import ExportedModel


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off.

    Since 1.29 its wheels report every loaded model to Microsoft (pull request 27379 of ONNX Runtime). The variable
    prevents this on Linux and macOS, where it must be set before the import. On Windows only the call does.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module


def open_onnxruntime(segmenter: ExportedModel, classifier: ExportedModel, *, threads: int | None = None) -> CpuBackend:
    """Load both graphs.

    Args:
        segmenter: The segmenter's graph.
        classifier: The classifier's graph.
        threads: Number of threads that compute; None for one per core.

    Raises:
        CascadeError: If a graph cannot be loaded.
    """
    return CpuBackend(
        OnnxRuntimeGraph(segmenter.path, threads),
        OnnxRuntimeGraph(classifier.path, threads),
        f"ONNX Runtime {import_onnxruntime().__version__}, CPU, FP32",
    )


class OnnxRuntimeGraph:
    """A `LoadedGraph` for batches of any size.

    Args:
        path: ONNX file.
        threads: Number of threads that compute; None for one per core.

    Raises:
        CascadeError: If the graph cannot be loaded.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise CascadeError(
                f"{path}: ONNX Runtime cannot load it ({error})", fix="export the model again"
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        """See `LoadedGraph.run`."""
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
