"""FLOPs and memory traffic of small graphs, counted by hand and by cascade/benchmarking/flops.py."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_models import model

from cascade.benchmarking.flops import GraphCost, count_cost
from cascade.errors import CascadeError


@pytest.fixture
def save_graph(tmp_path):
    """save_graph(nodes, input shape, output shape, weights) → path of an ONNX file."""

    def save(nodes, given, output, **weights):
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("x", given), ("y", output))
        ]
        path = tmp_path / "tiny.onnx"
        onnx.save(model(nodes, ends[:1], ends[1:], **weights), path)
        return path

    return save


def test_a_convolution_has_two_flops_per_weight_and_position(save_graph):
    """3 x 3 over 4 channels to 5, a 6 x 8 plane: 5 · 6 · 8 outputs of 4 · 9 products; weights stored as FP16."""
    nodes = [
        helper.make_node("Cast", ["w_fp16"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = {"w_fp16": np.zeros((5, 4, 3, 3), np.float16), "b": np.zeros(5, np.float32)}
    path = save_graph(nodes, ["batch", 4, 6, 8], ["batch", 5, 6, 8], **weights)
    assert count_cost(path) == GraphCost(
        flops=2 * (5 * 6 * 8) * (4 * 9), weights=5 * 4 * 9 + 5, activations=4 * 6 * 8 + 5 * 6 * 8
    )


def test_groups_and_strides_reduce_the_flops_of_a_convolution(save_graph):
    """Depthwise, 3 x 3, every second row and column of 8 x 8: 4 · 4 · 4 outputs of 9 products."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], group=4, strides=[2, 2])
    path = save_graph([node], ["batch", 4, 8, 8], ["batch", 4, 4, 4], w=np.zeros((4, 1, 3, 3), np.float32))
    assert count_cost(path).flops == 2 * (4 * 4 * 4) * 9


def test_a_transposed_convolution_has_two_flops_per_input_and_weight(save_graph):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    path = save_graph([node], ["batch", 4, 8, 8], ["batch", 3, 16, 16], w=np.zeros((4, 3, 2, 2), np.float32))
    assert count_cost(path).flops == 2 * (4 * 8 * 8) * (3 * 2 * 2)


@pytest.mark.parametrize(("kind", "shape", "settings"), [("Gemm", (3, 7), {"transB": 1}), ("MatMul", (7, 3), {})])
def test_a_matrix_product_has_two_flops_per_output_and_inner_index(save_graph, kind, shape, settings):
    node = helper.make_node(kind, ["x", "w"], ["y"], **settings)
    path = save_graph([node], ["batch", 7], ["batch", 3], w=np.zeros(shape, np.float32))
    assert count_cost(path) == GraphCost(flops=2 * 7 * 3, weights=21, activations=10)


def test_traffic_counts_weights_once_a_batch_and_activations_once_a_slice():
    assert GraphCost(0, weights=100, activations=10).bytes_moved(batch_size=8, bytes_per_number=2) == 2 * (100 + 80)


def test_without_onnx_the_error_names_the_extra_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CascadeError, match="package onnx") as raised:
        count_cost(tmp_path / "any.onnx")
    assert "cascade-mri[benchmark]" in raised.value.fix
