"""TensorRT and TensorRT-RTX: find the GPU, the packages and the engines, and load them into a backend."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, FloatArray
from cascade.errors import CascadeError
from cascade.runtime.engines import (
    build_command,
    build_commands,
    default_engines_folder,
    find_engine,
    incompatibility,
)
from cascade.runtime.gpu import find_gpu, select_gpu
from cascade.runtime.kernel_cache import kernel_cache
from cascade.runtime.models import CLASSIFIER, SEGMENTER, ExportedModel
from cascade.runtime.protocol import LoadedGraph
from cascade.runtime.tensorrt_backend import TensorRtBackend
from cascade.runtime.tensorrt_engine import SET_UP


def open_tensorrt(
    flavor: str,
    segmenter: ExportedModel,
    classifier: ExportedModel,
    engines: Path | None = None,
    device: int | None = None,
) -> TensorRtBackend:
    """Load the engines that `cascade build` made from these two graphs.

    Args:
        flavor: `tensorrt` or `tensorrt-rtx`.
        segmenter: The segmenter's graph.
        classifier: The classifier's graph.
        engines: Folder of the engines; None for the default.
        device: Number of the GPU among those that CUDA shows; None for the first.

    Raises:
        CascadeError: If TensorRT, pycuda or the GPU is missing, or if an engine is missing, was modified, or was built
            for another graph, TensorRT version or GPU.
    """
    trt = import_tensorrt(flavor, extra=flavor, set_up=SET_UP)
    gpu = select_gpu(device)
    folder = engines or default_engines_folder()
    graphs = {SEGMENTER: segmenter, CLASSIFIER: classifier}
    found = {name: find_engine(name, folder, flavor, graph, gpu) for name, graph in graphs.items()}
    for engine in found.values():
        if reason := incompatibility(engine.sidecar.spec, trt.__version__, gpu):
            fix = build_command(flavor, folder, segmenter.path.parent, engine.sidecar.spec, gpu)
            raise CascadeError(f"{engine.path}: {reason}", fix=fix)
    return TensorRtBackend(
        trt,
        import_pycuda(),
        {name: engine.serialized for name, engine in found.items()},
        gpu.number,
        {
            name: kernel_cache(engine.path, engine.sidecar.engine_sha256, trt.__version__, gpu)
            for name, engine in found.items()
        },
        build_commands(found[SEGMENTER].sidecar.spec, folder, segmenter.path.parent, gpu),
    )


def engine_loader(flavor: str, device: int | None = None) -> Callable[[str, bytes], LoadedGraph] | None:
    """Return a function that loads a serialized engine, or None if this machine cannot run engines.

    Args:
        flavor: `tensorrt` or `tensorrt-rtx`.
        device: Number of the GPU among those that CUDA shows; None for the first.

    Returns:
        A function of the graph's name and the engine's bytes. None without a GPU or pycuda.
    """
    gpu = find_gpu(device or 0)
    if gpu is None:
        return None
    try:
        cuda = import_pycuda()
    except CascadeError:
        return None
    return lambda name, serialized: SingleEngine(
        name, TensorRtBackend(import_tensorrt(flavor, extra=flavor), cuda, {name: serialized}, gpu.number)
    )


def import_tensorrt(flavor: str, extra: str, set_up: str = "") -> ModuleType:
    """Import the module of a flavor.

    Raises:
        CascadeError: If it is not installed. The fix names `extra`, which installs it, after the command `set_up`.
    """
    fix = f"pip install 'cascade-mri[{extra}]'"
    return _import(flavor.replace("-", "_"), flavor, f"{set_up}, or {fix}" if set_up else fix)


def import_pycuda() -> ModuleType:
    """Import pycuda's driver interface.

    Raises:
        CascadeError: If it is not installed, or does not fit the GPU driver.
    """
    return _import("pycuda.driver", "pycuda", SET_UP)


def _import(module: str, package: str, fix: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise CascadeError(f"{package} is not installed ({error})", fix=fix) from error
    except (ImportError, OSError) as error:  # its shared libraries, or those of the driver, are missing or do not fit
        raise CascadeError(f"{package} cannot be loaded ({error})", fix=fix) from error


class SingleEngine:
    """One engine as a `LoadedGraph`, for the accuracy gate of `cascade build`."""

    def __init__(self, name: str, backend: TensorRtBackend) -> None:
        self._name, self._backend = name, backend
        self._outputs = (PROBABILITY,) if name == SEGMENTER else (CLASS_PROBABILITY, BOX)

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        """See `LoadedGraph.run`."""
        arrays, _ = self._backend.submit_graphs(inputs, (self._name,), self._outputs).result()
        return arrays
