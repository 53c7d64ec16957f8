"""How much arithmetic a graph is and how many numbers it moves, counted from the ONNX file.

Counted are convolutions and matrix products, which are nearly all of it: Conv, ConvTranspose, Gemm and MatMul. A
multiplication and the addition behind it are two FLOPs (floating point operations):

    Conv           2 · |output| · channels in / groups · kernel height · kernel width
    ConvTranspose  2 · |input| · channels out / groups · kernel height · kernel width
    Gemm, MatMul   2 · |output| · inner length

after Dumoulin and Visin 2016 (arXiv:1603.07285), whose sums these are with two for a multiply-add. Moved are, for each
of these layers, its weights once a batch, and its inputs and output once a slice. A runtime that fuses layers moves
less; one whose cache is too small for a layer moves more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError


@dataclass(frozen=True)
class Work:
    """flops         of one slice.
    weights          numbers that are read once a batch.
    activations      numbers that are read or written for one slice.
    """

    flops: int
    weights: int
    activations: int

    def bytes_moved(self, batch_size: int, bytes_a_number: int) -> int:
        """bytes_a_number  4 in FP32, 2 in FP16 and BF16."""
        return bytes_a_number * (self.weights + batch_size * self.activations)


def count_work(path: Path) -> Work:
    """Of an ONNX graph whose only unknown length is the batch, the first of each array.

    Raises CascadeError where the package onnx is missing, or a shape cannot be told.
    """
    try:
        import onnx
    except ImportError as error:
        raise CascadeError(
            "counting a graph's arithmetic needs the package onnx", fix="pip install 'cascade-mri[benchmark]'"
        ) from error
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    weights = {item.name: tuple(item.dims) for item in graph.initializer}
    for node in graph.node:  # stored as FP16, cast to FP32
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
                f"{path}: the shapes around its layer {node.name!r} cannot be told", fix="export the graph again"
            ) from error
    return Work(flops, weight_numbers, activations)


def _multiplications(node: Any, operands: Sequence[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """In one slice."""
    given, weight = operands
    if node.op_type == "Conv":  # weight: channels out, channels in / groups, kernel
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # weight: channels in, channels out / groups, kernel
        return math.prod(given) * math.prod(weight[1:])
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return math.prod(output) * (given[0] if transposed else given[-1])


def _shape(value: Any) -> tuple[int, ...]:
    """Of one slice: the batch counts as 1. Raises ValueError, when it is asked for, where another length is unknown."""
    dims = value.type.tensor_type.shape.dim
    lengths = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
    if lengths and not dims[0].HasField("dim_value"):
        lengths[0] = 1
    return tuple(lengths)
