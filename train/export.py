"""A checkpoint → an ONNX graph that was seen to compute the same, and its entry in models.json."""

import importlib.metadata
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE, SLICE_SIZE
from cascade.errors import CascadeError
from cascade.files import write_atomically

OPSET = 20
TOLERANCE = 1e-3
"""Largest difference in any probability between PyTorch in FP32 and the exported graph."""

SMALLEST_STORED_AS_FP16 = 1024
"""Values. Smaller tensors (biases, sizes of resizes) stay FP32: they weigh nothing and count pixels."""


def to_onnx(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    """Any batch size; weights stored as FP16, arithmetic in FP32."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        graph.eval(),
        args=(),
        kwargs=inputs,
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes={name: {0: batch} for name in inputs},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        optimize=False,  # its rewriting folds BatchNorm into weights that PyTorch never saw; runtimes fold it at loading
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    onnxscript.optimizer.optimize_ir(program.model)
    model = program.model_proto
    store_weights_as_fp16(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def round_weights_to_fp16(network: nn.Module) -> None:
    """Makes the network compute with the weights as they will be stored, so that both can be compared to 1e-3."""
    for parameter in network.parameters():
        if parameter.numel() >= SMALLEST_STORED_AS_FP16:
            parameter.data = parameter.data.half().float()


def store_weights_as_fp16(model: onnx.ModelProto) -> None:
    """Halves the file: each large FP32 weight becomes FP16 with a cast behind it, which runtimes fold away at loading."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < SMALLEST_STORED_AS_FP16:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
