"""ONNX Runtime on the CPU: always there."""

import os
from pathlib import Path

# From 1.29 on its wheels tell Microsoft of every model that is loaded (ONNX Runtime's pull request 27379). Set only
# before the import does the variable end that, without any file in the cache; Windows has but the call.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.runtime.cpu import HostBackend
from cascade.runtime.models import Graph

onnxruntime.disable_telemetry_events()


def open_onnxruntime(segmenter: Graph, classifier: Graph) -> HostBackend:
    """Raises CascadeError for a graph that cannot be loaded."""
    return HostBackend(
        OnnxRuntimeGraph(segmenter.path),
        OnnxRuntimeGraph(classifier.path),
        f"ONNX Runtime {onnxruntime.__version__}, CPU, FP32",
    )


class OnnxRuntimeGraph:
    """Takes any batch; uses all cores."""

    def __init__(self, path: Path) -> None:
        try:
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise CascadeError(
                f"{path}: ONNX Runtime cannot load it ({error})", fix="export the model again"
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
