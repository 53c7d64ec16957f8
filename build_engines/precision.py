"""The precision of what was built: of the typed network that TensorRT was given, and of the engine where it loads.

A strongly typed network is not changed by the builder, so its types are the engine's. The engine's own inspector says
it again after fusing, on machines where the engine can be loaded.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from cascade.errors import CascadeError
from cascade.runtime.engines import Layer

NAMES = {"HALF": "fp16", "FLOAT": "fp32"}
"""TensorRT's names of types that differ from ours, which are its own in lower case."""

FP16_TYPES = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"})
FP32_TYPES = frozenset({"REDUCE", "GRID_SAMPLE", "SOFTMAX"})


def network_layers(network: Any) -> list[Layer]:
    """The layers of an INetworkDefinition, before anything is fused; their names are those of the ONNX nodes."""
    layers = []
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        inputs = (layer.get_input(index) for index in range(layer.num_inputs))
        outputs = (layer.get_output(index) for index in range(layer.num_outputs))
        types = [[_type(tensor.dtype.name) for tensor in side if tensor is not None] for side in (inputs, outputs)]
        layers.append(Layer(layer.name, layer.type.name, *types))
    return layers


def load_engine(tensorrt: Any, plan: bytes) -> Any:
    """The engine on the GPU that is here, as an ICudaEngine. Raises CascadeError where it does not load."""
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.Severity.ERROR))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise CascadeError("the engine that was just built cannot be loaded", fix="update the GPU's driver")
    return engine


def engine_layers(tensorrt: Any, engine: Any) -> list[Layer]:
    """The kernels of a loaded ICudaEngine that was built with ProfilingVerbosity.DETAILED, as far as it tells them.

    Types are found in what TensorRT 10 calls `Format/Datatype`, a sentence, and TensorRT 11 `DataType`, a word.
    """
    report = json.loads(engine.create_engine_inspector().get_engine_information(tensorrt.LayerInformationFormat.JSON))
    return [
        Layer(
            item.get("Metadata") or item["Name"],
            item.get("LayerType", "unknown"),
            *([_type_in(tensor) for tensor in item.get(side, [])] for side in ("Inputs", "Outputs")),
        )
        for item in report.get("Layers", [])
        # Without detail a kernel is a name only, and what is inside a "foreign node" is told by nobody.
        if isinstance(item, dict) and "ForeignNode" not in item["Name"]
    ]


def prove_network(layers: Iterable[Layer]) -> None:
    """Raises CascadeError where a layer with weights is not FP16, or a sum, grid or softmax not FP32."""
    weighted, wrong = 0, []
    for layer in layers:
        types = {*layer.inputs, *layer.outputs}
        if layer.type in FP16_TYPES:
            weighted += 1
            if types != {"fp16"}:
                wrong.append(f"{layer.type} {layer.name} is not fp16")
        elif layer.type in FP32_TYPES and types & {"fp16", "bf16"}:  # reduced shapes are integers
            wrong.append(f"{layer.type} {layer.name} is not fp32")
    _refuse(wrong if weighted else ["it has no layer with weights"])


def prove_engine(layers: Iterable[Layer], weighted: Iterable[str]) -> bool:
    """Whether any kernel of the engine tells the types of a layer with weights.

    weighted  names of the ONNX nodes with weights.

    Raises CascadeError for a kernel that holds one of them and touches FP32 but no FP16; fused with a Cast, it may
    touch both.
    """
    nodes = set(weighted)
    typed = [layer for layer in layers if {*layer.inputs, *layer.outputs} & {"fp16", "fp32"}]
    holding = [layer for layer in typed if nodes & _nodes(layer.name)]
    _refuse([f"{item.type} {item.name} is not fp16" for item in holding if "fp16" not in item.inputs + item.outputs])
    return bool(holding)


def count_by_type(layers: Iterable[Layer]) -> dict[str, int]:
    """As in {"CONVOLUTION fp16": 59}: by the type of a layer and the type it writes."""
    return dict(sorted(Counter(f"{layer.type} {'+'.join(sorted({*layer.outputs}))}" for layer in layers).items()))


def _refuse(wrong: list[str]) -> None:
    if wrong:
        raise CascadeError(
            f"the engine has not the precision that its name promises: {'; '.join(wrong[:5])}",
            fix="report this with the versions of tensorrt and onnx; the onnxruntime backend runs the models meanwhile",
        )


def _nodes(text: str) -> set[str]:
    """The ONNX nodes that a kernel's metadata or, without it, its name lists."""
    return set(re.findall(r"\[ONNX Layer: ([^\]]+)\]", text)) or set(text.split(" + "))


def _type(name: str) -> str:
    return NAMES.get(name, name.lower())


def _type_in(tensor: dict[str, Any]) -> str:
    text = str(tensor.get("Format/Datatype") or tensor.get("DataType") or "unknown")
    for kind, marks in (("fp16", ("FP16", "Half")), ("fp32", ("FP32", "Float"))):
        if any(mark in text for mark in marks):
            return kind
    return text.lower()
