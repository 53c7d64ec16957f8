"""Convert the network of an exported graph to FP16, and check that nothing else is in FP16.

The network consists of the nodes between the first and the last layer with weights. Nodes before it (normalization,
box, crop) count pixels or sum over them and stay in FP32. So do the nodes after it (sigmoid, softmax), the inputs, the
outputs, and reductions inside the network, such as the mean before the last layer.

Why not a library:

- onnxconverter-common 1.16 (`float16.convert_float_to_float16`) does not convert the bundled graphs. With its defaults
  the result is invalid, since the weights are already stored in FP16. With an `op_block_list` the conversion does not
  end. With the nodes that this module selects as `node_block_list`, the segmenter gets 39 Casts instead of 12, and the
  classifier is invalid. It also clips weights above 10,000 without an error.
- AutoCast of NVIDIA ModelOpt selects nodes by name, operator and the magnitude of their values. It knows no rule that
  keeps all inputs of the box in FP32, and requires PyTorch, which an installation that builds engines does not have.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_engines.fold import fold_batch_normalization, fold_constants, rewrite
from cascade.contract import BOX
from cascade.errors import CascadeError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
FP16_MAX = 65504.0

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

BETWEEN = frozenset(
    {"Add", "Clip", "Concat", "Flatten", "Identity", "LeakyRelu", "MaxPool", "Mul", "Relu", "Reshape", "Resize"}
)
"""Operators that are converted if they are between two layers with weights: they move values or combine a few."""


def convert_to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert the network of an FP32 graph to FP16.

    Args:
        model: The exported graph. It is not modified.

    Raises:
        CascadeError: If a weight exceeds the range of FP16, or the result is not in FP16 where expected.
    """
    result: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    graph = result.graph
    fold_constants(graph)
    fold_batch_normalization(graph)
    types = element_types(result)
    network = _network(graph, types)
    _retype(graph, network, types)
    del graph.value_info[:]  # contains the types before the conversion
    onnx.checker.check_model(result, full_check=True)
    check_fp16(result)
    return result


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Infer the TensorProto data type of every tensor from the inputs and initializers alone."""
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True).graph
    types = {item.name: item.data_type for item in graph.initializer}
    for item in (*graph.input, *graph.value_info, *graph.output):
        types[item.name] = item.type.tensor_type.elem_type
    return types


def check_fp16(model: onnx.ModelProto) -> None:
    """Check the precision of a graph by its inferred types.

    - Inputs and outputs are FP32.
    - Layers with weights read and write FP16 only.
    - No other nodes use FP16, except Casts and the operators in BETWEEN.
    - Neither the box nor a sampling grid depends on an FP16 value.

    Raises:
        CascadeError: If one of these does not hold.
    """
    graph, types = model.graph, element_types(model)
    wrong = [f"{item.name} is not FP32" for item in (*graph.input, *graph.output) if types[item.name] != FLOAT]
    if not any(node.op_type in WEIGHTED for node in graph.node):
        wrong.append("no layer has weights")
    rounded: set[str] = set()  # floating-point tensors that depend on an FP16 value
    for node in graph.node:
        kinds = {types[name] for name in (*node.input, *node.output) if name} & {FLOAT, HALF}
        if node.op_type in WEIGHTED and kinds != {HALF}:
            wrong.append(f"{node.op_type} {node.name} is not FP16")
        if node.op_type not in WEIGHTED | BETWEEN | {"Cast", "Shape"} and HALF in kinds:
            wrong.append(f"{node.op_type} {node.name} is not FP32")
        reads_rounded = any(name in rounded or types.get(name) == HALF for name in node.input)
        if reads_rounded and node.op_type == "GridSample":
            wrong.append(f"GridSample {node.name} depends on an FP16 value")
        rounded.update(name for name in node.output if reads_rounded and types[name] in (FLOAT, HALF))
    wrong += [f"{BOX} depends on an FP16 value" for item in graph.output if item.name == BOX and BOX in rounded]
    if wrong:
        raise CascadeError(
            f"the graph is not in FP16 where expected: {'; '.join(wrong[:5])}",
            fix="export the models with `cascade train export` of this version",
        )


def _network(graph: onnx.GraphProto, types: dict[str, int]) -> set[int]:
    """Indices of the nodes to convert: layers with weights, and operators of BETWEEN that lie between two of them.

    Only floating-point tensors connect nodes here. Shapes and the results of comparisons do not.
    """
    after = _connected(graph.node, types, downstream=True)
    before = _connected(graph.node, types, downstream=False)
    return {
        index
        for index, node in enumerate(graph.node)
        if node.op_type in WEIGHTED or (node.op_type in BETWEEN and index in after and index in before)
    }


def _connected(nodes: Iterable[onnx.NodeProto], types: dict[str, int], *, downstream: bool) -> set[int]:
    """Indices of the nodes downstream of a layer with weights, or upstream of one."""
    ordered = list(enumerate(nodes))
    tensors: set[str] = set()
    connected: set[int] = set()
    for index, node in ordered if downstream else reversed(ordered):
        sources, targets = (node.input, node.output) if downstream else (node.output, node.input)
        if any(name in tensors for name in sources):
            connected.add(index)
        if index in connected or node.op_type in WEIGHTED:
            tensors.update(name for name in targets if types.get(name) == FLOAT)
    return connected


def _retype(graph: onnx.GraphProto, network: set[int], types: dict[str, int]) -> None:
    """Let the nodes of the network read and write FP16, with one Cast for each tensor that enters or leaves it."""
    constants = {item.name: item for item in graph.initializer}
    halves = {
        name: f"{name}_fp16"
        for index in network
        for name in (*_values(graph.node[index]), *graph.node[index].output)
        if types[name] == FLOAT
    }
    produced = {name for index in network for name in graph.node[index].output}
    rounded = []
    casts = defaultdict(list)  # tensor → the Cast that follows its producer
    for name in halves:
        if name in constants:
            rounded.append(_half(constants[name], halves[name]))
        elif name in produced:
            casts[name] = [helper.make_node("Cast", [halves[name]], [name], f"{name}_to_fp32", to=FLOAT)]
        else:
            casts[name] = [helper.make_node("Cast", [name], [halves[name]], f"{name}_to_fp16", to=HALF)]
    nodes = [cast for item in graph.input for cast in casts[item.name]]
    for index, node in enumerate(graph.node):
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        if index in network:
            count = len(_values(node))
            copy.input[:] = [*(halves.get(name, name) for name in node.input[:count]), *node.input[count:]]
            copy.output[:] = [halves.get(name, name) for name in node.output]
        nodes.append(copy)
        nodes += [cast for name in node.output for cast in casts[name]]
    rewrite(graph, nodes, [*graph.initializer, *rounded])


def _values(node: onnx.NodeProto) -> list[str]:
    """Inputs of the data's type. The region and scales of Resize are always FP32."""
    return list(node.input[:1] if node.op_type == "Resize" else node.input)


def _half(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    value = numpy_helper.to_array(weight)
    if np.abs(value).max(initial=0) > FP16_MAX:
        raise CascadeError(
            f"the weight {weight.name} contains {np.abs(value).max():g}, which exceeds the range of FP16",
            fix="train with weight decay, or use the onnxruntime backend",
        )
    return numpy_helper.from_array(value.astype(np.float16), name)
