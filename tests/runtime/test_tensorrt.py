"""The TensorRT backend on a simulated GPU, whose streams run as early or as late as possible.

Tests that need a GPU are in test_on_gpu.py.
"""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE, SLICE_SIZE
from cascade.errors import CascadeError
from cascade.runtime.gpu import Gpu
from cascade.runtime.sidecar import BatchProfile, BuildSpec
from cascade.runtime.tensorrt import SingleEngine, TensorRtBackend, engine_loader, open_tensorrt

INPUTS = {"segmenter": [SLICE], "classifier": [SLICE, PROBABILITY]}
INPUTS_AND_OUTPUTS = {"segmenter": [SLICE, PROBABILITY], "classifier": [SLICE, PROBABILITY, CLASS_PROBABILITY, BOX]}


class Context:
    """The CUDA context. pycuda requires it to be pushed; each push must be followed by a pop."""

    depth = 0

    @classmethod
    def push(cls):
        cls.depth += 1

    @classmethod
    def pop(cls):
        cls.depth -= 1

    @classmethod
    def check(cls):
        assert cls.depth > 0, "no context is current"


class CudaError(Exception):
    """pycuda.driver.Error."""


class Memory:
    """Memory on the device, found by its address, as in TensorRT."""

    at: ClassVar[dict[int, Memory]] = {}
    room = 2**40

    def __init__(self, nbytes):
        Context.check()
        if nbytes > Memory.room:
            raise CudaError("cuMemAlloc failed: out of memory")
        self.floats = np.full(nbytes // 4, np.nan, np.float32)
        self.address = 1000 + len(Memory.at)
        Memory.at[self.address] = self

    def __int__(self):
        return self.address


class Stream:
    """Executes operations in order. An eager stream executes them at once, others only when they are waited for."""

    created: ClassVar[list[Stream]] = []
    eager: ClassVar[tuple[int, ...]] = ()

    def __init__(self):
        self.handle, self.operations = len(Stream.created), []
        Stream.created.append(self)

    def add(self, operation, after=None):
        self.operations.append((operation, after))
        if self.handle in Stream.eager:
            self.advance()

    def advance(self, until=None):
        while self.operations and not (until and until.done):
            operation, after = self.operations[0]
            if after and not after.done:
                if until is None:
                    return
                after.synchronize()
                continue
            self.operations.pop(0)
            operation()

    def wait_for_event(self, event):
        self.add(lambda: None, after=event)


class Event:
    def __init__(self):
        self.done = False

    def record(self, stream):
        self.stream = stream
        stream.add(lambda: setattr(self, "done", True))

    def synchronize(self):
        self.stream.advance(until=self)
        for stream in Stream.created:
            if stream.handle in Stream.eager:
                stream.advance()

    def time_since(self, earlier):
        assert self.done
        assert earlier.done
        return 2.0


def memcpy_htod_async(memory, array, stream):
    Context.check()
    stream.add(lambda: memory.floats.__setitem__(slice(array.size), array.ravel()))


def memcpy_dtoh_async(array, memory, stream):
    Context.check()
    stream.add(lambda: array.__setitem__(..., memory.floats[: array.size].reshape(array.shape)))


class Execution:
    """probability = slice / 2; class_probability = (sum of the slice, sum of the probability, 1); box = 1, 2, 3, 4."""

    def __init__(self, name, smallest, largest):
        self.name, self.addresses, self.counts, self.counts_seen = name, {}, {}, []
        self.smallest, self.largest = smallest, largest

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return name in INPUTS_AND_OUTPUTS[self.name]

    def set_input_shape(self, name, shape):
        self.counts[name] = shape[0]
        return shape[1:] == (1, SLICE_SIZE, SLICE_SIZE) and self.smallest <= shape[0] <= self.largest

    def execute_async_v3(self, handle):
        if set(self.counts) != set(INPUTS[self.name]) or set(self.addresses) != set(INPUTS_AND_OUTPUTS[self.name]):
            return False
        (count,) = set(self.counts.values())
        self.counts_seen.append(count)
        memory = {name: Memory.at[address].floats for name, address in self.addresses.items()}
        area = SLICE_SIZE * SLICE_SIZE

        def segment():
            memory[PROBABILITY][: count * area] = memory[SLICE][: count * area] / 2

        def classify():
            of_slice, of_probability = (
                memory[name][: count * area].reshape(count, area)[:, 0] for name in (SLICE, PROBABILITY)
            )
            rows = np.stack([of_slice, of_probability, np.ones(count)], axis=1)
            memory[CLASS_PROBABILITY][: 3 * count] = rows.ravel()
            memory[BOX][: 4 * count] = np.tile([1, 2, 3, 4], count)

        Stream.created[handle].add(segment if self.name == "segmenter" else classify)
        return True


def tensorrt(profiles):
    """The part of the module that the backend uses. An engine's bytes are its name.

    profiles  by name: the smallest and largest batch.
    """

    class Engine:
        def __init__(self, name):
            self.names, self.num_io_tensors = INPUTS_AND_OUTPUTS[name], len(INPUTS_AND_OUTPUTS[name])
            self.get_tensor_name = self.names.__getitem__
            self.get_tensor_mode = lambda tensor: "input" if tensor in INPUTS[name] else "output"
            self.smallest, self.largest = profiles[name]
            self.execution = Execution(name, *profiles[name])

        def get_tensor_profile_shape(self, name, profile):
            return [(count, 1, SLICE_SIZE, SLICE_SIZE) for count in (self.smallest, self.smallest, self.largest)]

        def create_execution_context(self):
            return self.execution

    runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: Engine(content.decode()))
    return SimpleNamespace(
        __name__="tensorrt",
        __version__="11.4",
        Logger=type("Logger", (), {"ERROR": 0, "__init__": lambda self, level: None}),
        Runtime=lambda logger: runtime,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
    )


class Pycuda:
    @staticmethod
    def init(): ...

    @staticmethod
    def Device(number):
        return SimpleNamespace(name=lambda: "a GPU of NumPy", retain_primary_context=lambda: Context)

    Stream, Event, mem_alloc, Error = Stream, Event, Memory, CudaError
    memcpy_htod_async, memcpy_dtoh_async = staticmethod(memcpy_htod_async), staticmethod(memcpy_dtoh_async)

    @staticmethod
    def pagelocked_empty(shape, dtype):
        return np.full(shape, np.nan, dtype)


@pytest.fixture
def open_backend():
    """open_backend(smallest, largest, eager) → the backend; `eager` are numbers of upload, engines, download.

    profiles  the smallest and largest batch by engine, where they differ.
    """

    def open_backend(smallest=1, largest=4, eager=(), graphs=tuple(INPUTS_AND_OUTPUTS), profiles=None):
        Memory.at.clear()
        Stream.created.clear()
        Stream.eager = eager
        profiles = profiles or dict.fromkeys(graphs, (smallest, largest))
        return TensorRtBackend(tensorrt(profiles), Pycuda, {name: name.encode() for name in graphs})

    yield open_backend
    assert Context.depth == 0


def slices_of(*values):
    return np.stack([np.full((1, SLICE_SIZE, SLICE_SIZE), value, np.float32) for value in values])


def check(outputs, values):
    assert outputs.probability.shape == (len(values), 1, SLICE_SIZE, SLICE_SIZE)
    assert outputs.probability[:, 0, 0, 0].tolist() == [value / 2 for value in values]
    assert outputs.class_probability.tolist() == [[value, value / 2, 1] for value in values]
    assert outputs.box.tolist() == [[1, 2, 3, 4]] * len(values)


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
    assert backend._executions["segmenter"].counts_seen == [3]


@pytest.mark.parametrize(
    "profiles", [{"segmenter": (2, 5), "classifier": (1, 3)}, {"segmenter": (1, 3), "classifier": (2, 5)}]
)
def test_batches_stay_within_the_profiles_of_both_engines(open_backend, profiles):
    backend = open_backend(profiles=profiles)
    check(backend.submit(slices_of(1, 2, 3, 4)).result(), (1, 2, 3, 4))
    assert backend._executions["segmenter"].counts_seen == [3, 2]


def test_engines_without_a_common_batch_size_are_rejected(open_backend):
    with pytest.raises(CascadeError, match="at least 8 slices, the other at most 4") as raised:
        open_backend(profiles={"segmenter": (8, 16), "classifier": (1, 4)})
    assert "cascade build --force" in raised.value.fix


def test_a_gpu_with_too_little_memory_is_an_error_with_a_fix(open_backend, monkeypatch):
    monkeypatch.setattr(Memory, "room", 10**6)
    with pytest.raises(CascadeError, match="cuMemAlloc failed"):
        open_backend()


def test_a_missing_execution_context_is_an_error(open_backend, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "Execution", lambda *arguments: None)
    with pytest.raises(CascadeError, match="no execution context"):
        open_backend()


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
    backend._executions["segmenter"].execute_async_v3 = lambda handle: False
    with pytest.raises(RuntimeError, match="could not run the segmenter on 2 slices"):
        backend.submit(slices_of(1, 2))


def test_without_pycuda_there_is_no_engine_loader_and_no_error(monkeypatch):
    monkeypatch.setattr("cascade.runtime.tensorrt.find_gpu", lambda: Gpu("NVIDIA H100", "9.0"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert engine_loader("tensorrt-rtx") is None


@pytest.mark.parametrize(
    ("gpu", "problem", "fix"),
    [
        (None, "no usable NVIDIA GPU", "--backend onnxruntime"),
        (Gpu("Tesla T4", "7.5"), "requires compute capability 8.6", "--arch sm75"),
    ],
)
def test_engines_are_not_loaded_without_a_gpu_or_on_another_one(monkeypatch, tmp_path, gpu, problem, fix):
    spec = BuildSpec("segmenter", "tensorrt-rtx", "1.7.1", None, ["8.6"], "a" * 64, "b" * 64, BatchProfile())
    engine = SimpleNamespace(path=tmp_path / "segmenter.engine", sidecar=SimpleNamespace(spec=spec))
    monkeypatch.setattr(
        "cascade.runtime.tensorrt.import_tensorrt", lambda flavor, extra: SimpleNamespace(__version__="1.7.1")
    )
    monkeypatch.setattr("cascade.runtime.tensorrt.find_gpu", lambda: gpu)
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
