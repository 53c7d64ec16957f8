"""The builder, with the real TensorRT-RTX: errors, progress and Ctrl-C."""

import os

import onnx
import pytest
import tiny_models
from onnx import TensorProto
from tiny_models import node

from build_engines.builder import build_engine, load_timing_cache
from build_engines.fp16 import convert_to_fp16
from build_engines.progress import Phases
from cascade.errors import CascadeError
from cascade.runtime.models import find_model
from cascade.runtime.sidecar import BatchProfile


def test_the_parsers_message_about_an_unknown_operator_is_passed_on(tensorrt):
    graph = tiny_models.model([node("StringNormalizer", ["words"], "out")], [words("words")], [words("out")])
    with pytest.raises(CascadeError, match=r"could not read the graph: .*StringNormalizer_out"):
        build_engine(tensorrt, graph.SerializeToString(), BatchProfile())


def words(name):
    return onnx.helper.make_tensor_value_info(name, TensorProto.STRING, [1])


def test_an_fp32_graph_is_rejected(tensorrt):
    with pytest.raises(CascadeError, match="CONVOLUTION Conv_conv is not fp16"):
        build_engine(tensorrt, tiny_models.segmenter().SerializeToString(), BatchProfile())


class ConfigOfThisGpu:
    """The timing caches of an IBuilderConfig, which accepts empty ones and b"fits"."""

    def create_timing_cache(self, content):
        return None if content == b"damaged" else content

    def set_timing_cache(self, cache, ignore_mismatch):
        return cache in (b"", b"fits") or ignore_mismatch


@pytest.mark.parametrize(
    ("there", "used"), [(None, b""), (b"fits", b"fits"), (b"damaged", b""), (b"measured on another GPU", b"")]
)
def test_an_incompatible_timing_cache_is_replaced_by_an_empty_one(tmp_path, there, used):
    path = tmp_path / "tensorrt.timing"
    if there is not None:
        path.write_bytes(there)
    assert load_timing_cache(ConfigOfThisGpu(), path) == used


def test_a_build_reports_its_progress(tensorrt):
    fractions = []
    graph = convert_to_fp16(tiny_models.segmenter()).SerializeToString()
    build_engine(tensorrt, graph, BatchProfile(), capabilities=["8.6"], on_progress=fractions.append)
    assert fractions == sorted(fractions)
    assert len(fractions) > 10
    assert fractions[-1] == pytest.approx(1)


def test_ctrl_c_ends_a_build(tensorrt):
    def press(fraction):
        os.kill(os.getpid(), 2)

    with pytest.raises(KeyboardInterrupt):
        build_engine(
            tensorrt, convert_to_fp16(tiny_models.segmenter()).SerializeToString(), BatchProfile(), on_progress=press
        )


def test_nested_phases_divide_a_step():
    """Two steps, the first of which has four of its own: half of those four is a quarter."""
    phases = Phases()
    phases.start("outer", 2)
    phases.start("inner", 4)
    phases.complete_step("inner", 1)
    assert phases.fraction == 0.25
    phases.finish("inner")
    phases.complete_step("outer", 0)
    assert phases.fraction == 0.5


def test_the_engine_of_the_bundled_segmenter_is_built_ahead_of_time(tensorrt, tmp_path):
    graph = find_model("segmenter")
    built = build_engine(
        tensorrt, convert_to_fp16(onnx.load(graph.path)).SerializeToString(), BatchProfile(), capabilities=["8.6"]
    )
    assert 6e6 < len(built.serialized) < 20e6
    assert sum(layer.type == "CONVOLUTION" for layer in built.layers) == 93  # of the network 92, and what enlarges
