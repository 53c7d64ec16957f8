"""OpenVINO on the CPU, in BF16 where the processor has it."""

from pathlib import Path
from typing import Any

from cascade.backends import FloatArray
from cascade.backends.host import HostBackend
from cascade.errors import CascadeError
from cascade.graphs import Graph


def open_openvino(segmenter: Graph, classifier: Graph, *, only_low_precision: bool = False) -> HostBackend:
    """Asks the runtime what the processor can do, and takes BF16 if it is among that.

    Raises CascadeError where OpenVINO is not installed, a graph cannot be loaded, or, with `only_low_precision`, where
    it would compute in FP32 and so be no faster than ONNX Runtime.
    """
    try:
        import openvino
    except ImportError as error:
        raise CascadeError("OpenVINO is not installed", fix="pip install 'cascade[openvino]'") from error
    core = openvino.Core()
    low_precision = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if only_low_precision and not low_precision:
        raise CascadeError("OpenVINO has no BF16 on this processor", fix="ask for it with --backend openvino")
    precision = "bf16" if low_precision else "f32"
    version = openvino.__version__.split("-")[0]
    return HostBackend(
        OpenVinoGraph(core, segmenter.path, precision),
        OpenVinoGraph(core, classifier.path, precision),
        f"OpenVINO {version}, CPU, {'BF16' if low_precision else 'FP32'}",
    )


class OpenVinoGraph:
    """Takes any batch; uses all cores.

    precision  `f32` or `bf16`, of the convolutions; what counts pixels stays FP32 by OpenVINO's own choice.
    """

    def __init__(self, core: Any, path: Path, precision: str) -> None:
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        try:
            self._compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise CascadeError(f"{path}: OpenVINO cannot load it ({error})", fix="export the model again") from error
        self._outputs = [output.any_name for output in self._compiled.outputs]

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        found = self._compiled(inputs, share_inputs=True)
        return {name: found[name] for name in self._outputs}
