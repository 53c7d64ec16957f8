"""Floating-point operations and memory traffic of a graph, counted from the ONNX file.

Only convolutions and matrix products are counted, which are nearly all of the work. A multiplication and the following
addition are two FLOPs:

    Conv           2 · |output| · channels in / groups · kernel height · kernel width
    ConvTranspose  2 · |input| · channels out / groups · kernel height · kernel width
    Gemm, MatMul   2 · |output| · inner length

The formulas are those of Dumoulin and Visin 2016 (arXiv:1603.07285), with two FLOPs for a multiply-add. The traffic of
a layer is its weights once a batch, and its inputs and output once a slice. A runtime that fuses layers moves less, one
whose cache is too small for a layer moves more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError


@dataclass(frozen=True)
class GraphCost:
    """Cost of running a graph.

    Attributes:
        flops: Floating-point operations a slice.
        weights: Numbers read once a batch.
        activations: Numbers read or written a slice.
    """

    flops: int
    weights: int
    activations: int

    def bytes_moved(self, batch_size: int, bytes_per_number: int) -> int:
        """Memory traffic of a batch. A number has 4 bytes in FP32, 2 in FP16 and BF16."""
        return bytes_per_number * (self.weights + batch_size * self.activations)


def import_onnx() -> Any:
    """Import onnx, which only the benchmark needs.

    Raises:
        CascadeError: If it is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise CascadeError("the package onnx is missing", fix="pip install 'cascade-mri[benchmark]'") from error
    return onnx


def count_cost(path: Path) -> GraphCost:
    """Count the cost of an ONNX graph whose only dynamic dimension is the batch, the first one.

    Raises:
        CascadeError: If onnx is missing, or a shape cannot be inferred.
    """
    onnx = import_onnx()
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    weights = {item.name: tuple(item.dims) for item in graph.initializer}
    for node in graph.node:  # weights stored in FP16 and cast to FP32
        if node.op_type == "Cast" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    flops = weight_numbers = activations = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        try:
            operands = [weights.get(name) or shapes[name] for name in node.input[:2]]
            output = shapes[node.output[0]]
            flops += 2 * _multiplications(node, operands, output)
            weight_numbers += sum(math.prod(weights[name]) for name in node.input if name in weights)
            activations += sum(math.prod(shapes[name]) for name in node.input if name and name not in weights)
            activations += math.prod(output)
        except (KeyError, ValueError) as error:
            raise CascadeError(
                f"{path}: the shapes of layer {node.name!r} cannot be inferred", fix="export the graph again"
            ) from error
    return GraphCost(flops, weight_numbers, activations)


def _multiplications(node: Any, operands: Sequence[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """Multiplications a slice."""
    data, weight = operands
    if node.op_type == "Conv":  # weight: channels out, channels in / groups, kernel
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # weight: channels in, channels out / groups, kernel
        return math.prod(data) * math.prod(weight[1:])
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return math.prod(output) * (data[0] if transposed else data[-1])


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of a tensor for a batch of one slice. Another dynamic dimension is 0."""
    dims = value.type.tensor_type.shape.dim
    lengths = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
    if lengths and not dims[0].HasField("dim_value"):
        lengths[0] = 1
    return tuple(lengths)
