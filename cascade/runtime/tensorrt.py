"""TensorRT on the GPU, both flavours; all that touches the GPU's memory, streams and clock is in this file.

The two engines run one after the other on one stream, and the probability map goes from one to the other without
leaving the GPU. Two sets of buffers take turns, so that one batch is uploaded or downloaded while the engines work on
the other.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import cycle, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SHAPES, SLICE, FloatArray
from cascade.errors import CascadeError
from cascade.runtime.engines import build_command, find_engine, why_unfit
from cascade.runtime.gpu import find_gpu
from cascade.runtime.models import CLASSIFIER, SEGMENTER, Graph
from cascade.runtime.protocol import LoadedGraph, Outputs, Pending

REBUILD = "build the engines again: cascade build --force"

Arrived = tuple[dict[str, FloatArray], dict[str, float]]
"""What came down from the GPU: arrays by name, and milliseconds by stage."""


def open_tensorrt(flavor: str, segmenter: Graph, classifier: Graph, engines: Path) -> "TensorRtBackend":
    """Loads the engines that `cascade build --flavor FLAVOR` made of these two graphs.

    Raises CascadeError where TensorRT, pycuda or a GPU is missing, and where an engine is missing, was changed or is
    for another graph, TensorRT version or GPU.
    """
    trt = import_tensorrt(flavor, extra=flavor)
    gpu = find_gpu()
    if gpu is None:
        raise CascadeError(
            "there is no NVIDIA GPU that the driver can use", fix="use --backend onnxruntime or --backend openvino"
        )
    graphs = {SEGMENTER: segmenter, CLASSIFIER: classifier}
    files = {name: find_engine(name, engines, flavor, graph) for name, graph in graphs.items()}
    for engine in files.values():
        recipe = engine.sidecar.recipe
        if reason := why_unfit(recipe, trt.__version__, gpu):
            fix = build_command(flavor, engines, segmenter.path.parent, recipe, gpu)
            raise CascadeError(f"{engine.path}: {reason}", fix=fix)
    return TensorRtBackend(trt, _pycuda(flavor), {name: engine.plan for name, engine in files.items()})


def engine_opener(flavor: str) -> Callable[[str, bytes], LoadedGraph] | None:
    """What runs one engine just built, from host to host: its name and bytes → the graph.

    None where no engine can be run: without a GPU, or without pycuda.
    """
    if find_gpu() is None:
        return None
    try:
        cuda = _pycuda(flavor)
    except CascadeError:
        return None
    return lambda name, plan: OneEngine(
        name, TensorRtBackend(import_tensorrt(flavor, extra=flavor), cuda, {name: plan})
    )


def import_tensorrt(flavor: str, extra: str) -> ModuleType:
    """The module of a flavor. Raises CascadeError, with the extra that installs it, where it cannot be loaded."""
    return _import(flavor.replace("-", "_"), f"{flavor} is not installed", f"pip install 'cascade-mri[{extra}]'")


def _pycuda(flavor: str) -> ModuleType:
    fix = f"install the CUDA toolkit with its headers, then pip install 'cascade-mri[{flavor}]'"
    return _import("pycuda.driver", "pycuda is not installed", fix)


def _import(module: str, problem: str, fix: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: its libraries are missing
        raise CascadeError(f"{problem} ({error})", fix=fix) from error


class TensorRtBackend:
    """Both engines on the first GPU; to be used from one thread at a time.

    A batch beyond the engines' largest goes through in pieces, one below their smallest is filled up.
    """

    def __init__(self, trt: ModuleType, cuda: ModuleType, plans: dict[str, bytes]) -> None:
        """plans  each engine's bytes by the name of its graph.

        Raises CascadeError for bytes that TensorRT does not take for an engine of its own.
        """
        cuda.init()
        device = cuda.Device(0)
        self._cuda = cuda
        self.description = f"{trt.__name__} {trt.__version__} on {device.name()}, FP16"
        try:
            self._context = device.retain_primary_context()
            with self._active():
                self._open(trt, plans)
        except cuda.Error as error:
            raise _no_room(str(error)) from error

    def _open(self, trt: ModuleType, plans: dict[str, bytes]) -> None:
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))  # must outlive its engines
        engines = {name: self._load(name, plan) for name, plan in plans.items()}
        self._executions = {name: engine.create_execution_context() for name, engine in engines.items()}
        if None in self._executions.values():
            raise _no_room("TensorRT makes no execution context")
        self._inputs, self._outputs = (
            {
                name: [
                    tensor
                    for tensor in map(engine.get_tensor_name, range(engine.num_io_tensors))
                    if engine.get_tensor_mode(tensor) == mode
                ]
                for name, engine in engines.items()
            }
            for mode in (trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT)
        )
        profiles = [engine.get_tensor_profile_shape(SLICE, 0) for engine in engines.values()]
        self._smallest = max(int(smallest[0]) for smallest, _, _ in profiles)
        self._largest = min(int(largest[0]) for _, _, largest in profiles)
        if self._smallest > self._largest:
            raise CascadeError(
                f"one engine takes at least {self._smallest} slices, the other at most {self._largest}", fix=REBUILD
            )
        self._uploads, self._runs, self._downloads = (self._cuda.Stream() for _ in range(3))
        self._buffers = cycle([Buffers(self._cuda, self._largest), Buffers(self._cuda, self._largest)])

    def begin(self, slices: FloatArray) -> Pending:
        wait = self.begin_graphs({SLICE: slices}, (SEGMENTER, CLASSIFIER), (PROBABILITY, CLASS_PROBABILITY, BOX))

        def outputs() -> Outputs:
            arrays, stages_ms = wait()
            return Outputs(arrays[PROBABILITY], arrays[CLASS_PROBABILITY], arrays[BOX], stages_ms)

        return outputs

    def segment(self, slices: FloatArray) -> FloatArray:
        return self.begin_graphs({SLICE: slices}, (SEGMENTER,), (PROBABILITY,))()[0][PROBABILITY]

    def classify(self, slices: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        inputs = {SLICE: slices, PROBABILITY: probability}
        arrays, _ = self.begin_graphs(inputs, (CLASSIFIER,), (CLASS_PROBABILITY, BOX))()
        return arrays[CLASS_PROBABILITY], arrays[BOX]

    def begin_graphs(
        self, inputs: dict[str, FloatArray], graphs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable[[], Arrived]:
        """Starts `graphs` on as many pieces as it takes; where both sets of buffers are full, the older is emptied."""
        with self._active():
            pieces = [
                self._enqueue(
                    {name: array[start : start + self._largest] for name, array in inputs.items()}, graphs, outputs
                )
                for start in range(0, len(inputs[SLICE]), self._largest)
            ]
        return lambda: joined([wait() for wait in pieces])

    def _enqueue(
        self, inputs: dict[str, FloatArray], graphs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable[[], Arrived]:
        """Upload, graphs and download of one piece, each stream waiting for the one before.

        Returns once the slices are in page-locked memory, which they are when the batch before the last came down.
        """
        buffers = next(self._buffers)
        buffers.empty()
        given = len(inputs[SLICE])
        count = max(given, self._smallest)  # rows beyond `given` are computed from what lies there and never read
        for name, array in inputs.items():
            buffers.host[name][:given] = array
        clock = [self._mark(self._uploads)]
        for name in inputs:
            self._cuda.memcpy_htod_async(buffers.device[name], buffers.host[name][:given], self._uploads)
        clock.append(self._mark(self._uploads))
        self._runs.wait_for_event(clock[-1])
        clock.append(self._mark(self._runs))
        for graph in graphs:
            self._execute(graph, buffers, count)
            clock.append(self._mark(self._runs))
        self._downloads.wait_for_event(clock[-1])
        clock.append(self._mark(self._downloads))
        for name in outputs:
            self._cuda.memcpy_dtoh_async(buffers.host[name][:given], buffers.device[name], self._downloads)
        clock.append(self._mark(self._downloads))

        @cache  # asked for by the caller, and by whoever needs the buffers next
        def wait() -> Arrived:
            with self._active():
                clock[-1].synchronize()
                # A stream's own marks alone: between those of two streams lies the wait for another batch.
                stages = zip(("upload", "", *graphs, "", "download"), pairwise(clock), strict=True)
                stages_ms = {stage: float(end.time_since(start)) for stage, (start, end) in stages if stage}
            return {name: buffers.host[name][:given].copy() for name in outputs}, stages_ms

        buffers.empty = wait
        return wait

    def _mark(self, stream: Any) -> Any:
        event = self._cuda.Event()
        event.record(stream)
        return event

    def _execute(self, graph: str, buffers: "Buffers", count: int) -> None:
        execution = self._executions[graph]
        accepted = [
            execution.set_tensor_address(name, int(buffers.device[name]))
            for name in (*self._inputs[graph], *self._outputs[graph])
        ]
        accepted += [execution.set_input_shape(name, (count, *SHAPES[name])) for name in self._inputs[graph]]
        if not all(accepted) or not execution.execute_async_v3(self._runs.handle):
            raise RuntimeError(f"TensorRT could not run the {graph} on {count} slices")

    def _load(self, name: str, plan: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise CascadeError(f"TensorRT cannot load the {name}'s engine", fix=REBUILD)
        return engine

    @contextmanager
    def _active(self) -> Iterator[None]:
        """pycuda acts on the calling thread's current context."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()


def _no_room(reason: str) -> CascadeError:
    return CascadeError(
        f"the GPU has no room for the models ({reason})",
        fix="end what else runs on it, or build for fewer slices: cascade build --max-batch 8",
    )


class OneEngine:
    """One graph's engine as a LoadedGraph, for the accuracy gate of the engine builder."""

    def __init__(self, name: str, backend: TensorRtBackend) -> None:
        self._name, self._backend = name, backend
        self._outputs = (PROBABILITY,) if name == SEGMENTER else (CLASS_PROBABILITY, BOX)

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        return self._backend.begin_graphs(inputs, (self._name,), self._outputs)()[0]


class Buffers:
    """One batch's memory, allocated once, for each name of SHAPES: page-locked on the host, and on the device.

    empty  brings the batch that is in them to safety; to be called before the next goes in.
    """

    def __init__(self, cuda: ModuleType, largest: int) -> None:
        shapes = {name: (largest, *shape) for name, shape in SHAPES.items()}
        self.host = {name: cuda.pagelocked_empty(shape, np.float32) for name, shape in shapes.items()}
        self.device = {name: cuda.mem_alloc(array.nbytes) for name, array in self.host.items()}
        self.empty: Callable[[], object] = lambda: None


def joined(pieces: list[Arrived]) -> Arrived:
    """One batch of its pieces: arrays end to end, times added up."""
    if len(pieces) == 1:
        return pieces[0]
    arrays = {name: np.concatenate([found[name] for found, _ in pieces]) for name in pieces[0][0]}
    return arrays, {stage: sum(stages_ms[stage] for _, stages_ms in pieces) for stage in pieces[0][1]}
