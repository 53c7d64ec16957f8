"""Build an engine from an FP16 graph with TensorRT or TensorRT-RTX, which share one API.

Networks are strongly typed, so the graph determines the precision. TensorRT 11 has no other kind of network, and no
longer the flag that requests this kind.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_engines.logger import shared_logger
from build_engines.precision import check_network, network_layers
from build_engines.progress import ProgressCallback, interruptible, progress_monitor
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.runtime.sidecar import BatchProfile, EngineTensor, Layer


@dataclass(frozen=True)
class BuiltEngine:
    """A new engine.

    Attributes:
        serialized: The engine's bytes.
        inputs: Its input tensors.
        outputs: Its output tensors.
        layers: Layers of the network it was built from, whose precision was checked.
        seconds: Duration of the build.
    """

    serialized: bytes
    inputs: list[EngineTensor]
    outputs: list[EngineTensor]
    layers: list[Layer]
    seconds: float


def build_engine(
    tensorrt: Any,
    graph: bytes,
    batches: BatchProfile,
    *,
    capabilities: Sequence[str] = (),
    timing_cache: Path | None = None,
    on_progress: ProgressCallback = lambda fraction: None,
) -> BuiltEngine:
    """Build the engine of an FP16 ONNX graph.

    Args:
        tensorrt: Module tensorrt or tensorrt_rtx.
        graph: Bytes of the ONNX file.
        batches: Batch sizes of the engine.
        capabilities: Compute capabilities to build for ahead of time, as in "8.6". Empty for this machine's GPU.
        timing_cache: File of kernel timings. Read if it is compatible, and written after the build.
        on_progress: Called with the completed fraction, 0 to 1.

    Raises:
        CascadeError: If the parser or the builder fails, or the network's precision is wrong.
        KeyboardInterrupt: After Ctrl-C, once TensorRT has ended its current step.
    """
    logger = shared_logger(tensorrt)
    logger.errors.clear()
    try:
        builder = tensorrt.Builder(logger)
    except TypeError:  # raised by the bindings for a null pointer: CUDA did not start
        raise _tensorrt_error("start", logger.errors) from None
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise _tensorrt_error("read the graph", [f"{error.desc()} {error.node_name()}".strip() for error in errors])
    layers = network_layers(network)
    check_network(layers)
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # the inspector then lists the layers' types
    inputs = [_engine_tensor(network.get_input(index), batches) for index in range(network.num_inputs)]
    outputs = [_engine_tensor(network.get_output(index), batches) for index in range(network.num_outputs)]
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        profile.set_shape(tensor.name, tuple(tensor.min), tuple(tensor.opt), tuple(tensor.max))
    if config.add_optimization_profile(profile) < 0:
        raise _tensorrt_error("use these batch sizes", logger.errors)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            member = getattr(tensorrt.ComputeCapability, f"SM{capability.replace('.', '')}")
            if not config.set_compute_capability(member, index):
                raise _tensorrt_error(f"build for {capability}", logger.errors)
    cache = load_timing_cache(config, timing_cache) if timing_cache else None
    monitor = progress_monitor(tensorrt, on_progress)
    config.progress_monitor = monitor
    start = time.perf_counter()
    with interruptible(monitor):
        serialized = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - start
    if serialized is None:
        raise _tensorrt_error("build the engine", logger.errors)
    on_progress(1.0)
    if timing_cache and cache is not None:
        write_atomically(timing_cache, bytes(config.get_timing_cache().serialize()))
    return BuiltEngine(bytes(serialized), inputs, outputs, layers, seconds)


def _engine_tensor(tensor: Any, batches: BatchProfile) -> EngineTensor:
    """Describe a tensor whose first dimension, the batch, is its only dynamic one."""
    dtype = {"FLOAT": "float32", "HALF": "float16"}.get(tensor.dtype.name, tensor.dtype.name.lower())
    shape = [int(length) for length in tuple(tensor.shape)[1:]]
    return EngineTensor(
        tensor.name, dtype, min=[batches.min, *shape], opt=[batches.opt, *shape], max=[batches.max, *shape]
    )


def load_timing_cache(config: Any, path: Path) -> Any:
    """Load the kernel timings of earlier builds, or an empty cache if they are from another GPU or version."""
    for content in (path.read_bytes() if path.is_file() else b"", b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


def _tensorrt_error(action: str, messages: Sequence[str]) -> CascadeError:
    return CascadeError(
        f"TensorRT could not {action}: {'; '.join(messages[:3]) or 'no error message'}",
        fix="update the TensorRT package and the GPU driver, or use the onnxruntime backend",
    )
