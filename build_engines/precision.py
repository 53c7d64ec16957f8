"""Check the precision of the network that TensorRT builds from, and of the engine where it can be loaded.

The builder does not change the types of a strongly typed network, so the engine has the same. The engine's inspector
confirms this after layer fusion, on machines where the engine can be loaded.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from build_engines.logger import shared_logger
from cascade.errors import CascadeError
from cascade.runtime.gpu import VISIBLE
from cascade.runtime.sidecar import Layer
from cascade.runtime.tensorrt_engine import create_runtime

TYPE_NAMES = {"HALF": "fp16", "FLOAT": "fp32"}
"""TensorRT's type names that differ from ours. Our other names are TensorRT's in lower case."""

FP16_TYPES = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"})
FP32_TYPES = frozenset({"REDUCE", "GRID_SAMPLE", "SOFTMAX"})


def network_layers(network: Any) -> list[Layer]:
    """List the layers of an INetworkDefinition before fusion. Their names are those of the ONNX nodes."""
    layers = []
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        inputs = (layer.get_input(index) for index in range(layer.num_inputs))
        outputs = (layer.get_output(index) for index in range(layer.num_outputs))
        types = [[_type_name(tensor.dtype.name) for tensor in side if tensor is not None] for side in (inputs, outputs)]
        layers.append(Layer(layer.name, layer.type.name, *types))
    return layers


def load_engine(tensorrt: Any, serialized: bytes) -> Any:
    """Deserialize an engine on the GPU of this machine into an ICudaEngine.

    Raises:
        CascadeError: If TensorRT cannot load it, or cannot start CUDA.
    """
    logger = shared_logger(tensorrt)
    logger.errors.clear()
    runtime = create_runtime(tensorrt, logger)
    engine = runtime.deserialize_cuda_engine(serialized)
    if engine is None:
        fix = "update the GPU driver"
        if tensorrt.__name__ == "tensorrt_rtx":
            fix += f", or hide the GPU, which this flavor does not need to build: {VISIBLE}= cascade build ..."
        raise CascadeError(
            f"TensorRT cannot load the engine that it just built ({'; '.join(logger.errors[:3])})", fix=fix
        )
    return engine


def engine_layers(tensorrt: Any, engine: Any) -> list[Layer]:
    """List the kernels of an ICudaEngine that was built with ProfilingVerbosity.DETAILED.

    TensorRT 10 reports types as a sentence under `Format/Datatype`, TensorRT 11 as a word under `DataType`. Kernels
    without details, and "foreign nodes", whose contents TensorRT does not report, are omitted.
    """
    report = json.loads(engine.create_engine_inspector().get_engine_information(tensorrt.LayerInformationFormat.JSON))
    return [
        Layer(
            item.get("Metadata") or item["Name"],
            item.get("LayerType", "unknown"),
            *([_type_in(tensor) for tensor in item.get(side, [])] for side in ("Inputs", "Outputs")),
        )
        for item in report.get("Layers", [])
        if isinstance(item, dict) and "ForeignNode" not in item["Name"]  # without details, an item is only a name
    ]


def check_network(layers: Iterable[Layer]) -> None:
    """Check that layers with weights are in FP16, and that sums, grid sampling and softmax are in FP32.

    Raises:
        CascadeError: If a layer has another precision, or no layer has weights.
    """
    weighted, wrong = 0, []
    for layer in layers:
        types = {*layer.inputs, *layer.outputs}
        if layer.type in FP16_TYPES:
            weighted += 1
            if types != {"fp16"}:
                wrong.append(f"{layer.type} {layer.name} is not fp16")
        elif layer.type in FP32_TYPES and types & {"fp16", "bf16"}:  # reductions of shapes are integers
            wrong.append(f"{layer.type} {layer.name} is not fp32")
    _raise_if_any(wrong if weighted else ["it has no layer with weights"])


def check_engine(layers: Iterable[Layer], weighted: Iterable[str]) -> bool:
    """Check that kernels with weights are in FP16.

    A kernel that is fused with a Cast may use both FP16 and FP32.

    Args:
        layers: Kernels of the engine.
        weighted: Names of the ONNX nodes with weights.

    Returns:
        True if the types of at least one such kernel are known.

    Raises:
        CascadeError: If such a kernel uses FP32 but not FP16.
    """
    nodes = set(weighted)
    typed = [layer for layer in layers if {*layer.inputs, *layer.outputs} & {"fp16", "fp32"}]
    kernels = [layer for layer in typed if nodes & _nodes(layer.name)]
    _raise_if_any(
        [f"{item.type} {item.name} is not fp16" for item in kernels if "fp16" not in item.inputs + item.outputs]
    )
    return bool(kernels)


def count_layers(layers: Iterable[Layer]) -> dict[str, int]:
    """Count layers by layer type and output type, as in {"CONVOLUTION fp16": 59}."""
    return dict(sorted(Counter(f"{layer.type} {'+'.join(sorted({*layer.outputs}))}" for layer in layers).items()))


def _raise_if_any(wrong: list[str]) -> None:
    if wrong:
        raise CascadeError(
            f"the engine is not in FP16 where expected: {'; '.join(wrong[:5])}",
            fix="report this with the versions of tensorrt and onnx, and use the onnxruntime backend",
        )


def _nodes(text: str) -> set[str]:
    """ONNX nodes listed in a kernel's metadata or, without metadata, in its name."""
    return set(re.findall(r"\[ONNX Layer: ([^\]]+)\]", text)) or set(text.split(" + "))


def _type_name(name: str) -> str:
    return TYPE_NAMES.get(name, name.lower())


def _type_in(tensor: dict[str, Any]) -> str:
    text = str(tensor.get("Format/Datatype") or tensor.get("DataType") or "unknown")
    for type_name, spellings in (("fp16", ("FP16", "Half")), ("fp32", ("FP32", "Float"))):
        if any(spelling in text for spelling in spellings):
            return type_name
    return text.lower()
