"""Load an exported graph and check that it has the inputs and outputs of the cascade's graphs."""

from collections.abc import Iterable

import onnx

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SHAPES, SLICE
from cascade.errors import CascadeError
from cascade.runtime.models import CLASSIFIER, SEGMENTER, ExportedModel

INPUTS = {SEGMENTER: (SLICE,), CLASSIFIER: (SLICE, PROBABILITY)}
OUTPUTS = {SEGMENTER: (PROBABILITY,), CLASSIFIER: (CLASS_PROBABILITY, BOX)}

Tensors = dict[str, tuple[str | int, ...]]
"""NumPy dtype and shape of each tensor by name; a dynamic dimension is "any"."""


def load_graph(name: str, graph: ExportedModel) -> onnx.ModelProto:
    """Load the graph of the segmenter or the classifier.

    Raises:
        CascadeError: If the file is not a valid ONNX graph, or has other inputs or outputs.
    """
    fix = "use models that `cascade train export` of this version wrote"
    try:
        model = onnx.load(graph.path)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the errors of protobuf, the checker and shape inference share no base class
        raise CascadeError(f"{graph.path}: is not a valid ONNX graph ({error})", fix=fix) from error
    for side, actual, expected in (
        ("inputs", _tensors(model.graph.input), _dynamic_batch(INPUTS[name])),
        ("outputs", _tensors(model.graph.output), _dynamic_batch(OUTPUTS[name])),
    ):
        if actual != expected:
            raise CascadeError(
                f"{graph.path}: its {side} are {_format(actual)}, but those of the {name} are {_format(expected)}",
                fix=fix,
            )
    return model


def _dynamic_batch(names: Iterable[str]) -> Tensors:
    return {name: ("float32", "any", *SHAPES[name]) for name in names}


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> Tensors:
    tensors: Tensors = {}
    for value in values:
        tensor = value.type.tensor_type
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        tensors[value.name] = (dtype, *(dim.dim_value or "any" for dim in tensor.shape.dim))
    return tensors


def _format(tensors: Tensors) -> str:
    return ", ".join(f"{name} ({' x '.join(map(str, shape))}) {dtype}" for name, (dtype, *shape) in tensors.items())
