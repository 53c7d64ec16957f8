"""A backend runs any graph: here one that adds two arrays, of any batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from cascade.backends import BACKENDS, open_graph
from cascade.errors import CascadeError


@pytest.fixture
def adding_graph(tmp_path):
    """An ONNX file of `total` = `a` + `b` and `twice` = `a` + `a`, all (N, 2) float32."""
    shape = ["batch", 2]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["a", "b"], ["total"]), onnx.helper.make_node("Add", ["a", "a"], ["twice"])],
        "adding",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "ab"],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("total", "twice")],
    )
    path = tmp_path / "adding.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_takes_named_arrays_and_gives_named_arrays(adding_graph, batch):
    a = np.arange(2 * batch, dtype=np.float32).reshape(batch, 2)
    found = open_graph(adding_graph, "onnxruntime").run(b=10 * a, a=a)
    assert set(found) == {"total", "twice"}
    assert found["total"].tolist() == (11 * a).tolist()
    assert found["twice"].tolist() == (2 * a).tolist()
    assert found["total"].dtype == np.float32


def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    for path in (tmp_path / "broken.onnx", tmp_path / "nowhere.onnx"):
        with pytest.raises(CascadeError, match=f"{path.name}: ONNX Runtime cannot load it"):
            open_graph(path, "onnxruntime")


def test_an_unknown_backend_names_those_there_are(adding_graph):
    with pytest.raises(CascadeError, match="there is no backend 'abacus'") as raised:
        open_graph(adding_graph, "abacus")
    assert all(name in raised.value.fix for name in BACKENDS)
