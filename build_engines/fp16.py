"""An exported graph → the same graph with its network in FP16, and the proof that nothing else is.

The network is what lies between the first and the last layer that has weights; enlarging the logits, a convolution, is
the segmenter's last. What comes before (normalisation, box, crop) counts pixels or sums over them and stays FP32, as do
what comes after (sigmoid, softmax), inputs and outputs; so does what sums inside the network, such as the mean before
the last layer.
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
"""May run in FP16 between two layers that have weights: it moves values or combines a few. All else is FP32."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of FP32 arithmetic → a new one; weights that do not fit into FP16 raise CascadeError."""
    result: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    graph = result.graph
    fold_constants(graph)
    fold_batch_normalization(graph)
    types = element_types(result)
    network = _network(graph, types)
    _retype(graph, network, types)
    del graph.value_info[:]  # they tell the types of before
    onnx.checker.check_model(result, full_check=True)
    prove_fp16(result)
    return result


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Name of every tensor in the graph → its TensorProto data type, inferred anew from inputs and initializers."""
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True).graph
    types = {item.name: item.data_type for item in graph.initializer}
    for item in (*graph.input, *graph.value_info, *graph.output):
        types[item.name] = item.type.tensor_type.elem_type
    return types


def prove_fp16(model: onnx.ModelProto) -> None:
    """Raises CascadeError unless the types of the graph itself, inferred anew, show that

    - inputs and outputs are FP32,
    - every layer that has weights takes and gives FP16 only,
    - FP16 is nowhere but there, in Casts and in what may run BETWEEN two such layers,
    - no box and no sampling grid comes from an FP16 number.
    """
    graph, types = model.graph, element_types(model)
    wrong = [f"{item.name} is not FP32" for item in (*graph.input, *graph.output) if types[item.name] != FLOAT]
    if not any(node.op_type in WEIGHTED for node in graph.node):
        wrong.append("no layer has weights")
    rounded: set[str] = set()  # what any FP16 number went into, over floating point only
    for node in graph.node:
        kinds = {types[name] for name in (*node.input, *node.output) if name} & {FLOAT, HALF}
        if node.op_type in WEIGHTED and kinds != {HALF}:
            wrong.append(f"{node.op_type} {node.name} is not FP16")
        if node.op_type not in WEIGHTED | BETWEEN | {"Cast", "Shape"} and HALF in kinds:
            wrong.append(f"{node.op_type} {node.name} is not FP32")
        inherits = any(name in rounded or types.get(name) == HALF for name in node.input)
        if inherits and node.op_type == "GridSample":
            wrong.append(f"GridSample {node.name} samples what was rounded to FP16")
        rounded.update(name for name in node.output if inherits and types[name] in (FLOAT, HALF))
    wrong += [f"{BOX} was rounded to FP16" for item in graph.output if item.name == BOX and BOX in rounded]
    if wrong:
        raise CascadeError(
            f"the graph has not the precision that its name promises: {'; '.join(wrong[:5])}",
            fix="export the models with `cascade train export` of this version",
        )


def _network(graph: onnx.GraphProto, types: dict[str, int]) -> set[int]:
    """Indices of the nodes that become FP16: layers with weights, and what lies BETWEEN two of them.

    Only floating point leads from one to the next: the count in a shape or the outcome of a comparison does not.
    """
    after = _reached(graph.node, types, forward=True)
    before = _reached(graph.node, types, forward=False)
    return {
        index
        for index, node in enumerate(graph.node)
        if node.op_type in WEIGHTED or (node.op_type in BETWEEN and index in after and index in before)
    }


def _reached(nodes: Iterable[onnx.NodeProto], types: dict[str, int], *, forward: bool) -> set[int]:
    """Indices of the nodes that a layer with weights leads to; backwards, of those that lead to one."""
    ordered = list(enumerate(nodes))
    tensors: set[str] = set()
    found: set[int] = set()
    for index, node in ordered if forward else reversed(ordered):
        ahead, behind = (node.input, node.output) if forward else (node.output, node.input)
        if any(name in tensors for name in ahead):
            found.add(index)
        if index in found or node.op_type in WEIGHTED:
            tensors.update(name for name in behind if types.get(name) == FLOAT)
    return found


def _retype(graph: onnx.GraphProto, network: set[int], types: dict[str, int]) -> None:
    """Lets the nodes of the network read and write FP16, with one Cast for each tensor that crosses its border."""
    constants = {item.name: item for item in graph.initializer}
    halves = {
        name: f"{name}_fp16"
        for index in network
        for name in (*_values(graph.node[index]), *graph.node[index].output)
        if types[name] == FLOAT
    }
    made = {name for index in network for name in graph.node[index].output}
    rounded = []
    casts = defaultdict(list)  # by the tensor that must be there before
    for name in halves:
        if name in constants:
            rounded.append(_half(constants[name], halves[name]))
        elif name in made:
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
    """Inputs that share the type of the data: Resize's region and scales are FP32 whatever it resizes."""
    return list(node.input[:1] if node.op_type == "Resize" else node.input)


def _half(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    value = numpy_helper.to_array(weight)
    if np.abs(value).max(initial=0) > FP16_MAX:
        raise CascadeError(
            f"the weight {weight.name} holds {np.abs(value).max():g}, more than FP16 can",
            fix="train with weight decay, or use the onnxruntime backend",
        )
    return numpy_helper.from_array(value.astype(np.float16), name)
