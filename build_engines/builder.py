"""An FP16 graph → an engine's bytes, with TensorRT or TensorRT-RTX: the two share one API, `tensorrt` is either module.

Networks are strongly typed: the precision is the graph's own. TensorRT 11 has no other kind of network, and what it
lacks, such as the flag that asks for this kind, is not asked for.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_engines.precision import network_layers, prove_network
from build_engines.progress import Report, interruptible, progress_monitor
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.runtime.engines import BatchProfile, EngineTensor, Layer


@dataclass(frozen=True)
class Built:
    """plan  the engine's bytes.  layers  of the network it was built from, seen to have the precision they should."""

    plan: bytes
    inputs: list[EngineTensor]
    outputs: list[EngineTensor]
    layers: list[Layer]
    seconds: float


def build_plan(
    tensorrt: Any,
    graph: bytes,
    batches: BatchProfile,
    *,
    capabilities: Sequence[str] = (),
    timing_cache: Path | None = None,
    report: Report = lambda fraction: None,
) -> Built:
    """Builds the engine of an FP16 ONNX graph.

    capabilities  to build for, as in "8.6", ahead of time; empty builds for the GPU that is here.
    timing_cache  file that tells how fast each kernel was; read where it fits, and written.
    report        is called with the share that is done, 0 to 1.

    Raises CascadeError where the parser or the builder refuses, with what it says, or the precision is not as it
    should be; KeyboardInterrupt after Ctrl-C, which TensorRT obeys between two steps.
    """
    log = _log(tensorrt)
    try:
        builder = tensorrt.Builder(log)
    except TypeError:  # what its bindings make of a null pointer: CUDA did not start
        raise _refused("start", log.errors) from None
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise _refused("read the graph", [f"{error.desc()} {error.node_name()}".strip() for error in errors])
    layers = network_layers(network)
    prove_network(layers)
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # so that the engine tells its layers' types
    inputs = [_tensor(network.get_input(index), batches) for index in range(network.num_inputs)]
    outputs = [_tensor(network.get_output(index), batches) for index in range(network.num_outputs)]
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        profile.set_shape(tensor.name, tuple(tensor.min), tuple(tensor.opt), tuple(tensor.max))
    if config.add_optimization_profile(profile) < 0:
        raise _refused("take the batch sizes", log.errors)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, item in enumerate(capabilities):
            member = getattr(tensorrt.ComputeCapability, f"SM{item.replace('.', '')}")
            if not config.set_compute_capability(member, index):
                raise _refused(f"build for {item}", log.errors)
    cache = fitting_timing_cache(config, timing_cache) if timing_cache else None
    monitor = progress_monitor(tensorrt, report)
    config.progress_monitor = monitor
    start = time.perf_counter()
    with interruptible(monitor):
        plan = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - start
    if plan is None:
        raise _refused("build the engine", log.errors)
    report(1.0)
    if timing_cache and cache is not None:
        write_atomically(timing_cache, bytes(config.get_timing_cache().serialize()))
    return Built(bytes(plan), inputs, outputs, layers, seconds)


def _tensor(tensor: Any, batches: BatchProfile) -> EngineTensor:
    """Of one dynamic dimension, the first: the batch."""
    dtype = {"FLOAT": "float32", "HALF": "float16"}.get(tensor.dtype.name, tensor.dtype.name.lower())
    shape = [int(side) for side in tuple(tensor.shape)[1:]]
    return EngineTensor(
        tensor.name, dtype, min=[batches.min, *shape], opt=[batches.opt, *shape], max=[batches.max, *shape]
    )


def fitting_timing_cache(config: Any, path: Path) -> Any:
    """What earlier builds measured; an empty one where there is none, or it is from another version or GPU."""
    for content in (path.read_bytes() if path.is_file() else b"", b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


def _log(tensorrt: Any) -> Any:
    """TensorRT's logger, which keeps what went wrong instead of printing it."""

    class Log(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= tensorrt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Log()


def _refused(action: str, messages: Sequence[str]) -> CascadeError:
    return CascadeError(
        f"TensorRT could not {action}: {'; '.join(messages[:3]) or 'it does not say why'}",
        fix="update the TensorRT package and the GPU's driver, or use the onnxruntime backend",
    )
