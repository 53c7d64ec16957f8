"""The TensorRT backend on a GPU made of NumPy, whose streams run as early or as late as a real one's might.

What only a GPU can show is in test_on_gpu.py.
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
from cascade.runtime.engines import Gpu
from cascade.runtime.tensorrt import SingleEngine, TensorRtBackend, engine_loader, open_tensorrt

INPUTS = {"segmenter": [SLICE], "classifier": [SLICE, PROBABILITY]}
INPUTS_AND_OUTPUTS = {"segmenter": [SLICE, PROBABILITY], "classifier": [SLICE, PROBABILITY, CLASS_PROBABILITY, BOX]}


class Context:
    """pycuda works for whoever has pushed the context; at the end all must have popped it."""

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
    """On the device: found by its address, as the engines do."""

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
    """Work in the order given. An eager stream does it as soon as it may, any other only when someone waits for it."""

    created: ClassVar[list[Stream]] = []
    eager: ClassVar[tuple[int, ...]] = ()

    def __init__(self):
        self.handle, self.work = len(Stream.created), []
        Stream.created.append(self)

    def add(self, work, after=None):
        self.work.append((work, after))
        if self.handle in Stream.eager:
            self.advance()

    def advance(self, until=None):
        while self.work and not (until and until.done):
            work, after = self.work[0]
            if after and not after.done:
                if until is None:
                    return
                after.synchronize()
                continue
            self.work.pop(0)
            work()

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
    """The module, as far as the backend uses it; an engine's bytes are its name.

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
def test_batches_under_way_together_do_not_mix_however_the_streams_keep_pace(open_backend, eager):
    backend = open_backend(eager=eager)
    batches = [(1, 2, 3), (4, 5), (6,), (7, 8, 9, 10)]
    waiting = None
    for batch, before in zip(batches, [None, *batches], strict=False):
        begun = backend.submit(slices_of(*batch))
        if waiting:
            check(waiting.result(), before)
        waiting = begun
    check(waiting.result(), batches[-1])


@pytest.mark.parametrize("eager", ALL_WAYS, ids=str)
def test_batches_asked_for_late_and_in_any_order_are_still_whole(open_backend, eager):
    backend = open_backend(eager=eager)
    pending = {batch: backend.submit(slices_of(*batch)) for batch in [(1, 2), (3,), (4, 5, 6), (7,)]}
    for batch in sorted(pending, reverse=True):
        check(pending[batch].result(), batch)


@pytest.mark.parametrize("eager", [(), (0,), (0, 1, 2)], ids=str)
def test_a_batch_beyond_the_engines_largest_goes_through_in_pieces(open_backend, eager):
    backend = open_backend(largest=2, eager=eager)
    before = backend.submit(slices_of(8, 9))
    outputs = backend.submit(slices_of(1, 2, 3, 4, 5)).result()
    check(outputs, (1, 2, 3, 4, 5))
    assert outputs.stages_ms == {"upload": 6.0, "segmenter": 6.0, "classifier": 6.0, "download": 6.0}  # 3 pieces of 2
    check(before.result(), (8, 9))


def test_a_batch_below_the_engines_smallest_is_filled_up(open_backend):
    backend = open_backend(smallest=3)
    check(backend.submit(slices_of(5)).result(), (5,))
    assert backend._executions["segmenter"].counts_seen == [3]


@pytest.mark.parametrize(
    "profiles", [{"segmenter": (2, 5), "classifier": (1, 3)}, {"segmenter": (1, 3), "classifier": (2, 5)}]
)
def test_a_batch_fits_both_engines(open_backend, profiles):
    backend = open_backend(profiles=profiles)
    check(backend.submit(slices_of(1, 2, 3, 4)).result(), (1, 2, 3, 4))
    assert backend._executions["segmenter"].counts_seen == [3, 2]


def test_engines_that_take_no_batch_in_common_are_refused(open_backend):
    with pytest.raises(CascadeError, match="at least 8 slices, the other at most 4") as raised:
        open_backend(profiles={"segmenter": (8, 16), "classifier": (1, 4)})
    assert "cascade build --force" in raised.value.fix


def test_a_gpu_without_room_is_refused_with_a_fix(open_backend, monkeypatch):
    monkeypatch.setattr(Memory, "room", 10**6)
    with pytest.raises(CascadeError, match="cuMemAlloc failed"):
        open_backend()


def test_a_context_that_tensorrt_does_not_make_is_refused(open_backend, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "Execution", lambda *arguments: None)
    with pytest.raises(CascadeError, match="no execution context"):
        open_backend()


def test_each_graph_runs_alone_with_what_it_is_given(open_backend):
    backend = open_backend(largest=2)
    assert backend.segment(slices_of(2, 4, 6))[:, 0, 0, 0].tolist() == [1, 2, 3]
    by_class, boxes = backend.classify(slices_of(2, 4, 6), slices_of(10, 20, 30))
    assert by_class.tolist() == [[2, 10, 1], [4, 20, 1], [6, 30, 1]]
    assert boxes.tolist() == [[1, 2, 3, 4]] * 3


def test_one_engine_runs_from_host_to_host_for_the_accuracy_gate(open_backend):
    backend = open_backend(graphs=("classifier",))
    found = SingleEngine("classifier", backend).run(slice=slices_of(2, 4), probability=slices_of(10, 20))
    assert found["class_probability"].tolist() == [[2, 10, 1], [4, 20, 1]]
    assert found["box"].tolist() == [[1, 2, 3, 4]] * 2


def test_memory_is_allocated_once(open_backend):
    backend = open_backend()
    for _ in range(3):
        backend.submit(slices_of(1, 2)).result()
    assert len(Memory.at) == 2 * len(INPUTS_AND_OUTPUTS["classifier"])


def test_an_engine_that_cannot_run_a_batch_is_no_silent_zero(open_backend):
    backend = open_backend()
    backend._executions["segmenter"].execute_async_v3 = lambda handle: False
    with pytest.raises(RuntimeError, match="could not run the segmenter on 2 slices"):
        backend.submit(slices_of(1, 2))


def test_on_a_gpu_without_pycuda_no_engine_is_run_and_building_goes_on(monkeypatch):
    monkeypatch.setattr("cascade.runtime.tensorrt.find_gpu", lambda: Gpu("NVIDIA H100", "9.0"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert engine_loader("tensorrt-rtx") is None


def test_without_tensorrt_the_fix_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(CascadeError, match="tensorrt-rtx is not installed") as raised:
        open_tensorrt("tensorrt-rtx", None, None, tmp_path)
    assert "cascade[tensorrt-rtx]" in raised.value.fix


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
def test_what_the_backend_calls_is_what_tensorrt_has(tensorrt, owner, names):
    assert not [name for name in names if not hasattr(getattr(tensorrt, owner), name)]
