"""The builder, with TensorRT-RTX for real: what it refuses, what it tells meanwhile, and how it ends."""

import os

import onnx
import pytest
import tiny_models
from onnx import TensorProto
from tiny_models import node

from build_engines.builder import build_plan, fitting_timing_cache
from build_engines.fp16 import to_fp16
from build_engines.progress import Phases
from cascade.errors import CascadeError
from cascade.runtime.engines import BatchProfile
from cascade.runtime.models import find_model


def test_what_the_parser_says_of_an_operator_it_does_not_know_is_told(tensorrt):
    graph = tiny_models.model([node("StringNormalizer", ["words"], "out")], [words("words")], [words("out")])
    with pytest.raises(CascadeError, match=r"could not read the graph: .*StringNormalizer_out"):
        build_plan(tensorrt, graph.SerializeToString(), BatchProfile())


def words(name):
    return onnx.helper.make_tensor_value_info(name, TensorProto.STRING, [1])


def test_an_fp32_graph_is_not_built_under_the_name_of_fp16(tensorrt):
    with pytest.raises(CascadeError, match="CONVOLUTION Conv_conv is not fp16"):
        build_plan(tensorrt, tiny_models.segmenter().SerializeToString(), BatchProfile())


class ConfigOfThisGpu:
    """An IBuilderConfig as far as timing caches go: takes empty ones, and b"fits" as measured here."""

    def create_timing_cache(self, content):
        return None if content == b"damaged" else content

    def set_timing_cache(self, cache, ignore_mismatch):
        return cache in (b"", b"fits") or ignore_mismatch


@pytest.mark.parametrize(
    ("there", "used"), [(None, b""), (b"fits", b"fits"), (b"damaged", b""), (b"measured on another GPU", b"")]
)
def test_a_timing_cache_that_does_not_fit_is_replaced_by_an_empty_one(tmp_path, there, used):
    path = tmp_path / "tensorrt.timing"
    if there is not None:
        path.write_bytes(there)
    assert fitting_timing_cache(ConfigOfThisGpu(), path) == used


def test_a_build_tells_how_far_it_is(tensorrt):
    told = []
    graph = to_fp16(tiny_models.segmenter()).SerializeToString()
    build_plan(tensorrt, graph, BatchProfile(), capabilities=["8.6"], report=told.append)
    assert told == sorted(told)
    assert len(told) > 10
    assert told[-1] == pytest.approx(1)


def test_ctrl_c_ends_a_build(tensorrt):
    def press(share):
        os.kill(os.getpid(), 2)

    with pytest.raises(KeyboardInterrupt):
        build_plan(tensorrt, to_fp16(tiny_models.segmenter()).SerializeToString(), BatchProfile(), report=press)


def test_phases_within_phases_share_a_step():
    """Two steps, the first of four of its own: half of those four is a quarter."""
    phases = Phases()
    phases.start("outer", 2)
    phases.start("inner", 4)
    phases.step("inner", 1)
    assert phases.share == 0.25
    phases.finish("inner")
    phases.step("outer", 0)
    assert phases.share == 0.5


def test_the_engine_of_the_shipped_segmenter_is_built_ahead_of_time(tensorrt, tmp_path):
    graph = find_model("segmenter")
    built = build_plan(
        tensorrt, to_fp16(onnx.load(graph.path)).SerializeToString(), BatchProfile(), capabilities=["8.6"]
    )
    assert 6e6 < len(built.plan) < 20e6
    assert sum(layer.type == "CONVOLUTION" for layer in built.layers) == 60  # of the network 59, and what enlarges
