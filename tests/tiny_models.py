"""Small graphs with the inputs and outputs of the cascade's graphs.

`segmenter` and `classifier` have a few weights: pixel arithmetic, a small network, probabilities. The segmenter finds
pixels brighter than the mean plus 1.5 standard deviations, and the classifier boxes them. The two others have no
weights, so that their outputs are known.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE, SLICE_SIZE
from cascade.files import sha256_of


def node(kind, inputs, *outputs, **attributes):
    return helper.make_node(kind, inputs, list(outputs), name=f"{kind}_{outputs[0]}", **attributes)


def plane(name, batch="batch"):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 1, SLICE_SIZE, SLICE_SIZE])


def vector(name, length):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", length])


def model(nodes, inputs, outputs, **constants):
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def segmenter():
    """Four identical channels, BatchNormalization that shifts by -1.5, and a weight stored in FP16 with a Cast."""
    nodes = [
        node("AveragePool", [SLICE], "half", kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", ["half", "axes"], "mean"),
        node("Sub", ["half", "mean"], "centered"),
        node("Mul", ["centered", "centered"], "squared"),
        node("ReduceSum", ["squared", "axes"], "sum"),
        node("Div", ["sum", "pixels"], "variance"),
        node("Sqrt", ["variance"], "deviation"),
        node("Div", ["centered", "deviation"], "normal"),
        node("Cast", ["first_fp16"], "first", to=TensorProto.FLOAT),
        node("Conv", ["normal", "first"], "conv"),
        node("BatchNormalization", ["conv", "scale", "shift", "zeros", "ones"], "shifted", epsilon=0.0),
        node("Relu", ["shifted"], "relu"),
        node("Conv", ["relu", "second", "bias"], "logits"),
        node("Resize", ["logits", "", "twice"], "whole", mode="linear"),
        node("Sigmoid", ["whole"], PROBABILITY),
    ]
    four = np.ones(4, np.float32)
    return model(
        nodes,
        [plane(SLICE)],
        [plane(PROBABILITY)],
        axes=np.array([1, 2, 3]),
        pixels=np.float32((SLICE_SIZE // 2) ** 2),
        first_fp16=np.ones((4, 1, 1, 1), np.float16),
        scale=four,
        shift=-1.5 * four,
        zeros=0 * four,
        ones=four,
        second=np.full((1, 4, 1, 1), 5, np.float32),
        bias=np.float32([-0.5]),
        twice=np.float32([1, 1, 2, 2]),
    )


def classifier():
    """The box (left, top, right, bottom) of the mask, and classes from the mean of 16 x 16 pixels in two layers."""
    nodes = [
        node("GreaterOrEqual", [PROBABILITY, "threshold"], "is_tumor"),
        node("Cast", ["is_tumor"], "mask", to=TensorProto.FLOAT),
        node("ReduceMax", ["mask", "over_rows"], "columns", keepdims=0),
        node("ReduceMax", ["mask", "over_columns"], "rows", keepdims=0),
        *[
            item
            for side, axis, steps, reach in (
                ("left", "columns", "behind", "from_right"),
                ("top", "rows", "behind", "from_bottom"),
                ("right", "columns", "ahead", "right"),
                ("bottom", "rows", "ahead", "bottom"),
            )
            for item in (
                node("Mul", [axis, steps], f"{side}_steps"),
                node("ReduceMax", [f"{side}_steps", "one"], reach),
            )
        ],
        node("Sub", ["size", "from_right"], "left"),
        node("Sub", ["size", "from_bottom"], "top"),
        node("Concat", ["left", "top", "right", "bottom"], BOX, axis=1),
        node("Mul", [SLICE, "gain"], "gray"),
        node("Concat", ["gray", "mask"], "planes", axis=1),
        node("AveragePool", ["planes"], "shrunk", kernel_shape=[32, 32], strides=[32, 32]),
        node("Conv", ["shrunk", "weight"], "conv"),
        node("Relu", ["conv"], "relu"),
        node("ReduceMean", ["relu", "both"], "pooled", keepdims=0),
        node("Gemm", ["pooled", "head", "head_bias"], "logits", transB=1),
        node("Softmax", ["logits"], CLASS_PROBABILITY, axis=1),
    ]
    steps = np.arange(SLICE_SIZE, dtype=np.float32)[None, None]
    return model(
        nodes,
        [plane(SLICE), plane(PROBABILITY)],
        [vector(CLASS_PROBABILITY, 3), vector(BOX, 4)],
        threshold=np.float32(0.5),
        over_rows=np.array([1, 2]),
        over_columns=np.array([1, 3]),
        one=np.array([1]),
        both=np.array([2, 3]),
        ahead=steps[0] + 1,
        behind=SLICE_SIZE - steps[0],
        size=np.float32([[SLICE_SIZE]]),
        gain=np.float32(0.01),
        weight=np.float32([1, 0, 0, 1, 1, 1]).reshape(3, 2, 1, 1),
        head=np.float32([[1, 0, 0], [0, 9, 0], [0, 0, 1]]),
        head_bias=np.float32([0, 0, -0.5]),
    )


def segmenter_of_brightness(level=200):
    """Pixels brighter than `level` are tumor."""
    nodes = [
        node("Greater", [SLICE, "level"], "bright"),
        node("Cast", ["bright"], PROBABILITY, to=TensorProto.FLOAT),
    ]
    return model(nodes, [plane(SLICE)], [plane(PROBABILITY)], level=np.float32(level))


def classifier_of_glioma():
    """Every tumor is a glioma, and every box is the same."""
    nodes = [
        node("ReduceMax", [PROBABILITY, "axes"], "most", keepdims=0),
        node("ReduceMin", [SLICE, "axes"], "least", keepdims=0),
        node("Add", ["most", "least"], "sum"),
        node("Mul", ["sum", "zero"], "nothing"),
        node("Add", ["nothing", "probabilities"], CLASS_PROBABILITY),
        node("Add", ["nothing", "edges"], BOX),
    ]
    return model(
        nodes,
        [plane(SLICE), plane(PROBABILITY)],
        [vector(CLASS_PROBABILITY, 3), vector(BOX, 4)],
        axes=np.array([2, 3]),
        zero=np.float32([[0]]),
        probabilities=np.float32([[0.02, 0.97, 0.01]]),
        edges=np.float32([[100, 50, 200, 250]]),
    )


def write_models(folder: Path, **graphs):
    """Write the two graphs, or those passed by name, and their manifest models.json."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {}
    for name, graph in {"segmenter": segmenter(), "classifier": classifier(), **graphs}.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(graph if isinstance(graph, bytes) else graph.SerializeToString())
        table[name] = {"sha256": sha256_of(path)}
    (folder / "models.json").write_text(json.dumps(table))
    return folder
