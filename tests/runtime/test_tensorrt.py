"""The TensorRT backend on a GPU made of NumPy, whose streams run as early or as late as possible.

Tests that need a GPU are in test_on_gpu.py.
"""

from __future__ import annotations

import gc
import importlib.util
import itertools
import sys
import weakref
from types import SimpleNamespace

import numpy_gpu
import pytest
from numpy_gpu import (
    INPUTS_AND_OUTPUTS,
    Context,
    CudaError,
    Device,
    Memory,
    Pycuda,
    check,
    reset,
    slices_of,
    tensorrt,
)

from cascade.errors import CascadeError
from cascade.runtime.engines import Engine, build_commands
from cascade.runtime.gpu import Gpu
from cascade.runtime.sidecar import BatchProfile, BuildCommands, BuildSpec
from cascade.runtime.tensorrt import SingleEngine, engine_loader, import_pycuda, open_tensorrt
from cascade.runtime.tensorrt_backend import TensorRtBackend


@pytest.fixture
def open_backend():
    """open_backend(smallest, largest, eager) → the backend; `eager` are numbers of upload, engines, download.

    profiles  the smallest and largest batch by engine, where they differ.
    """

    def open_backend(smallest=1, largest=4, eager=(), graphs=tuple(INPUTS_AND_OUTPUTS), profiles=None):
        reset(eager)
        profiles = profiles or dict.fromkeys(graphs, (smallest, largest))
        commands = BuildCommands("the same command", "one for smaller batches")
        return TensorRtBackend(tensorrt(profiles), Pycuda, {name: name.encode() for name in graphs}, commands=commands)

    yield open_backend
    assert Context.depth == 0


def execution(backend, name):
    (context,) = backend._engines[name]._contexts
    return context


ALL_WAYS = [eager for count in range(4) for eager in itertools.combinations(range(3), count)]


@pytest.mark.parametrize("eager", ALL_WAYS, ids=str)
def test_batches_in_flight_do_not_mix_whatever_the_order_of_the_streams(open_backend, eager):
    backend = open_backend(eager=eager)
    batches = [(1, 2, 3), (4, 5), (6,), (7, 8, 9, 10)]
    previous = None
    for batch, before in zip(batches, [None, *batches], strict=False):
        future = backend.submit(slices_of(*batch))
        if previous:
            check(previous.result(), before)
        previous = future
    check(previous.result(), batches[-1])


@pytest.mark.parametrize("eager", ALL_WAYS, ids=str)
def test_results_requested_late_and_in_any_order_are_complete(open_backend, eager):
    backend = open_backend(eager=eager)
    futures = {batch: backend.submit(slices_of(*batch)) for batch in [(1, 2), (3,), (4, 5, 6), (7,)]}
    for batch in sorted(futures, reverse=True):
        check(futures[batch].result(), batch)


def test_a_backend_is_freed_as_soon_as_nothing_refers_to_it(open_backend):
    """After a batch, only garbage collection freed its engines and buffers: a GPU has no room for two of them."""
    backend = open_backend()
    check(backend.submit(slices_of(1)).result(), (1,))
    alive = weakref.ref(backend)
    gc.disable()
    try:
        del backend
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("eager", [(), (0,), (0, 1, 2)], ids=str)
def test_a_batch_larger_than_the_engines_maximum_is_split(open_backend, eager):
    backend = open_backend(largest=2, eager=eager)
    before = backend.submit(slices_of(8, 9))
    outputs = backend.submit(slices_of(1, 2, 3, 4, 5)).result()
    check(outputs, (1, 2, 3, 4, 5))
    assert outputs.stages_ms == {"upload": 6.0, "segmenter": 6.0, "classifier": 6.0, "download": 6.0}  # 3 pieces of 2
    check(before.result(), (8, 9))


def test_a_batch_smaller_than_the_engines_minimum_is_padded(open_backend):
    backend = open_backend(smallest=3)
    check(backend.submit(slices_of(5)).result(), (5,))
    assert execution(backend, "segmenter").counts_seen == [3]


@pytest.mark.parametrize(
    "profiles", [{"segmenter": (2, 5), "classifier": (1, 3)}, {"segmenter": (1, 3), "classifier": (2, 5)}]
)
def test_batches_stay_within_the_profiles_of_both_engines(open_backend, profiles):
    backend = open_backend(profiles=profiles)
    check(backend.submit(slices_of(1, 2, 3, 4)).result(), (1, 2, 3, 4))
    assert execution(backend, "segmenter").counts_seen == [3, 2]


def test_engines_without_a_common_batch_size_are_rejected(open_backend):
    with pytest.raises(CascadeError, match="at least 8 slices, the other at most 4") as raised:
        open_backend(profiles={"segmenter": (8, 16), "classifier": (1, 4)})
    assert raised.value.fix == "build the engines again: the same command"


def test_a_gpu_with_too_little_memory_is_an_error_with_a_fix(open_backend, monkeypatch):
    monkeypatch.setattr(Memory, "room", 10**6)
    with pytest.raises(CascadeError, match="cuMemAlloc failed") as raised:
        open_backend()
    assert raised.value.fix.endswith("build for smaller batches: one for smaller batches")


def test_a_gpu_that_another_program_has_for_itself_is_not_out_of_memory(open_backend, monkeypatch):
    """The fix was to build smaller engines."""

    def retain(self):
        raise CudaError("cuDevicePrimaryCtxRetain failed: all CUDA-capable devices are busy or unavailable")

    monkeypatch.setattr(Device, "retain_primary_context", retain)
    with pytest.raises(CascadeError, match=r"the GPU cannot be used .*busy") as raised:
        open_backend()
    assert "choose another GPU" in raised.value.fix


def test_a_tensorrt_for_which_cuda_does_not_start_is_an_error_with_a_fix():
    """The bindings raise a TypeError there, which `--backend auto` did not expect."""

    def runtime(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt = tensorrt(dict.fromkeys(INPUTS_AND_OUTPUTS, (1, 4)))
    trt.Runtime = runtime
    with pytest.raises(CascadeError, match=r"tensorrt 11\.4 cannot start CUDA") as raised:
        TensorRtBackend(trt, Pycuda, {"segmenter": b"segmenter"})
    assert "make gpu" in raised.value.fix
    assert Context.depth == 0


def test_a_missing_execution_context_is_an_error(open_backend, monkeypatch):
    monkeypatch.setattr(numpy_gpu, "Execution", lambda *arguments: None)
    with pytest.raises(CascadeError, match="no execution context"):
        open_backend()


def test_the_commands_of_errors_build_for_the_same_gpu_and_folder(tmp_path):
    """They built for the first GPU, into the default folder."""
    spec = BuildSpec(
        "segmenter", "tensorrt-rtx", "1.7.1", None, ["8.6", "7.5"], "a" * 64, "b" * 64, BatchProfile(4, 16, 64)
    )
    commands = build_commands(spec, tmp_path, tmp_path / "my models", Gpu("NVIDIA GeForce RTX 2060", "7.5", 1))
    build = f"cascade build --flavor tensorrt-rtx --out {tmp_path} --models '{tmp_path}/my models' --arch sm75,sm86"
    build += " --device 1"
    assert commands.again == f"{build} --min-batch 4 --opt-batch 16 --max-batch 64 --force"
    assert commands.smaller == f"{build} --min-batch 1 --opt-batch 8 --max-batch 8"


def test_each_graph_runs_alone(open_backend):
    backend = open_backend(largest=2)
    assert backend.segment(slices_of(2, 4, 6))[:, 0, 0, 0].tolist() == [1, 2, 3]
    by_class, boxes = backend.classify(slices_of(2, 4, 6), slices_of(10, 20, 30))
    assert by_class.tolist() == [[2, 10, 1], [4, 20, 1], [6, 30, 1]]
    assert boxes.tolist() == [[1, 2, 3, 4]] * 3


def test_a_single_engine_runs_on_host_arrays_for_the_accuracy_gate(open_backend):
    backend = open_backend(graphs=("classifier",))
    outputs = SingleEngine("classifier", backend).run(slice=slices_of(2, 4), probability=slices_of(10, 20))
    assert outputs["class_probability"].tolist() == [[2, 10, 1], [4, 20, 1]]
    assert outputs["box"].tolist() == [[1, 2, 3, 4]] * 2


def test_memory_is_allocated_once(open_backend):
    backend = open_backend()
    for _ in range(3):
        backend.submit(slices_of(1, 2)).result()
    assert len(Memory.at) == 2 * len(INPUTS_AND_OUTPUTS["classifier"])


def test_a_failed_execution_raises_instead_of_returning_zeros(open_backend):
    backend = open_backend()
    execution(backend, "segmenter").execute_async_v3 = lambda handle: False
    with pytest.raises(RuntimeError, match="could not run the segmenter on 2 slices"):
        backend.submit(slices_of(1, 2))


def test_without_pycuda_there_is_no_engine_loader_and_no_error(monkeypatch):
    monkeypatch.setattr("cascade.runtime.tensorrt.find_gpu", lambda device: Gpu("NVIDIA H100", "9.0"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert engine_loader("tensorrt-rtx") is None


def test_the_engine_loader_loads_on_the_chosen_gpu_and_there_is_none_for_a_gpu_that_does_not_exist(monkeypatch):
    reset()
    trt = tensorrt({"segmenter": (1, 4)})
    gpus = [Gpu("Tesla T4", "7.5"), Gpu("NVIDIA RTX A4000", "8.6", 1)]
    monkeypatch.setattr("cascade.runtime.gpu.find_gpus", lambda: gpus)
    monkeypatch.setattr("cascade.runtime.tensorrt.import_tensorrt", lambda *_, **__: trt)
    monkeypatch.setattr("cascade.runtime.tensorrt.import_pycuda", lambda: Pycuda)
    assert engine_loader("tensorrt", device=2) is None
    engine = engine_loader("tensorrt", device=1)("segmenter", b"segmenter")
    assert engine.run(slice=slices_of(2, 4))["probability"][:, 0, 0, 0].tolist() == [1, 2]
    assert Pycuda.opened == [1]


@pytest.mark.parametrize(
    ("gpu", "problem", "fix"),
    [
        (None, "no usable NVIDIA GPU", "the backend onnxruntime"),
        (Gpu("Tesla T4", "7.5"), "requires compute capability 8.6", "--arch sm75"),
    ],
)
def test_engines_are_not_loaded_without_a_gpu_or_on_another_one(monkeypatch, tmp_path, gpu, problem, fix):
    spec = BuildSpec("segmenter", "tensorrt-rtx", "1.7.1", None, ["8.6"], "a" * 64, "b" * 64, BatchProfile())
    engine = SimpleNamespace(path=tmp_path / "segmenter.engine", sidecar=SimpleNamespace(spec=spec))
    monkeypatch.setattr(
        "cascade.runtime.tensorrt.import_tensorrt", lambda *_, **__: SimpleNamespace(__version__="1.7.1")
    )
    monkeypatch.setattr("cascade.runtime.gpu.find_gpus", lambda: [gpu] if gpu else [])
    monkeypatch.setattr("cascade.runtime.tensorrt.find_engine", lambda *_: engine)
    graph = SimpleNamespace(path=tmp_path / "segmenter.onnx")
    with pytest.raises(CascadeError, match=problem) as raised:
        open_tensorrt("tensorrt-rtx", graph, graph, tmp_path)
    assert fix in raised.value.fix


def test_without_tensorrt_the_fix_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(CascadeError, match="tensorrt-rtx is not installed") as raised:
        open_tensorrt("tensorrt-rtx", None, None, tmp_path)
    assert "cascade-mri[tensorrt-rtx]" in raised.value.fix
    assert "make gpu" in raised.value.fix


def test_without_pycuda_the_fix_is_one_command(monkeypatch):
    """`pip install pycuda` fails with 500 lines of C++ where the CUDA toolkit is not installed."""
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(CascadeError, match="pycuda is not installed") as raised:
        import_pycuda()
    assert "make gpu" in raised.value.fix
    module = raised.value.fix.split("python -m ")[1].rstrip("`")
    assert importlib.util.find_spec(module)


@pytest.mark.parametrize("error", [ImportError("undefined symbol: cuArrayCreate_v2"), OSError("libcuda.so.1: no file")])
def test_a_pycuda_that_does_not_fit_is_not_called_missing(monkeypatch, error):
    """The message was: pycuda is not installed (undefined symbol)."""

    def import_module(name):
        raise error

    monkeypatch.setattr("cascade.runtime.tensorrt.importlib.import_module", import_module)
    with pytest.raises(CascadeError, match="pycuda cannot be loaded") as raised:
        import_pycuda()
    assert str(error) in raised.value.problem


def test_the_chosen_gpu_is_opened_and_its_kernels_are_kept_beside_the_engines(monkeypatch, tmp_path):
    """Up to here the number of the GPU was always 0."""
    reset()
    gpus = [Gpu("Tesla T4", "7.5"), Gpu("NVIDIA RTX A4000", "8.6", 1)]
    trt = tensorrt(dict.fromkeys(INPUTS_AND_OUTPUTS, (1, 4)), "tensorrt_rtx")

    def find_engine(name, folder, flavor, graph, gpu):
        spec = BuildSpec(name, flavor, trt.__version__, None, ["8.6"], "a" * 64, "b" * 64, BatchProfile())
        sidecar = SimpleNamespace(spec=spec, engine_sha256="c" * 64)
        return Engine(folder / f"{name}.{flavor}.engine", sidecar, name.encode())

    monkeypatch.setattr("cascade.runtime.gpu.find_gpus", lambda: gpus)
    monkeypatch.setattr("cascade.runtime.tensorrt.import_tensorrt", lambda *_, **__: trt)
    monkeypatch.setattr("cascade.runtime.tensorrt.import_pycuda", lambda: Pycuda)
    monkeypatch.setattr("cascade.runtime.tensorrt.find_engine", find_engine)
    graph = SimpleNamespace(path=tmp_path / "segmenter.onnx")
    with pytest.raises(CascadeError, match="but the Tesla T4 has"):
        open_tensorrt("tensorrt-rtx", graph, graph, tmp_path)
    backend = open_tensorrt("tensorrt-rtx", graph, graph, tmp_path, device=1)
    check(backend.submit(slices_of(1, 2)).result(), (1, 2))
    assert Pycuda.opened == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "classifier.tensorrt-rtx.nvidia-rtx-a4000.kernels",
        "segmenter.tensorrt-rtx.nvidia-rtx-a4000.kernels",
    ]


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("Runtime", ["deserialize_cuda_engine"]),
        ("ICudaEngine", ["create_execution_context", "num_io_tensors", "get_tensor_name", "get_tensor_profile_shape"]),
        ("ICudaEngine", ["get_tensor_mode"]),
        ("TensorIOMode", ["INPUT", "OUTPUT"]),
        ("IExecutionContext", ["set_tensor_address", "set_input_shape", "execute_async_v3"]),
        ("Logger", ["ERROR"]),
    ],
)
def test_tensorrt_has_everything_that_the_backend_calls(tensorrt, owner, names):
    assert not [name for name in names if not hasattr(getattr(tensorrt, owner), name)]
