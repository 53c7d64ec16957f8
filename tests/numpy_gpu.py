"""A GPU made of NumPy: CUDA's memory, streams and events, and the parts of both TensorRTs that the backend uses.

Streams run as early or as late as possible. Memory starts as NaN, and each call checks what the real one requires.
"""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE, SLICE_SIZE

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


class CudaMemoryError(CudaError):
    """pycuda.driver.MemoryError."""


class Memory:
    """Memory on the device, found by its address, as in TensorRT."""

    at: ClassVar[dict[int, Memory]] = {}
    room = 2**40

    def __init__(self, nbytes):
        Context.check()
        if nbytes > Memory.room:
            raise CudaMemoryError("cuMemAlloc failed: out of memory")
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


class RuntimeCache:
    """The kernels that TensorRT-RTX has compiled: `engine batch` for each batch size. It serializes them as lines.

    `environment` is what the driver, the GPU and the version are to the real one: content of another is rejected.
    """

    environment = b"RTX 1.7"
    freed: ClassVar[list[str]] = []

    def __init__(self):
        self.kernels = set()

    def deserialize(self, content):
        Context.check()
        environment, *kernels = content.split(b"\n")
        if environment != self.environment:
            return False
        self.kernels |= set(kernels)
        return True

    def serialize(self):
        return b"\n".join([self.environment, *sorted(self.kernels)])

    def __del__(self):
        RuntimeCache.freed.append("cache")


class RuntimeConfig:
    def __init__(self):
        self.cuda_graph_strategy, self.cache = "disabled", None

    def create_runtime_cache(self):
        return RuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class RtxExecution(Execution):
    """Compiles a kernel for each new batch size, and captures a graph again if a shape or address has changed."""

    compiled: ClassVar[list[bytes]] = []
    captures: ClassVar[list[str]] = []

    def __init__(self, name, smallest, largest, config):
        super().__init__(name, smallest, largest)
        self.captures_graph = config.cuda_graph_strategy == "whole graph"
        self.graph = None
        self.cache = weakref.ref(config.cache) if config.cache else None

    def execute_async_v3(self, handle):
        kernels = self.cache().kernels if self.cache else set()
        kernel = f"{self.name} {self.counts[SLICE]}".encode()
        if kernel not in kernels:
            kernels.add(kernel)
            RtxExecution.compiled.append(kernel)
        graph = (dict(self.counts), dict(self.addresses))
        if self.captures_graph and self.graph != graph:
            self.graph = graph
            RtxExecution.captures.append(self.name)
        return super().execute_async_v3(handle)

    def __del__(self):
        RuntimeCache.freed.append("context")


def tensorrt(profiles, name="tensorrt"):
    """The part of the module that the backend uses. An engine's bytes are its name.

    profiles  by name: the smallest and largest batch.
    name      tensorrt_rtx for the flavor that compiles its kernels when it runs.
    """

    class Engine:
        def __init__(self, graph):
            self.graph, self.num_io_tensors = graph, len(INPUTS_AND_OUTPUTS[graph])
            self.get_tensor_name = INPUTS_AND_OUTPUTS[graph].__getitem__
            self.get_tensor_mode = lambda tensor: "input" if tensor in INPUTS[graph] else "output"

        def get_tensor_profile_shape(self, tensor, profile):
            assert profile == 0, "the engine has one profile"
            smallest, largest = profiles[self.graph]
            return [(count, 1, SLICE_SIZE, SLICE_SIZE) for count in (smallest, smallest, largest)]

        def create_execution_context(self):
            return Execution(self.graph, *profiles[self.graph])

    class RtxEngine(Engine):
        def create_runtime_config(self):
            return RuntimeConfig()

        def create_execution_context(self, runtime_config):
            return RtxExecution(self.graph, *profiles[self.graph], runtime_config)

    engine_class = RtxEngine if name == "tensorrt_rtx" else Engine
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: engine_class(content.decode()))
    module = SimpleNamespace(
        __name__=name,
        __version__="11.4",
        Logger=type("Logger", (), {"ERROR": 0, "__init__": lambda self, level: None}),
        Runtime=lambda logger: runtime,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
    )
    if name == "tensorrt_rtx":
        module.CudaGraphStrategy = SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole graph")
    return module


class Device:
    def name(self):
        return "a GPU of NumPy"

    def retain_primary_context(self):
        return Context


class Pycuda:
    opened: ClassVar[list[int]] = []

    @staticmethod
    def init(): ...

    @staticmethod
    def Device(number):
        Pycuda.opened.append(number)
        return Device()

    Stream, Event, mem_alloc, Error, MemoryError = Stream, Event, Memory, CudaError, CudaMemoryError
    memcpy_htod_async, memcpy_dtoh_async = staticmethod(memcpy_htod_async), staticmethod(memcpy_dtoh_async)

    @staticmethod
    def pagelocked_empty(shape, dtype):
        return np.full(shape, np.nan, dtype)


def reset(eager=()):
    """Forget what earlier tests did. `eager` are the streams that run at once: 0 upload, 1 engines, 2 download."""
    Memory.at.clear()
    Stream.created.clear()
    Stream.eager = eager
    RuntimeCache.freed.clear()
    RtxExecution.compiled.clear()
    RtxExecution.captures.clear()
    Pycuda.opened.clear()


def slices_of(*values):
    return np.stack([np.full((1, SLICE_SIZE, SLICE_SIZE), value, np.float32) for value in values])


def check(outputs, values):
    """Check the outputs of both graphs on `slices_of(*values)`."""
    assert outputs.probability.shape == (len(values), 1, SLICE_SIZE, SLICE_SIZE)
    assert outputs.probability[:, 0, 0, 0].tolist() == [value / 2 for value in values]
    assert outputs.class_probability.tolist() == [[value, value / 2, 1] for value in values]
    assert outputs.box.tolist() == [[1, 2, 3, 4]] * len(values)
