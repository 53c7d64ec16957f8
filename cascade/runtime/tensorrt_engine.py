"""An engine that TensorRT or TensorRT-RTX has loaded, with the contexts that execute it. Does not need pycuda."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from cascade.contract import SHAPES, SLICE
from cascade.errors import CascadeError
from cascade.runtime.kernel_cache import KernelCache
from cascade.runtime.sidecar import BuildCommands

SET_UP = "run `make gpu` in the source folder, or `python -m build_engines.gpu_setup`"
"""Command that installs TensorRT for the GPU driver, and compiles pycuda without the CUDA toolkit."""


class LoadedEngine:
    """An engine, ready to run. A CUDA context must be current whenever it is used.

    TensorRT-RTX compiles kernels when an engine starts and when it meets a new batch size. Given a `KernelCache`, it
    takes over what is in it, and `save_kernels` writes what was added. An engine for a single batch size also runs as a
    CUDA graph, which starts all its kernels at once. A graph contains the addresses of the tensors, so such an engine
    has one execution context for each set of buffers. Contexts for larger ranges would take too much memory.

    Args:
        trt: Module tensorrt or tensorrt_rtx.
        runtime: Its runtime, which must outlive the engine.
        name: Name of the graph.
        serialized: The engine's bytes.
        kernels: Where the kernels are kept; None to compile them at each start. TensorRT-RTX only.
        buffer_sets: Number of sets of buffers that the engine alternates between.
        commands: Commands that build the engine, for the fixes of errors; None for one that was just built.

    Attributes:
        inputs: Names of the input tensors.
        outputs: Names of the output tensors.
        min_batch: Smallest number of slices.
        max_batch: Largest number of slices.

    Raises:
        CascadeError: If TensorRT rejects the engine or the GPU has too little memory.
    """

    def __init__(
        self,
        trt: ModuleType,
        runtime: Any,
        name: str,
        serialized: bytes,
        kernels: KernelCache | None = None,
        buffer_sets: int = 1,
        commands: BuildCommands | None = None,
    ) -> None:
        # Python frees attributes in this order: the contexts must go before the cache that they use.
        self._contexts: list[Any] = []
        self._runtime_cache: Any = None
        engine = runtime.deserialize_cuda_engine(serialized)
        if engine is None:
            fix = "update the GPU driver"
            if commands:
                fix += f", or build the engines again: {commands.again}"
            raise CascadeError(f"TensorRT cannot load the {name}'s engine", fix=fix)
        self._kernels, self._saved_bytes = kernels, 0
        smallest, _, largest = engine.get_tensor_profile_shape(SLICE, 0)
        self.min_batch, self.max_batch = int(smallest[0]), int(largest[0])
        self.inputs, self.outputs = (
            [
                tensor
                for tensor in map(engine.get_tensor_name, range(engine.num_io_tensors))
                if engine.get_tensor_mode(tensor) == mode
            ]
            for mode in (trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT)
        )
        if trt.__name__ != "tensorrt_rtx":
            self._contexts.append(engine.create_execution_context())
        elif self.min_batch < self.max_batch:
            self._contexts.append(self._create_rtx_context(trt, engine, trt.CudaGraphStrategy.DISABLED))
        else:
            strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._contexts += [self._create_rtx_context(trt, engine, strategy) for _ in range(buffer_sets)]
        if None in self._contexts:
            raise out_of_memory("TensorRT created no execution context", commands)

    def _create_rtx_context(self, trt: ModuleType, engine: Any, cuda_graph_strategy: Any) -> Any:
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = cuda_graph_strategy
        if self._kernels:
            if self._runtime_cache is None:
                self._runtime_cache = config.create_runtime_cache()
                content = self._kernels.read()
                # TensorRT-RTX checks the GPU and the driver once more, and loads nothing that does not fit.
                if content and self._runtime_cache.deserialize(content):
                    self._saved_bytes = len(content)
            config.set_runtime_cache(self._runtime_cache)
        return engine.create_execution_context(runtime_config=config)

    def execute(self, addresses: Mapping[str, int], batch: int, stream: int, buffer_set: int = 0) -> bool:
        """Enqueue the engine.

        Args:
            addresses: Device address of each tensor. Those of one `buffer_set` do not change.
            batch: Number of slices.
            stream: Handle of the CUDA stream.
            buffer_set: Number of the set of buffers.

        Returns:
            False if TensorRT refuses.
        """
        context = self._contexts[buffer_set % len(self._contexts)]
        accepted = [context.set_tensor_address(name, addresses[name]) for name in (*self.inputs, *self.outputs)]
        accepted += [context.set_input_shape(name, (batch, *SHAPES[name])) for name in self.inputs]
        return all(accepted) and bool(context.execute_async_v3(stream))

    def save_kernels(self) -> None:
        """Write the kernels to their file if TensorRT-RTX has compiled new ones since the last time."""
        if self._kernels is None or self._runtime_cache is None:
            return
        serialized = self._runtime_cache.serialize()
        content = b"" if serialized is None else bytes(serialized)
        if content and len(content) != self._saved_bytes:
            self._saved_bytes = len(content)  # also if it cannot be written: the folder stays read-only
            self._kernels.write(content)


def create_runtime(trt: ModuleType, logger: Any) -> Any:
    """Create TensorRT's runtime.

    Raises:
        CascadeError: If CUDA does not start for it.
    """
    try:
        return trt.Runtime(logger)
    except TypeError:  # raised by the bindings for a null pointer
        raise CascadeError(
            f"{trt.__name__} {trt.__version__} cannot start CUDA: it may be too new for the GPU driver",
            fix=f"update the GPU driver, or {SET_UP}",
        ) from None


def out_of_memory(reason: str, commands: BuildCommands | None) -> CascadeError:
    """Return the error for a GPU with too little free memory."""
    fix = "end other programs on the GPU, or build for smaller batches"
    return CascadeError(
        f"the GPU has too little free memory for the models ({reason})",
        fix=f"{fix}: {commands.smaller}" if commands else fix,
    )
