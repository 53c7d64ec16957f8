"""The precision of engines is read from TensorRT's reports, and FP32 where FP16 is expected is rejected."""

import json
from types import SimpleNamespace

import pytest

from build_engines.precision import check_engine, check_network, count_layers, engine_layers
from cascade.errors import CascadeError
from cascade.runtime.sidecar import Layer

CONVOLUTION = Layer("conv", "CONVOLUTION", ["fp16"], ["fp16"])
TENSORRT = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON="json"))


def engine_that_reports(*layers):
    """The inspector of an ICudaEngine."""
    report = json.dumps({"Layers": layers})
    return SimpleNamespace(
        create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda format_: report)
    )


def test_a_network_of_fp16_layers_and_fp32_sums_is_accepted():
    check_network(
        [CONVOLUTION, Layer("sum", "REDUCE", ["fp32"], ["fp32"]), Layer("size", "SHAPE", ["fp16"], ["int64"])]
    )


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ([Layer("conv", "CONVOLUTION", ["fp32"], ["fp32"])], "CONVOLUTION conv is not fp16"),
        ([Layer("conv", "CONVOLUTION", ["fp16"], ["fp32"])], "CONVOLUTION conv is not fp16"),
        ([CONVOLUTION, Layer("last", "MATRIX_MULTIPLY", ["bf16"], ["bf16"])], "MATRIX_MULTIPLY last is not fp16"),
        ([CONVOLUTION, Layer("sum", "REDUCE", ["fp16"], ["fp16"])], "REDUCE sum is not fp32"),
        ([CONVOLUTION, Layer("crop", "GRID_SAMPLE", ["fp32", "fp16"], ["fp32"])], "GRID_SAMPLE crop is not fp32"),
        ([], "no layer with weights"),
    ],
)
def test_any_other_network_is_rejected(layers, problem):
    with pytest.raises(CascadeError, match=problem):
        check_network(layers)


def test_layers_are_read_from_the_inspector_of_tensorrt_10():
    fp16 = {"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
    fp32 = {"Name": "y", "Format/Datatype": "Row major linear FP32"}
    kernel = {"Name": "conv + relu", "LayerType": "CaskConvolution", "Inputs": [fp32], "Outputs": [fp16]}
    layers = engine_layers(TENSORRT, engine_that_reports(kernel, "a kernel without detail"))
    assert layers == [Layer("conv + relu", "CaskConvolution", ["fp32"], ["fp16"])]
    assert check_engine(layers, ["conv"])


def test_layers_are_read_from_the_inspector_of_tensorrt_11():
    metadata = "[ONNX Layer: conv]\x1e[ONNX Layer: relu]"
    kernel = {
        "Name": "__myl_1",
        "LayerType": "kgen",
        "Inputs": [{"DataType": "Half"}],
        "Outputs": [{"DataType": "Half"}],
        "Metadata": metadata,
    }
    layers = engine_layers(TENSORRT, engine_that_reports(kernel))
    assert layers == [Layer(metadata, "kgen", ["fp16"], ["fp16"])]
    assert check_engine(layers, ["conv"])


def test_a_kernel_with_weights_in_fp32_is_rejected():
    kernel = Layer("conv + relu", "CaskConvolution", ["fp32"], ["fp32"])
    with pytest.raises(CascadeError, match=r"CaskConvolution conv \+ relu is not fp16"):
        check_engine([kernel], ["conv"])


def test_an_engine_without_layer_types_is_not_confirmed():
    opaque = {"Name": "{ForeignNode[conv...softmax]}", "LayerType": "Myelin", "Inputs": [], "Outputs": []}
    layers = engine_layers(TENSORRT, engine_that_reports(opaque, "conv"))
    assert not check_engine([*layers, Layer("sum", "kgen", ["fp32"], ["fp32"])], ["conv"])


def test_layers_are_counted_by_type_and_precision():
    layers = [CONVOLUTION, CONVOLUTION, Layer("sum", "REDUCE", ["fp32"], ["fp32"])]
    assert count_layers(layers) == {"CONVOLUTION fp16": 2, "REDUCE fp32": 1}
