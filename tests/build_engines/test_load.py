"""Only graphs with the inputs and outputs of the cascade's graphs are built."""

import numpy as np
import onnx
import pytest
import tiny_models
from tiny_models import node, plane, write_models

from build_engines.load import load_graph
from cascade.contract import PROBABILITY, SLICE
from cascade.errors import CascadeError
from cascade.runtime.models import find_model


def foreign(input_name=SLICE, output_name=PROBABILITY, batch="batch"):
    nodes = [node("Conv", [input_name, "one"], output_name)]
    one = np.ones((1, 1, 1, 1), np.float32)
    return tiny_models.model(nodes, [plane(input_name, batch)], [plane(output_name, batch)], one=one)


@pytest.mark.parametrize(
    ("graph", "problem"),
    [
        (foreign(input_name="image"), r"image \(any x 1 x 512 x 512\) float32, .* slice"),
        (foreign(output_name="logits"), r"logits \(.*\) float32, .* probability"),
        (foreign(batch=2), r"slice \(2 x 1 x 512 x 512\) float32"),
        (b"no graph at all", "not a valid ONNX graph"),
        (tiny_models.segmenter().SerializeToString()[:-200], "not a valid ONNX graph"),
    ],
    ids=["other input", "other output", "fixed batch", "no graph", "cut short"],
)
def test_a_graph_with_other_inputs_or_outputs_is_rejected(tmp_path, graph, problem):
    models = write_models(tmp_path, segmenter=graph)
    with pytest.raises(CascadeError, match=problem) as error:
        load_graph("segmenter", find_model("segmenter", models))
    assert "cascade train export" in error.value.fix


@pytest.mark.parametrize("name", ["segmenter", "classifier"])
def test_the_bundled_graphs_are_accepted(name):
    assert isinstance(load_graph(name, find_model(name)), onnx.ModelProto)
