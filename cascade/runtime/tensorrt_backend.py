"""Both engines on the GPU, one after the other. Only this file uses the GPU's memory, streams and events.

Both engines run on one stream, one after the other, and the probability map stays on the GPU. Two sets of buffers
alternate, so that one batch is uploaded or downloaded while the engines compute the other.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import cycle, pairwise
from types import ModuleType
from typing import Any

import numpy as np

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SHAPES, SLICE, FloatArray
from cascade.errors import CascadeError
from cascade.runtime.kernel_cache import KernelCache
from cascade.runtime.models import CLASSIFIER, SEGMENTER
from cascade.runtime.protocol import Future, Outputs
from cascade.runtime.sidecar import BuildCommands
from cascade.runtime.tensorrt_engine import LoadedEngine, create_runtime, out_of_memory

BUFFER_SETS = 2

Downloaded = tuple[dict[str, FloatArray], dict[str, float]]
"""Outputs of a batch on the host: arrays by name, and the duration of each stage in milliseconds."""


class TensorRtBackend:
    """Both engines on one GPU. Not thread-safe.

    A batch larger than the engines' maximum is split, a batch smaller than their minimum is padded.

    Args:
        trt: Module tensorrt or tensorrt_rtx.
        cuda: Module pycuda.driver.
        serialized: Bytes of each engine, by name of its graph.
        device: Number of the GPU among those that CUDA shows.
        kernels: Where TensorRT-RTX keeps the kernels of each engine, by name of its graph.
        commands: Commands that build the engines, for the fixes of errors; None for engines that were just built.

    Raises:
        CascadeError: If the GPU or CUDA cannot be used, TensorRT rejects an engine or the GPU has too little memory.
    """

    def __init__(
        self,
        trt: ModuleType,
        cuda: ModuleType,
        serialized: Mapping[str, bytes],
        device: int = 0,
        kernels: Mapping[str, KernelCache] | None = None,
        commands: BuildCommands | None = None,
    ) -> None:
        self._cuda = cuda
        try:
            cuda.init()
            gpu = cuda.Device(device)
            self.description = f"{trt.__name__} {trt.__version__} on {gpu.name()}, FP16"
            self._context = gpu.retain_primary_context()
            with self._active_context():
                self._load(trt, serialized, kernels or {}, commands)
        except cuda.MemoryError as error:
            raise out_of_memory(str(error), commands) from error
        except cuda.Error as error:
            raise CascadeError(
                f"the GPU cannot be used ({error})", fix="end the program that has it for itself, or choose another GPU"
            ) from error

    def _load(
        self,
        trt: ModuleType,
        serialized: Mapping[str, bytes],
        kernels: Mapping[str, KernelCache],
        commands: BuildCommands | None,
    ) -> None:
        self._runtime = create_runtime(trt, trt.Logger(trt.Logger.ERROR))  # must outlive its engines
        self._engines = {
            name: LoadedEngine(trt, self._runtime, name, content, kernels.get(name), BUFFER_SETS, commands)
            for name, content in serialized.items()
        }
        self._min_batch = max(engine.min_batch for engine in self._engines.values())
        self._max_batch = min(engine.max_batch for engine in self._engines.values())
        if self._min_batch > self._max_batch:
            raise CascadeError(
                f"the engines have no batch size in common: one requires at least {self._min_batch} slices, the other "
                f"at most {self._max_batch}",
                fix=f"build the engines again: {commands.again}" if commands else "build them for the same batch sizes",
            )
        self._upload_stream, self._compute_stream, self._download_stream = (self._cuda.Stream() for _ in range(3))
        self._buffers = cycle([Buffers(self._cuda, self._max_batch, number) for number in range(BUFFER_SETS)])
        self._finished_batches = 0
        self._saved_sizes: set[int] = set()

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
                self._save_new_kernels(batch)
                events.clear()  # inside the context, where they can be destroyed
            if buffers.batch is events:  # `wait` refers to buffers and backend: only collection would free them
                buffers.finish = lambda: None
            return {name: buffers.host[name][:rows].copy() for name in outputs}, stages_ms

        buffers.finish, buffers.batch = wait, events
        return wait

    def _record_event(self, stream: Any) -> Any:
        event = self._cuda.Event()
        event.record(stream)
        return event

    def _execute(self, graph: str, buffers: "Buffers", batch: int) -> None:
        if not self._engines[graph].execute(buffers.addresses, batch, self._compute_stream.handle, buffers.number):
            raise RuntimeError(f"TensorRT could not run the {graph} on {batch} slices")

    def _save_new_kernels(self, batch: int) -> None:
        """Save kernels after the first batch of each size: the last one of a run is smaller, and a run may be killed.

        TensorRT-RTX may compile further kernels for a size later, so save after batch 2, 4, 8 and so on too.
        """
        self._finished_batches += 1
        if batch not in self._saved_sizes or self._finished_batches.bit_count() == 1:
            self._saved_sizes.add(batch)
            for engine in self._engines.values():
                engine.save_kernels()

    @contextmanager
    def _active_context(self) -> Iterator[None]:
        """Make the CUDA context current on this thread, which pycuda requires."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()


class Buffers:
    """Memory of one batch for every tensor in SHAPES, allocated once.

    Attributes:
        host: Page-locked arrays by tensor name.
        device: Allocations on the GPU by tensor name.
        addresses: Their addresses.
        number: Number of this set of buffers.
        finish: Waits for the batch in the buffers and copies its outputs. Call it before reusing the buffers.
        batch: The events of that batch.
    """

    def __init__(self, cuda: ModuleType, max_batch: int, number: int) -> None:
        shapes = {name: (max_batch, *shape) for name, shape in SHAPES.items()}
        self.host = {name: cuda.pagelocked_empty(shape, np.float32) for name, shape in shapes.items()}
        self.device = {name: cuda.mem_alloc(array.nbytes) for name, array in self.host.items()}
        self.addresses = {name: int(allocation) for name, allocation in self.device.items()}
        self.number = number
        self.finish: Callable[[], object] = lambda: None
        self.batch: object = None


def concatenate(chunks: list[Downloaded]) -> Downloaded:
    """Concatenate the arrays of a batch's chunks and add up their stage times."""
    if len(chunks) == 1:
        return chunks[0]
    arrays = {name: np.concatenate([outputs[name] for outputs, _ in chunks]) for name in chunks[0][0]}
    return arrays, {stage: sum(stages_ms[stage] for _, stages_ms in chunks) for stage in chunks[0][1]}
