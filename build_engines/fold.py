"""Fold constants, and BatchNormalization into the preceding Conv, without changing what a graph computes.

Fold before converting to FP16: the variances of BatchNormalization underflow in FP16, the folded weights do not.
onnxscript's optimizer folds them too, but an installation that builds engines does not have it.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.generic]


def fold_constants(graph: onnx.GraphProto) -> None:
    """Replace Constant nodes, and Casts of initializers, by initializers. Modifies the graph in place."""
    constants = {item.name: item for item in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Constant":
            value = _constant_value(node)
        elif node.op_type == "Cast" and node.input[0] in constants:
            dtype = helper.tensor_dtype_to_np_dtype(int(_attribute(node, "to")))
            value = numpy_helper.to_array(constants[node.input[0]]).astype(dtype)
        else:
            kept.append(node)
            continue
        constants[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    rewrite(graph, kept, constants.values())


def fold_batch_normalization(graph: onnx.GraphProto) -> None:
    """Fold each BatchNormalization that is the only reader of a Conv into that Conv. Modifies the graph in place."""
    constants = {item.name: item for item in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    producers = {name: node for node in graph.node for name in node.output}
    kept = []
    for node in graph.node:
        conv = producers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or readers[node.input[0]] != 1:
            kept.append(node)
            continue
        weight, bias, *norm = (
            numpy_helper.to_array(constants[name]).astype(np.float64) if name else None
            for name in [*conv.input[1:], *([""] * (3 - len(conv.input))), *node.input[1:]]
        )
        folded_weight, folded_bias = _folded(weight, bias, norm, _attribute(node, "epsilon", 1e-5))
        names = [f"{node.output[0]}.weight", f"{node.output[0]}.bias"]
        for name, value in zip(names, (folded_weight, folded_bias), strict=True):
            constants[name] = numpy_helper.from_array(value.astype(np.float32), name)
        conv.input[:] = [conv.input[0], *names]
        conv.output[:] = [node.output[0]]
    rewrite(graph, kept, constants.values())


def _folded(
    weight: NDArray[np.float64] | None,
    bias: NDArray[np.float64] | None,
    norm: list[NDArray[np.float64] | None],
    epsilon: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight and bias of a Conv that computes scale * (conv - mean) / sqrt(variance + epsilon) + shift."""
    scale, shift, mean, variance = norm
    if weight is None or scale is None or shift is None or mean is None or variance is None:
        raise ValueError("the weight of a Conv or the statistics of a BatchNormalization are not constant")
    factor = scale / np.sqrt(variance + epsilon)
    offset = -mean if bias is None else bias - mean
    return weight * factor.reshape(-1, *([1] * (weight.ndim - 1))), offset * factor + shift


def _constant_value(node: onnx.NodeProto) -> Array:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        array: Array = numpy_helper.to_array(value)
        return array
    return np.array(value, dtype={"f": np.float32, "i": np.int64}[attribute.name.removeprefix("value_")[0]])


def _attribute(node: onnx.NodeProto, name: str, default: float | None = None) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            value: float = helper.get_attribute_value(attribute)
            return value
    if default is None:
        raise ValueError(f"{node.op_type} {node.name} has no {name}")
    return default


def rewrite(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], constants: Iterable[onnx.TensorProto]) -> None:
    """Replace the nodes and initializers of a graph in place, without those that no output depends on."""
    read = {output.name for output in graph.output}
    kept = []
    for node in reversed(list(nodes)):
        if read.intersection(node.output):
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            read.update(node.input)
    initializers = [onnx.TensorProto.FromString(item.SerializeToString()) for item in constants if item.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)
