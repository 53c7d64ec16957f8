"""TensorRT and TensorRT-RTX on the GPU. Only this file uses the GPU's memory, streams and events.

Both engines run on one stream, one after the other, and the probability map stays on the GPU. Two sets of buffers
alternate, so that one batch is uploaded or downloaded while the engines compute the other.
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
from cascade.runtime.engines import build_command, default_engines_folder, find_engine, incompatibility
from cascade.runtime.gpu import find_gpu
from cascade.runtime.models import CLASSIFIER, SEGMENTER, ExportedModel
from cascade.runtime.protocol import Future, LoadedGraph, Outputs

REBUILD = "build the engines again: cascade build --force"

Downloaded = tuple[dict[str, FloatArray], dict[str, float]]
"""Outputs of a batch on the host: arrays by name, and the duration of each stage in milliseconds."""


def open_tensorrt(
    flavor: str, segmenter: ExportedModel, classifier: ExportedModel, engines: Path | None = None
) -> "TensorRtBackend":
    """Load the engines that `cascade build` made from these two graphs.

    Args:
        flavor: `tensorrt` or `tensorrt-rtx`.
        segmenter: The segmenter's graph.
        classifier: The classifier's graph.
        engines: Folder of the engines; None for the default.

    Raises:
        CascadeError: If TensorRT, pycuda or a GPU is missing, or if an engine is missing, was modified, or was built
            for another graph, TensorRT version or GPU.
    """
    trt = import_tensorrt(flavor, extra=flavor)
    gpu = find_gpu()
    if gpu is None:
        raise CascadeError("there is no usable NVIDIA GPU", fix="use --backend onnxruntime or --backend openvino")
    folder = engines or default_engines_folder()
    graphs = {SEGMENTER: segmenter, CLASSIFIER: classifier}
    found = {name: find_engine(name, folder, flavor, graph) for name, graph in graphs.items()}
    for engine in found.values():
        if reason := incompatibility(engine.sidecar.spec, trt.__version__, gpu):
            fix = build_command(flavor, folder, segmenter.path.parent, engine.sidecar.spec, gpu)
            raise CascadeError(f"{engine.path}: {reason}", fix=fix)
    return TensorRtBackend(trt, _import_pycuda(flavor), {name: engine.serialized for name, engine in found.items()})


def engine_loader(flavor: str) -> Callable[[str, bytes], LoadedGraph] | None:
    """Return a function that loads a serialized engine, or None if this machine cannot run engines.

    Returns:
        A function of the graph's name and the engine's bytes. None without a GPU or pycuda.
    """
    if find_gpu() is None:
        return None
    try:
        cuda = _import_pycuda(flavor)
    except CascadeError:
        return None
    return lambda name, serialized: SingleEngine(
        name, TensorRtBackend(import_tensorrt(flavor, extra=flavor), cuda, {name: serialized})
    )


def import_tensorrt(flavor: str, extra: str) -> ModuleType:
    """Import the module of a flavor.

    Raises:
        CascadeError: If it is not installed. The fix names `extra`, which installs it.
    """
    return _import(flavor.replace("-", "_"), f"{flavor} is not installed", f"pip install 'cascade-mri[{extra}]'")


def _import_pycuda(flavor: str) -> ModuleType:
    fix = f"install the CUDA toolkit with its headers, then pip install 'cascade-mri[{flavor}]'"
    return _import("pycuda.driver", "pycuda is not installed", fix)


def _import(module: str, problem: str, fix: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: its shared libraries are missing
        raise CascadeError(f"{problem} ({error})", fix=fix) from error


class TensorRtBackend:
    """Both engines on the first GPU. Not thread-safe.

    A batch larger than the engines' maximum is split, a batch smaller than their minimum is padded.

    Args:
        trt: Module tensorrt or tensorrt_rtx.
        cuda: Module pycuda.driver.
        serialized: Bytes of each engine, by name of its graph.

    Raises:
        CascadeError: If TensorRT rejects an engine or the GPU has too little memory.
    """

    def __init__(self, trt: ModuleType, cuda: ModuleType, serialized: dict[str, bytes]) -> None:
        cuda.init()
        device = cuda.Device(0)
        self._cuda = cuda
        self.description = f"{trt.__name__} {trt.__version__} on {device.name()}, FP16"
        try:
            self._context = device.retain_primary_context()
            with self._active_context():
                self._load(trt, serialized)
        except cuda.Error as error:
            raise _out_of_memory(str(error)) from error

    def _load(self, trt: ModuleType, serialized: dict[str, bytes]) -> None:
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))  # must outlive its engines
        engines = {name: self._deserialize(name, content) for name, content in serialized.items()}
        self._executions = {name: engine.create_execution_context() for name, engine in engines.items()}
        if None in self._executions.values():
            raise _out_of_memory("TensorRT created no execution context")
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
        self._min_batch = max(int(smallest[0]) for smallest, _, _ in profiles)
        self._max_batch = min(int(largest[0]) for _, _, largest in profiles)
        if self._min_batch > self._max_batch:
            raise CascadeError(
                f"the engines have no batch size in common: one requires at least {self._min_batch} slices, the other "
                f"at most {self._max_batch}",
                fix=REBUILD,
            )
        self._upload_stream, self._compute_stream, self._download_stream = (self._cuda.Stream() for _ in range(3))
        self._buffers = cycle([Buffers(self._cuda, self._max_batch), Buffers(self._cuda, self._max_batch)])

    def submit(self, slices: FloatArray) -> Future[Outputs]:
        """See `Backend.submit`."""
        graphs, outputs = (SEGMENTER, CLASSIFIER), (PROBABILITY, CLASS_PROBABILITY, BOX)
        future = self.submit_graphs({SLICE: slices}, graphs, outputs)

        def result() -> Outputs:
            arrays, stages_ms = future.result()
            return Outputs(arrays[PROBABILITY], arrays[CLASS_PROBABILITY], arrays[BOX], stages_ms)

        return Future(result)

    def segment(self, slices: FloatArray) -> FloatArray:
        """See `Backend.segment`."""
        arrays, _ = self.submit_graphs({SLICE: slices}, (SEGMENTER,), (PROBABILITY,)).result()
        return arrays[PROBABILITY]

    def classify(self, slices: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `Backend.classify`."""
        inputs = {SLICE: slices, PROBABILITY: probability}
        arrays, _ = self.submit_graphs(inputs, (CLASSIFIER,), (CLASS_PROBABILITY, BOX)).result()
        return arrays[CLASS_PROBABILITY], arrays[BOX]

    def submit_graphs(
        self, inputs: dict[str, FloatArray], graphs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Future[Downloaded]:
        """Start some of the graphs. If both sets of buffers are in use, wait for the older batch first.

        Args:
            inputs: Host arrays by tensor name, uploaded first.
            graphs: Names of the graphs, in order of execution.
            outputs: Names of the tensors to download.
        """
        with self._active_context():
            chunks = [
                self._enqueue(
                    {name: array[start : start + self._max_batch] for name, array in inputs.items()}, graphs, outputs
                )
                for start in range(0, len(inputs[SLICE]), self._max_batch)
            ]
        return Future(lambda: concatenate([wait() for wait in chunks]))

    def _enqueue(
        self, inputs: dict[str, FloatArray], graphs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable[[], Downloaded]:
        """Enqueue upload, graphs and download of one chunk. Each stream waits for the one before it.

        Returns as soon as the inputs are copied into page-locked memory.
        """
        buffers = next(self._buffers)
        buffers.finish()
        rows = len(inputs[SLICE])
        batch = max(rows, self._min_batch)  # the padding is computed from old contents and never read
        for name, array in inputs.items():
            buffers.host[name][:rows] = array
        events = [self._record_event(self._upload_stream)]
        for name in inputs:
            self._cuda.memcpy_htod_async(buffers.device[name], buffers.host[name][:rows], self._upload_stream)
        events.append(self._record_event(self._upload_stream))
        self._compute_stream.wait_for_event(events[-1])
        events.append(self._record_event(self._compute_stream))
        for graph in graphs:
            self._execute(graph, buffers, batch)
            events.append(self._record_event(self._compute_stream))
        self._download_stream.wait_for_event(events[-1])
        events.append(self._record_event(self._download_stream))
        for name in outputs:
            self._cuda.memcpy_dtoh_async(buffers.host[name][:rows], buffers.device[name], self._download_stream)
        events.append(self._record_event(self._download_stream))

        @cache  # called both by the caller and by the next user of the buffers
        def wait() -> Downloaded:
            with self._active_context():
                events[-1].synchronize()
                # Only intervals within a stream: one between two streams contains the wait for another batch.
                stages = zip(("upload", "", *graphs, "", "download"), pairwise(events), strict=True)
                stages_ms = {stage: float(end.time_since(start)) for stage, (start, end) in stages if stage}
            return {name: buffers.host[name][:rows].copy() for name in outputs}, stages_ms

        buffers.finish = wait
        return wait

    def _record_event(self, stream: Any) -> Any:
        event = self._cuda.Event()
        event.record(stream)
        return event

    def _execute(self, graph: str, buffers: "Buffers", batch: int) -> None:
        execution = self._executions[graph]
        accepted = [
            execution.set_tensor_address(name, int(buffers.device[name]))
            for name in (*self._inputs[graph], *self._outputs[graph])
        ]
        accepted += [execution.set_input_shape(name, (batch, *SHAPES[name])) for name in self._inputs[graph]]
        if not all(accepted) or not execution.execute_async_v3(self._compute_stream.handle):
            raise RuntimeError(f"TensorRT could not run the {graph} on {batch} slices")

    def _deserialize(self, name: str, serialized: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(serialized)
        if engine is None:
            raise CascadeError(f"TensorRT cannot load the {name}'s engine", fix=REBUILD)
        return engine

    @contextmanager
    def _active_context(self) -> Iterator[None]:
        """Make the CUDA context current on this thread, which pycuda requires."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()


def _out_of_memory(reason: str) -> CascadeError:
    return CascadeError(
        f"the GPU has too little free memory for the models ({reason})",
        fix="end other programs on the GPU, or build for smaller batches: cascade build --max-batch 8",
    )


class SingleEngine:
    """One engine as a `LoadedGraph`, for the accuracy gate of `cascade build`."""

    def __init__(self, name: str, backend: TensorRtBackend) -> None:
        self._name, self._backend = name, backend
        self._outputs = (PROBABILITY,) if name == SEGMENTER else (CLASS_PROBABILITY, BOX)

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        """See `LoadedGraph.run`."""
        arrays, _ = self._backend.submit_graphs(inputs, (self._name,), self._outputs).result()
        return arrays


class Buffers:
    """Memory of one batch for every tensor in SHAPES, allocated once.

    Attributes:
        host: Page-locked arrays by tensor name.
        device: Allocations on the GPU by tensor name.
        finish: Waits for the batch in the buffers and copies its outputs. Call it before reusing the buffers.
    """

    def __init__(self, cuda: ModuleType, max_batch: int) -> None:
        shapes = {name: (max_batch, *shape) for name, shape in SHAPES.items()}
        self.host = {name: cuda.pagelocked_empty(shape, np.float32) for name, shape in shapes.items()}
        self.device = {name: cuda.mem_alloc(array.nbytes) for name, array in self.host.items()}
        self.finish: Callable[[], object] = lambda: None


def concatenate(chunks: list[Downloaded]) -> Downloaded:
    """Concatenate the arrays of a batch's chunks and add up their stage times."""
    if len(chunks) == 1:
        return chunks[0]
    arrays = {name: np.concatenate([outputs[name] for outputs, _ in chunks]) for name in chunks[0][0]}
    return arrays, {stage: sum(stages_ms[stage] for _, stages_ms in chunks) for stage in chunks[0][1]}
