"""A graph's file → an ONNX model, once it is sure that it takes and gives what the cascade's graphs do."""

from collections.abc import Iterable

import onnx

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SHAPES, SLICE
from cascade.errors import CascadeError
from cascade.runtime.models import CLASSIFIER, SEGMENTER, ExportedModel

INPUTS = {SEGMENTER: (SLICE,), CLASSIFIER: (SLICE, PROBABILITY)}
OUTPUTS = {SEGMENTER: (PROBABILITY,), CLASSIFIER: (CLASS_PROBABILITY, BOX)}

Tensors = dict[str, tuple[str | int, ...]]
"""By name: the type, then the sizes."""


def load_graph(name: str, graph: ExportedModel) -> onnx.ModelProto:
    """Raises CascadeError for a file that is no ONNX graph or not one of ours."""
    fix = "give models that `cascade train export` of this version wrote"
    try:
        model = onnx.load(graph.path)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # protobuf's, ONNX's checker's and its shape inference's errors share no base class
        raise CascadeError(f"{graph.path}: is no valid ONNX graph ({error})", fix=fix) from error
    for verb, found, expected in (
        ("takes", _tensors(model.graph.input), _batched(INPUTS[name])),
        ("gives", _tensors(model.graph.output), _batched(OUTPUTS[name])),
    ):
        if found != expected:
            raise CascadeError(
                f"{graph.path}: {verb} {_told(found)}, where the {name} {verb} {_told(expected)}", fix=fix
            )
    return model


def _batched(names: Iterable[str]) -> Tensors:
    return {name: ("float32", "any", *SHAPES[name]) for name in names}


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> Tensors:
    found: Tensors = {}
    for value in values:
        tensor = value.type.tensor_type
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        found[value.name] = (dtype, *(size.dim_value or "any" for size in tensor.shape.dim))
    return found


def _told(tensors: Tensors) -> str:
    return ", ".join(f"{name} ({' x '.join(map(str, sizes))}) {dtype}" for name, (dtype, *sizes) in tensors.items())
