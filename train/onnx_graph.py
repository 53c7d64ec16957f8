"""Convert a PyTorch module to an ONNX graph with weights in FP16, and compare the two."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from cascade.contract import SLICE
from cascade.errors import CascadeError
from cascade.runtime.onnxruntime import OnnxRuntimeGraph

OPSET = 20

TOLERANCE = 1e-3
"""Largest difference in any probability between PyTorch and the exported graph."""


def to_onnx(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    """Convert to ONNX: any batch size, weights stored as FP16, arithmetic in FP32."""
    program = torch.onnx.export(
        graph,
        args=(),
        kwargs={name: value[:2] for name, value in inputs.items()},  # a batch of 1 would be taken for a constant
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes={name: {0: torch.export.Dim("batch", min=1)} for name in inputs},
        opset_version=OPSET,
        dynamo=True,
        # Its rewriting folds BatchNorm into weights that PyTorch never saw, and rounding those to FP16 would put
        # the two more than TOLERANCE apart. Runtimes fold it when they load the graph.
        optimize=False,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    store_weights_as_fp16(model)
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's stack traces, with this machine's paths
    onnx.checker.check_model(model, full_check=True)
    return model


def round_weights_to_fp16(network: nn.Module) -> None:
    """Round the weights of convolutions and linear layers to what will be stored, so that PyTorch computes with them.

    What has one dimension (biases, BatchNorm's four) stays FP32: it weighs nothing, and variances may underflow.
    """
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()


def store_weights_as_fp16(model: onnx.ModelProto) -> None:
    """Halve the file: each FP32 weight becomes FP16, followed by a cast that runtimes fold away."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)


def largest_difference(content: bytes, graph: nn.Module, inputs: dict[str, Tensor], output: str) -> float:
    """Compute the largest difference in `output` between ONNX Runtime and PyTorch in FP32, over all slices.

    Raises CascadeError where it is over TOLERANCE, or where a class differs.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "graph.onnx"
        path.write_bytes(content)
        loaded = OnnxRuntimeGraph(path)
        difference, same = 0.0, True
        for start in range(0, len(inputs[SLICE]), 8):
            batch = {name: value[start : start + 8] for name, value in inputs.items()}
            exported = loaded.run(**{name: value.numpy() for name, value in batch.items()})[output]
            with torch.inference_mode():
                result = graph(**batch)
            expected = (result[0] if isinstance(result, tuple) else result).numpy()
            difference = max(difference, float(np.abs(exported - expected).max()))
            same = same and (exported.ndim > 2 or bool((exported.argmax(1) == expected.argmax(1)).all()))
    if difference >= TOLERANCE or not same:
        raise CascadeError(
            f"the exported graph differs from PyTorch: by {difference:.2g} in a probability, classes equal: {same}",
            fix=f"export with other versions of torch and onnx; at most {TOLERANCE:g} and equal classes are accepted",
        )
    return difference
