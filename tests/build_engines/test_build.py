"""`cascade build` on two tiny graphs: real engines with TensorRT-RTX, which needs no GPU, and errors."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_models
from tiny_models import write_models

import build_engines.build
import build_engines.check_slices
import build_engines.target
from build_engines.build import BuildRequest, build_all
from build_engines.check_slices import simulated_check_slices
from cascade.cli import main
from cascade.contract import PROBABILITY, SLICE, SLICE_SIZE
from cascade.errors import CascadeError
from cascade.files import sha256_of
from cascade.runtime.engines import engine_path, find_engine, sidecar_path
from cascade.runtime.gpu import Gpu
from cascade.runtime.models import find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from cascade.runtime.sidecar import BatchProfile, EngineTensor, read_sidecar

RTX = "tensorrt-rtx"
ROOT = Path(__file__).parents[2]
A6000 = Gpu("NVIDIA RTX A6000", "8.6")


@pytest.fixture(scope="module", autouse=True)
def setting():
    """No GPU, and a few slices for the gate, generated once: all of them take longer than an engine of a tiny graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_engines.target, "find_gpu", lambda: None)
        patch.setattr(build_engines.check_slices, "SIMULATED", 2)
        patch.setattr(build_engines.check_slices, "FADED", 1)
        slices = simulated_check_slices()
        patch.setattr(build_engines.build, "simulated_check_slices", lambda: slices)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def built(tensorrt, models, tmp_path_factory):
    """Folder of both engines."""
    folder = tmp_path_factory.mktemp("engines")
    build_all(BuildRequest(models, folder, RTX))
    return folder


def request_for(models, out, **changes):
    return replace(BuildRequest(models, out, RTX), **changes)


def test_both_engines_match_their_sidecars(built, models, tensorrt):
    for name in ("segmenter", "classifier"):
        sidecar = find_engine(name, built, RTX, find_model(name, models)).sidecar
        assert sidecar.spec.tensorrt_version == tensorrt.__version__
        assert sidecar.spec.compute_capabilities == ["8.6", "8.9", "12.0"]
        assert sidecar.spec.gpu is None


def test_the_sidecar_lists_the_shapes_of_inputs_and_outputs(built):
    sidecar = read_sidecar(sidecar_path("classifier", built, RTX))
    plane_ = [1, SLICE_SIZE, SLICE_SIZE]
    assert sidecar.inputs == [
        EngineTensor(name, "float32", [1, *plane_], [8, *plane_], [64, *plane_]) for name in (SLICE, PROBABILITY)
    ]
    assert [(item.name, item.dtype, item.max) for item in sidecar.outputs] == [
        ("class_probability", "float32", [64, 3]),
        ("box", "float32", [64, 4]),
    ]


def test_the_sidecar_lists_the_precision_of_every_layer(built):
    sidecar = read_sidecar(sidecar_path("segmenter", built, RTX))
    assert sidecar.layers_of == "network"
    assert sidecar.precision["CONVOLUTION fp16"] == 2
    assert sidecar.precision["REDUCE fp32"] == 2
    assert not {key for key in sidecar.precision if key in ("CONVOLUTION fp32", "REDUCE fp16")}
    assert sum(sidecar.precision.values()) == len(sidecar.layers)


def test_where_no_engine_can_run_the_gate_checks_the_fp16_graph_and_the_sidecar_records_it(built):
    verified = read_sidecar(sidecar_path("segmenter", built, RTX)).verified
    assert verified.ran == "FP16 graph on the CPU"
    assert verified.source == "3 simulated slices"
    assert verified.results["min_dice"] >= verified.limits["min_dice"]


def test_an_up_to_date_engine_is_not_built_again(built, models):
    before = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    assert [result.built for result in build_all(request_for(models, built))] == [False, False]
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == before


@pytest.fixture
def engines(built, tmp_path):
    """A copy of the built engines that a test may modify."""
    for path in built.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [{"archs": ("sm86",)}, {"batches": BatchProfile(1, 2, 4)}, {"force": True}],
    ids=lambda change: next(iter(change)),
)
def test_changed_options_build_again(engines, models, change):
    assert [result.built for result in build_all(request_for(models, engines, **change))] == [True, True]


def test_only_the_graph_that_changed_is_built_again(engines, models, tmp_path_factory):
    graph = tiny_models.segmenter()
    graph.graph.initializer[-2].raw_data = np.float32([-0.25]).tobytes()  # the bias of the last layer
    changed = write_models(tmp_path_factory.mktemp("changed"), segmenter=graph)
    assert [result.built for result in build_all(request_for(changed, engines))] == [True, False]


def test_another_version_of_tensorrt_builds_again(engines, models, tensorrt, monkeypatch):
    monkeypatch.setattr(tensorrt, "__version__", "99.0")
    assert all(result.built for result in build_all(request_for(models, engines)))


def test_a_truncated_engine_is_built_again(engines, models):
    os.truncate(engine_path("classifier", engines, RTX), 100)
    assert [result.built for result in build_all(request_for(models, engines))] == [False, True]
    find_engine("classifier", engines, RTX, find_model("classifier", models))


def test_new_check_slices_run_the_gate_again(engines, models):
    checked = request_for(models, engines, check=[ROOT / "samples" / "axial_meningioma_1.png"])
    assert [result.built for result in build_all(checked)] == [True, True]
    assert [result.built for result in build_all(checked)] == [False, False]
    source = read_sidecar(sidecar_path("segmenter", engines, RTX)).verified.source
    assert source == "1 of 1 slices given by --verify-slices"


def test_a_full_disk_is_an_error_and_an_incomplete_pair_is_rejected(engines, models, monkeypatch):
    """The disk is full after the first engine is written, before its sidecar is."""
    calls, fsync = [], os.fsync

    def fills_up(descriptor):
        calls.append(descriptor)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(CascadeError, match=r"segmenter\.tensorrt-rtx\.json: cannot be written \(No space left"):
        build_all(request_for(models, engines, batches=BatchProfile(1, 2, 4)))
    with pytest.raises(CascadeError, match=r"segmenter.* does not match its sidecar"):
        find_engine("segmenter", engines, RTX, find_model("segmenter", models))
    assert not list(engines.glob(".writing-*"))
    find_engine("classifier", engines, RTX, find_model("classifier", models))  # as it was


def test_the_gate_checks_an_engine_that_can_run_here(engines, models, monkeypatch, tensorrt):
    """The GPU is simulated, and ONNX Runtime replaces the engine."""
    kernel = {"Name": "k", "Metadata": "[ONNX Layer: Conv_conv]\x1e[ONNX Layer: Conv_logits]", "LayerType": "kgen"}
    tensors = {"Inputs": [{"DataType": "Half"}], "Outputs": [{"DataType": "Half"}]}
    gemm = {**kernel, **tensors, "Metadata": "[ONNX Layer: Gemm_logits]"}
    report = json.dumps({"Layers": [{**kernel, **tensors}, gemm]})
    engine = SimpleNamespace(
        create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda kind: report)
    )
    monkeypatch.setattr(build_engines.target, "find_gpu", lambda: A6000)
    monkeypatch.setattr(build_engines.build, "load_engine", lambda module, serialized: engine)

    def load(name, serialized):
        return OnnxRuntimeGraph(models / f"{name}.onnx")

    assert [result.built for result in build_all(request_for(models, engines), engine_loader=load)] == [True, True]
    sidecar = read_sidecar(sidecar_path("segmenter", engines, RTX))
    assert (sidecar.verified.ran, sidecar.layers_of, sidecar.precision) == ("engine", "engine", {"kgen fp16": 2})
    assert [result.built for result in build_all(request_for(models, engines), engine_loader=load)] == [False, False]


def test_an_engine_for_other_gpus_is_not_run(tmp_path, models, monkeypatch, tensorrt, forbidden):
    monkeypatch.setattr(build_engines.target, "find_gpu", lambda: Gpu("NVIDIA H100", "9.0"))
    results = build_all(request_for(models, tmp_path), engine_loader=lambda name, serialized: forbidden)
    assert {result.engine.sidecar.verified.ran for result in results} == {"FP16 graph on the CPU"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Timing cache:DeprecationWarning")
def test_tensorrt_builds_for_one_gpu_and_keeps_its_timings(tmp_path, models, monkeypatch, tensorrt):
    """TensorRT-RTX, whose API is the same, replaces TensorRT, and the GPU is simulated."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr(build_engines.target, "find_gpu", lambda: A6000)
    engine = SimpleNamespace(
        create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda kind: '{"Layers": ["kernel"]}')
    )
    monkeypatch.setattr(build_engines.build, "load_engine", lambda module, serialized: engine)
    here = request_for(models, tmp_path, flavor="tensorrt")
    assert [result.built for result in build_all(here)] == [True, True]
    sidecar = read_sidecar(sidecar_path("segmenter", tmp_path, "tensorrt"))
    assert (sidecar.spec.gpu, sidecar.spec.compute_capabilities) == (A6000.name, ["8.6"])
    assert sidecar.layers_of == "network"  # since the engine told nothing
    assert (tmp_path / f"tensorrt-{tensorrt.__version__}.timing").is_file()
    assert [result.built for result in build_all(here)] == [False, False]
    monkeypatch.setattr(build_engines.target, "find_gpu", lambda: Gpu("NVIDIA GeForce RTX 3090", "8.6"))
    assert [result.built for result in build_all(here)] == [True, True]


def test_an_engine_that_fails_the_gate_is_not_written(tmp_path, models, monkeypatch, tensorrt, constant_segmenter):

    def load(path):
        return OnnxRuntimeGraph(path) if path.parent == models else constant_segmenter(0.9)  # the reference stays

    monkeypatch.setattr(build_engines.build, "OnnxRuntimeGraph", load)
    with pytest.raises(CascadeError, match="segmenter differs too much from its ONNX graph"):
        build_all(request_for(models, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_does_not_match_the_manifest_is_rejected(tmp_path, tensorrt):
    models = write_models(tmp_path / "models")
    os.truncate(models / "classifier.onnx", 500)
    with pytest.raises(CascadeError, match=r"classifier\.onnx: .*manifest"):
        build_all(request_for(models, tmp_path / "engines"))


@pytest.mark.parametrize("batches", [BatchProfile(8, 4, 64), BatchProfile(1, 65, 64), BatchProfile(0, 1, 1)])
def test_invalid_batch_sizes_are_rejected(tmp_path, models, batches):
    with pytest.raises(CascadeError, match="invalid batch sizes") as error:
        build_all(request_for(models, tmp_path, batches=batches))
    assert error.value.fix == "choose 1 <= --min-batch <= --opt-batch <= --max-batch"


def test_the_command_builds_prints_a_table_and_can_be_repeated(tensorrt, models, tmp_path, capsys):
    words_ = ["build", "--models", str(models), "--out", str(tmp_path), "--arch", "SM86, sm89", "--max-batch", "16"]
    for expected in ("segmenter", "unchanged"):
        with pytest.raises(SystemExit, match="0"):
            main(words_)
        assert expected in capsys.readouterr().err
    spec = read_sidecar(sidecar_path("segmenter", tmp_path, RTX)).spec
    assert (spec.compute_capabilities, spec.batches) == (["8.6", "8.9"], BatchProfile(1, 8, 16))


def test_the_command_prints_an_error_and_exits_with_1(models, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["build", "--models", str(models), "--out", str(tmp_path), "--min-batch", "9"])
    assert "invalid batch sizes" in capsys.readouterr().err


def test_building_loads_no_torch(tensorrt, models, tmp_path):
    words = ["build", "--models", str(models), "--out", str(tmp_path), "--arch", "sm86"]
    words += ["--verify-slices", str(ROOT / "samples" / "axial_meningioma_1.png")]
    code = f"import sys; from cascade.cli import main; main({words})"
    checked = f"try:\n {code}\nexcept SystemExit: print('torch' in sys.modules)"
    completed = subprocess.run([sys.executable, "-c", checked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert completed.stdout.split() == ["False"]


def test_the_hash_in_the_sidecar_is_that_of_the_engine(built):
    sidecar = read_sidecar(sidecar_path("segmenter", built, RTX))
    assert sidecar.engine_sha256 == sha256_of(engine_path("segmenter", built, RTX))
