"""Runtimes execute a graph with named arrays, and `open_backend` selects one. The graphs here add two arrays."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from tiny_models import write_models

from cascade.contract import Box
from cascade.errors import CascadeError
from cascade.runtime import cpu, gpu, openvino, select, tensorrt
from cascade.runtime.cpu import CpuBackend
from cascade.runtime.gpu import Gpu
from cascade.runtime.models import find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from cascade.runtime.select import BACKENDS, open_backend

ROOT = Path(__file__).parents[2]


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


def test_telemetry_of_onnx_runtime_is_off(tmp_path):
    """Its telemetry sent their names and hashes, and left files in the home and temporary folders, except under CI."""
    models = write_models(tmp_path / "models")
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    folders = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(tmp_path / "empty"))
    (tmp_path / "empty").mkdir()
    program = (
        "from cascade.runtime.select import *; from pathlib import Path; open_backend('onnxruntime', Path('models'))"
    )
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=models.parent, env=kept | folders | {"PYTHONPATH": str(ROOT)}, check=True)
    assert list((tmp_path / "empty").iterdir()) == []


def test_importing_the_runtime_changes_nothing_outside_it():
    """It set an environment variable and switched telemetry off, in any program that imported the library."""
    program = (
        "import os, sys; before = dict(os.environ); import cascade.pipeline, cascade.runtime.onnxruntime;"
        "print(before == dict(os.environ), 'onnxruntime' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment | {"PYTHONPATH": str(ROOT)})
    assert printed.split() == [b"True", b"False"]


def openvino_graph(path, precision="f32"):
    core = pytest.importorskip("openvino").Core()
    return openvino.OpenVinoGraph(core, path, precision)


def openvino_bf16_graph(path):
    return openvino_graph(path, "bf16")


@pytest.mark.parametrize(
    ("cause", "raised", "problem"),
    [(KeyboardInterrupt(), KeyboardInterrupt, ""), (OSError(), CascadeError, "OpenVINO cannot be imported")],
)
def test_an_interrupt_during_the_import_of_openvino_ends_the_command(monkeypatch, tmp_path, cause, raised, problem):
    """Its extension module makes an ImportError of Ctrl-C: the run went on with another backend."""

    def fail(name, *arguments):
        if name == "openvino":
            raise ImportError("initialization failed") from cause
        return real(name, *arguments)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(raised, match=problem):
        openvino.open_openvino(None, None)


def test_openvino_may_run_its_threads_on_any_core(adding_graph):
    """Pinned to a core that another program kept busy, they made it 10 to 40 times as slow."""
    ((_, compiled, _),) = openvino_graph(adding_graph)._stages
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


@pytest.mark.parametrize("load", [OnnxRuntimeGraph, openvino_graph, openvino_bf16_graph])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_graph_maps_named_arrays_to_named_arrays(adding_graph, load, batch):
    a = np.arange(2 * batch, dtype=np.float32).reshape(batch, 2)
    outputs = load(adding_graph).run(b=10 * a, a=a)
    assert set(outputs) == {"total", "twice"}
    assert outputs["total"].tolist() == (11 * a).tolist()
    assert outputs["twice"].tolist() == (2 * a).tolist()
    assert outputs["total"].dtype == np.float32


@pytest.mark.parametrize("load", [OnnxRuntimeGraph, openvino_graph])
def test_outputs_are_not_overwritten_by_the_next_run(adding_graph, load):
    """Some runtimes return memory that they reuse."""
    graph, ones = load(adding_graph), np.ones((1, 2), np.float32)
    first = graph.run(a=ones, b=ones)
    graph.run(a=5 * ones, b=5 * ones)
    assert first["total"].tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("load", [OnnxRuntimeGraph, openvino_graph])
def test_a_file_that_is_not_a_graph_is_an_error_that_names_it(tmp_path, load):
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    for path in (tmp_path / "broken.onnx", tmp_path / "nowhere.onnx"):
        with pytest.raises(CascadeError, match=rf"{path.name}: (ONNX Runtime|OpenVINO) cannot load it"):
            load(path)


@pytest.mark.parametrize("first", ["half", "doubled"])
def test_openvino_keeps_nodes_before_the_networks_in_fp32(tmp_path, first):
    """BF16 has 8 bits of mantissa: 1000.5 would become 1000, and the input of the convolutions 0.

    Of two networks on the same planes one doubles them before its convolution.
    """
    a, same, total = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 1, 2, 2])
        for name in ("a", "same", "total")
    )
    networks = {
        "half": [onnx.helper.make_node("Conv", ["planes", "weight"], ["half"])],
        "doubled": [
            onnx.helper.make_node("Add", ["planes", "planes"], ["sum"]),
            onnx.helper.make_node("Conv", ["sum", "weight"], ["doubled"]),
        ],
    }
    nodes = [
        onnx.helper.make_node("Identity", ["a"], ["same"]),
        onnx.helper.make_node("Add", ["a", "offset"], ["far"]),
        onnx.helper.make_node("AveragePool", ["far"], ["pooled"], kernel_shape=[1, 1]),
        onnx.helper.make_node("Sub", ["pooled", "offset"], ["planes"]),
        *networks.pop(first),
        *networks.popitem()[1],
        onnx.helper.make_node("Add", ["half", "doubled"], ["total"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.float32([1000]), "offset"),
        onnx.numpy_helper.from_array(np.full((1, 1, 1, 1), 0.5, np.float32), "weight"),
    ]
    graph = onnx.helper.make_graph(nodes, "there and back", [a], [total, same], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "graph.onnx")
    slices = np.float32([[[[0.5, 1.5], [2.5, 3.5]]]])
    outputs = openvino_bf16_graph(tmp_path / "graph.onnx").run(a=slices)
    assert list(outputs) == ["total", "same"]
    assert outputs["total"].tolist() == (slices * 1.5).tolist()
    assert outputs["same"].tolist() == slices.tolist()


def test_only_slices_with_a_tumor_are_classified_and_the_others_get_zeros(constant_segmenter, constant_classifier):
    class TumorInThird(constant_segmenter):
        def run(self, **inputs):
            outputs = super().run(**inputs)
            outputs["probability"][:2] = 0.4
            return outputs

    classifier = constant_classifier((0.2, 0.7, 0.1), Box(1, 2, 3, 4))
    outputs = CpuBackend(TumorInThird(0.9), classifier).submit(np.zeros((3, 1, 512, 512), np.float32)).result()
    assert classifier.slices_seen == 1
    assert outputs.class_probability.tolist() == [[0, 0, 0], [0, 0, 0], np.float32([0.2, 0.7, 0.1]).tolist()]
    assert outputs.box.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]
    assert set(outputs.stages_ms) == {"segmenter", "classifier"}


class EchoSegmenter:
    """Returns as probability the slice itself."""

    def run(self, slice):
        return {"probability": slice.copy()}


class EchoClassifier:
    """Returns what it was given: the sum over the slice, the sum over the mask, and the mask's first pixel."""

    def run(self, slice, probability):
        sums = np.stack([array.sum((1, 2, 3)) for array in (slice, probability)], axis=1)
        first = probability.reshape(len(probability), -1).argmax(1)
        return {
            "class_probability": np.column_stack([sums, first]).astype(np.float32),
            "box": np.column_stack([sums, first, first]).astype(np.float32),
        }


def test_each_slice_is_classified_with_its_own_mask():
    """In a batch where some slices have no tumor, a mask must not move to another slice."""
    slices = np.zeros((5, 1, 512, 512), np.float32)
    tumors = {1: 3, 3: 7, 4: 11}  # slice → number of its tumor pixels; slices 0 and 2 have none
    for index, pixels in tumors.items():
        slices[index, 0, index, :pixels] = 1
    outputs = CpuBackend(EchoSegmenter(), EchoClassifier()).submit(slices).result()
    expected = [[0, 0, 0] if index not in tumors else [tumors[index]] * 2 + [512 * index] for index in range(5)]
    assert outputs.class_probability.tolist() == expected
    assert outputs.box.tolist() == [[*row, row[-1]] for row in expected]


def test_an_unknown_backend_is_an_error_that_lists_the_backends():
    with pytest.raises(CascadeError, match="'abacus'") as raised:
        open_backend("abacus")
    assert all(name in raised.value.fix for name in (*BACKENDS, "auto"))


@pytest.fixture
def only_onnxruntime(monkeypatch):
    """Simulate that no other runtime is installed."""
    for module in ("tensorrt", "tensorrt_rtx", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)


def test_auto_falls_back_to_onnxruntime_and_reports_why(only_onnxruntime):
    choice = open_backend("auto")
    assert choice.name == "onnxruntime"
    assert choice.backend.description.startswith("ONNX Runtime")
    assert list(choice.skipped_backends) == ["tensorrt", "tensorrt-rtx", "openvino"]
    assert all("is not installed" in reason for reason in choice.skipped_backends.values())


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx", "openvino"])
def test_a_named_backend_that_cannot_run_is_an_error_with_the_fix(only_onnxruntime, name):
    with pytest.raises(CascadeError, match="is not installed") as raised:
        open_backend(name)
    assert f"cascade-mri[{name}]" in raised.value.fix


def test_auto_takes_the_first_that_can_run(monkeypatch):
    tried = []

    def only_openvino_runs(name, graphs, engines, **options):
        tried.append(name)
        if name != "openvino":
            raise CascadeError(f"no {name} here", fix="none")
        return "a backend"

    monkeypatch.setattr(select, "_open", only_openvino_runs)
    choice = open_backend("auto")
    assert (choice.name, choice.backend) == ("openvino", "a backend")
    assert tried == ["tensorrt", "tensorrt-rtx", "openvino"]
    assert choice.skipped_backends == {"tensorrt": "no tensorrt here", "tensorrt-rtx": "no tensorrt-rtx here"}


def test_openvino_runs_without_being_faster_only_if_it_is_named(only_onnxruntime, monkeypatch, tmp_path):
    """Without BF16 it is no faster than ONNX Runtime, which auto then takes."""
    opened = []

    def open_openvino(segmenter, classifier, *, only_if_faster, threads):
        opened.append((only_if_faster, threads))
        return CpuBackend(None, None)

    monkeypatch.setattr(openvino, "open_openvino", open_openvino)
    models = write_models(tmp_path)
    open_backend("openvino", models, threads=2)
    open_backend("auto", models, threads=3)
    assert opened == [(False, 2), (True, 3)]


@pytest.mark.parametrize(
    ("capabilities", "precision", "if_only_faster"),
    [
        (["FP32", "BF16"], "bf16", nullcontext()),
        (["FP32", "INT8"], "f32", pytest.raises(CascadeError, match="no BF16")),
    ],
)
def test_openvino_computes_in_bf16_only_where_the_processor_can(
    monkeypatch, capabilities, precision, if_only_faster, tmp_path
):
    """Without BF16 it is no faster than ONNX Runtime, and refused where it must be."""
    installed, loaded = pytest.importorskip("openvino"), []
    core = SimpleNamespace(get_property=lambda device, name: capabilities)
    monkeypatch.setattr(installed, "Core", lambda: core)
    monkeypatch.setattr(openvino, "OpenVinoGraph", lambda core, path, *settings: loaded.append(settings))
    models = [find_model(name, write_models(tmp_path)) for name in ("segmenter", "classifier")]
    backend = openvino.open_openvino(*models, threads=3)
    assert loaded == 2 * [(precision, 3)]
    assert backend.description.endswith({"bf16": "CPU, BF16", "f32": "CPU, FP32"}[precision])
    with if_only_faster:
        openvino.open_openvino(*models, only_if_faster=True)


def test_the_time_of_each_stage_is_in_milliseconds(constant_segmenter, constant_classifier, monkeypatch):
    seconds = iter([1.0, 3.5, 4.0])
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: next(seconds))
    backend = CpuBackend(constant_segmenter(1.0), constant_classifier((1, 0, 0), Box(0, 0, 9, 9)))
    outputs = backend.submit(np.zeros((1, 1, 512, 512), np.float32)).result()
    assert outputs.stages_ms == {"segmenter": 2500, "classifier": 500}


@pytest.mark.parametrize(("threads", "option"), [(None, 0), (3, 3)])
def test_onnx_runtime_uses_as_many_threads_as_it_is_given(adding_graph, threads, option):
    """For ONNX Runtime, 0 means one thread per core."""
    assert OnnxRuntimeGraph(adding_graph, threads)._session.get_session_options().intra_op_num_threads == option


GPUS = [Gpu("NVIDIA RTX A4000", "8.6"), Gpu("NVIDIA H100", "9.0", 1)]


@pytest.mark.parametrize("name", ["auto", "tensorrt"])
def test_a_gpu_that_does_not_exist_is_an_error_even_where_auto_could_use_the_cpu(monkeypatch, tmp_path, name):
    monkeypatch.setattr(gpu, "find_gpus", lambda: GPUS)
    with pytest.raises(CascadeError, match="--device 2") as raised:
        open_backend(name, write_models(tmp_path), device=2)
    assert "1 (NVIDIA H100)" in raised.value.fix


def test_a_backend_on_the_cpu_refuses_a_gpu(tmp_path):
    with pytest.raises(CascadeError, match="--device 0: onnxruntime runs on the CPU"):
        open_backend("onnxruntime", write_models(tmp_path), device=0)


def test_auto_does_not_run_on_the_cpu_if_a_gpu_was_chosen(monkeypatch, tmp_path):
    """It did so silently: only that the GPU exists was checked, not that an engine runs on it."""

    def open_tensorrt(name, segmenter, classifier, engines, device):
        raise CascadeError(f"{name} is not installed", fix=f"install {name}")

    monkeypatch.setattr(gpu, "find_gpus", lambda: GPUS)
    monkeypatch.setattr(tensorrt, "open_tensorrt", open_tensorrt)
    models = write_models(tmp_path)
    with pytest.raises(CascadeError, match="--device 1") as raised:
        open_backend("auto", models, device=1)
    assert "tensorrt is not installed" in raised.value.problem
    assert "tensorrt-rtx is not installed" in raised.value.problem
    assert "install tensorrt-rtx" in raised.value.fix
    assert open_backend("auto", models).name in ("openvino", "onnxruntime")


def test_the_number_of_the_gpu_reaches_tensorrt(monkeypatch, tmp_path):
    opened = []

    def open_tensorrt(name, segmenter, classifier, engines, device):
        opened.append((name, device))
        return CpuBackend(None, None)

    monkeypatch.setattr(gpu, "find_gpus", lambda: GPUS)
    monkeypatch.setattr(tensorrt, "open_tensorrt", open_tensorrt)
    models = write_models(tmp_path)
    open_backend("tensorrt-rtx", models, device=1)
    open_backend("auto", models, device=1)
    open_backend("tensorrt", models)
    assert opened == [("tensorrt-rtx", 1), ("tensorrt", 1), ("tensorrt", None)]
