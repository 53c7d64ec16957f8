"""The network is converted to FP16, the pixel arithmetic is not, and the converted graph computes the same."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from tiny_models import classifier, model, node, plane, segmenter, vector

from build_engines.check_slices import simulated_check_slices
from build_engines.fold import fold_batch_normalization, fold_constants
from build_engines.fp16 import WEIGHTED, check_fp16, convert_to_fp16, element_types
from build_engines.gate import LIMITS, check_accuracy, compute_reference
from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE, SLICE_SIZE
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS, find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from cascade.runtime.sidecar import BatchProfile

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def run(graph, **inputs):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, inputs), strict=True))


def two_layers(*between, **constants):
    """Conv, the nodes `between` from `a` to `b`, and Conv. Both layers multiply by 1."""
    nodes = [node("Conv", [SLICE, "one"], "a"), *between, node("Conv", ["b", "one"], PROBABILITY)]
    return model(nodes, [plane(SLICE)], [plane(PROBABILITY)], one=np.ones((1, 1, 1, 1), np.float32), **constants)


def types_by_kind(graph):
    types = element_types(graph)
    return {(item.op_type, types[item.output[0]]) for item in graph.graph.node}


def test_layers_with_weights_and_nodes_between_them_are_fp16_and_all_others_fp32():
    kinds = types_by_kind(convert_to_fp16(segmenter()))
    assert {kind for kind, type_ in kinds if type_ == HALF} == {"Cast", "Conv", "Relu"}
    pixel_arithmetic = {"AveragePool", "ReduceMean", "ReduceSum", "Sub", "Mul", "Sqrt", "Div", "Resize", "Sigmoid"}
    assert {kind for kind, type_ in kinds if type_ == FLOAT} == {"Cast", *pixel_arithmetic}


def test_a_mean_inside_the_network_is_fp32_with_a_cast_on_either_side():
    nodes = list(convert_to_fp16(classifier()).graph.node)
    makers = {name: item for item in nodes for name in item.output}
    mean = next(item for item in nodes if item.op_type == "ReduceMean")
    assert makers[mean.input[0]].op_type == "Cast"
    (reader,) = [item for item in nodes if mean.output[0] in item.input]
    assert reader.op_type == "Cast"


def test_all_readers_of_a_tensor_share_one_cast():
    graph = convert_to_fp16(two_layers(node("Add", ["a", "a"], "sum"), node("Add", ["sum", "a"], "b")))
    assert Counter(item.op_type for item in graph.graph.node)["Cast"] == 2  # one in, one out


def test_a_comparison_ends_the_network_so_that_a_box_between_two_networks_is_fp32():
    graph = two_layers(
        node("Greater", ["a", "zero"], "is_tumor"),
        node("Cast", ["is_tumor"], "mask", to=FLOAT),
        node("Add", ["mask", "mask"], "b"),
        zero=np.float32(0),
    )
    assert ("Add", FLOAT) in types_by_kind(convert_to_fp16(graph))


def test_the_scales_of_a_resize_stay_fp32():
    graph = convert_to_fp16(two_layers(node("Resize", ["a", "", "same"], "b"), same=np.float32([1, 1, 1, 1])))
    (resize,) = [item for item in graph.graph.node if item.op_type == "Resize"]
    types = element_types(graph)
    assert (types[resize.input[0]], types[resize.input[2]]) == (HALF, FLOAT)


def test_batch_normalization_is_folded_into_the_layer_before_it():
    """2 x + 1, then 3 (y - 5) / sqrt(8 + 1) + 4, which is 2 x + 0."""
    nodes = [
        node("Conv", [SLICE, "weight", "bias"], "conv"),
        node("BatchNormalization", ["conv", "scale", "shift", "mean", "variance"], PROBABILITY, epsilon=1.0),
    ]
    constants = {"bias": [1], "scale": [3], "shift": [4], "mean": [5], "variance": [8]}
    graph = model(
        nodes,
        [plane(SLICE)],
        [plane(PROBABILITY)],
        weight=np.full((1, 1, 1, 1), 2, np.float32),
        **{name: np.float32(value) for name, value in constants.items()},
    ).graph
    fold_batch_normalization(graph)
    assert [item.op_type for item in graph.node] == ["Conv"]
    assert [numpy_helper.to_array(item).item() for item in graph.initializer] == [2, 0]


def test_weights_stored_in_fp16_do_not_change():
    graph = segmenter().graph
    fold_constants(graph)
    assert "Cast" not in {item.op_type for item in graph.node}
    (first,) = [item for item in graph.initializer if item.name == "first"]
    assert numpy_helper.to_array(first).tolist() == np.ones((4, 1, 1, 1)).tolist()


def test_intensities_whose_sum_exceeds_fp16_are_normalized_as_before():
    slices = np.full((2, 1, SLICE_SIZE, SLICE_SIZE), 1000, np.float32)
    slices[0, :, 100:200, 100:300] = 60000
    slices[1, :, 10:20, 10:20] = 1e9
    before, after = (
        run(graph, **{SLICE: slices})[PROBABILITY] for graph in (segmenter(), convert_to_fp16(segmenter()))
    )
    assert (before >= 0.5).sum((1, 2, 3)).tolist() == [102 * 202, 12 * 12]  # interpolation adds a pixel all around
    assert np.abs(after - before).max() < 0.002


def test_the_box_is_exact_to_the_pixel():
    mask = np.zeros((1, 1, SLICE_SIZE, SLICE_SIZE), np.float32)
    mask[:, :, 37:491, 3:509] = 1
    outputs = run(convert_to_fp16(classifier()), **{SLICE: mask, PROBABILITY: mask})
    assert outputs[BOX].tolist() == [[3, 37, 509, 491]]
    assert outputs[CLASS_PROBABILITY].sum() == pytest.approx(1, abs=1e-6)


def test_the_check_rejects_an_fp32_graph():
    with pytest.raises(CascadeError, match="Conv_conv is not FP16"):
        check_fp16(segmenter())


def test_a_graph_without_weights_is_rejected():
    with pytest.raises(CascadeError, match="no layer has weights"):
        convert_to_fp16(model([node("Sigmoid", [SLICE], PROBABILITY)], [plane(SLICE)], [plane(PROBABILITY)]))


def test_the_check_rejects_a_sigmoid_in_fp16():
    nodes = [
        node("Cast", [SLICE], "half", to=HALF),
        node("Conv", ["half", "one"], "conv"),
        node("Sigmoid", ["conv"], "squashed"),
        node("Cast", ["squashed"], PROBABILITY, to=FLOAT),
    ]
    graph = model(nodes, [plane(SLICE)], [plane(PROBABILITY)], one=np.ones((1, 1, 1, 1), np.float16))
    with pytest.raises(CascadeError, match="Sigmoid_squashed is not FP32"):
        check_fp16(graph)


def test_the_check_rejects_a_box_that_depends_on_fp16():
    nodes = [
        node("Gemm", ["edges", "one"], "moved"),
        node("Cast", ["moved"], "cast", to=FLOAT),
        node("Add", ["cast", "cast"], BOX),
    ]
    graph = model(nodes, [], [box_output()], edges=np.ones((1, 4), np.float16), one=np.ones((4, 4), np.float16))
    with pytest.raises(CascadeError, match="box depends on an FP16 value"):
        check_fp16(graph)


def box_output():
    return onnx.helper.make_tensor_value_info(BOX, FLOAT, [1, 4])


def test_the_check_rejects_an_output_in_fp16():
    nodes = [node("Cast", [SLICE], "half", to=HALF), node("Conv", ["half", "one"], PROBABILITY)]
    output = onnx.helper.make_tensor_value_info(PROBABILITY, HALF, ["batch", 1, SLICE_SIZE, SLICE_SIZE])
    with pytest.raises(CascadeError, match="probability is not FP32"):
        check_fp16(model(nodes, [plane(SLICE)], [output], one=np.ones((1, 1, 1, 1), np.float16)))


def test_a_weight_outside_the_range_of_fp16_is_an_error_that_names_it():
    graph = two_layers(node("Mul", ["a", "large"], "b"), large=np.float32(70000))
    with pytest.raises(CascadeError, match="large contains 70000"):
        convert_to_fp16(graph)


def test_the_original_graph_is_not_modified():
    graph = classifier()
    before = graph.SerializeToString()
    convert_to_fp16(graph)
    assert graph.SerializeToString() == before


def test_a_last_layer_with_weights_still_outputs_fp32():
    nodes = [node("ReduceMean", [SLICE, "axes"], "mean", keepdims=0), node("Gemm", ["mean", "row"], CLASS_PROBABILITY)]
    graph = model(
        nodes, [plane(SLICE)], [vector(CLASS_PROBABILITY, 3)], axes=np.array([2, 3]), row=np.float32([[1, 2, 4]])
    )
    slices = np.ones((2, 1, SLICE_SIZE, SLICE_SIZE), np.float32)
    assert run(convert_to_fp16(graph), **{SLICE: slices})[CLASS_PROBABILITY].tolist() == [[1, 2, 4], [1, 2, 4]]


@pytest.fixture(scope="module")
def reference():
    return compute_reference(simulated_check_slices(), *(OnnxRuntimeGraph(path(name)) for name in LIMITS))


def path(name: str) -> Path:
    return find_model(name, BUNDLED_MODELS).path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weighted"), [("segmenter", 94), ("classifier", 103)])
def test_the_bundled_models_compute_the_same_in_fp16(name, weighted, reference, tmp_path):
    graph = convert_to_fp16(onnx.load(path(name)))
    assert sum(item.op_type in WEIGHTED for item in graph.graph.node) == weighted
    assert "BatchNormalization" not in {item.op_type for item in graph.graph.node}
    onnx.save(graph, tmp_path / "fp16.onnx")
    verified = check_accuracy(name, OnnxRuntimeGraph(tmp_path / "fp16.onnx"), "graph", reference, BatchProfile())
    assert verified.slices == 18


def test_the_check_rejects_a_sampling_grid_that_depends_on_fp16():
    graph = convert_to_fp16(onnx.load(path("classifier")))
    (sample,) = [item for item in graph.graph.node if item.op_type == "GridSample"]
    casts = [
        node("Cast", [sample.input[1]], "rough_half", to=HALF),
        node("Cast", ["rough_half"], "rough", to=FLOAT),
    ]
    at = list(graph.graph.node).index(sample)
    sample.input[1] = "rough"
    for item in reversed(casts):
        graph.graph.node.insert(at, item)
    with pytest.raises(CascadeError, match=r"GridSample .* depends on an FP16 value"):
        check_fp16(graph)
