"""Choose a runtime and load both graphs into it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.errors import CascadeError
from cascade.files import without_home
from cascade.runtime.engines import FLAVORS
from cascade.runtime.gpu import select_gpu
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER, ExportedModel, find_model

if TYPE_CHECKING:  # loads NumPy, which a command's --help does not need
    from cascade.runtime.protocol import Backend

BACKENDS = ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")
"""Fastest first. `auto` tries them in this order."""

AUTO = "auto"


@dataclass(frozen=True)
class SelectedBackend:
    """A backend with both graphs loaded.

    Attributes:
        name: One of BACKENDS.
        backend: Runs the graphs.
        models: The loaded graphs by name.
        skipped_backends: Faster backends that `auto` could not use: name → reason.
    """

    name: str
    backend: "Backend"
    models: dict[str, ExportedModel]
    skipped_backends: dict[str, str] = field(default_factory=dict)


def open_backend(
    name: str = AUTO,
    models: Path = BUNDLED_MODELS,
    engines: Path | None = None,
    threads: int | None = None,
    device: int | None = None,
) -> SelectedBackend:
    """Load both graphs of a models folder into a backend.

    Args:
        name: One of BACKENDS, or `auto` for the first of them that can run; with a `device`, the first on a GPU.
        models: Folder of the graphs and their manifest.
        engines: Folder of the engines that `cascade build` wrote, for the TensorRT backends; None for the default.
        threads: Number of threads that compute on the CPU; None for one per core.
        device: Number of the GPU among those that CUDA shows; None for the first.

    Raises:
        CascadeError: If the backend is unknown or cannot run here, if there is no such GPU or the backend uses none, or
            if the models do not match their manifest.
    """
    if name not in (AUTO, *BACKENDS):
        raise CascadeError(f"unknown backend {name!r}", fix=f"choose one of {', '.join((AUTO, *BACKENDS))}")
    if device is not None:
        _check_device(name, device)
    graphs = {graph: find_model(graph, models) for graph in (SEGMENTER, CLASSIFIER)}
    if name != AUTO:
        return SelectedBackend(name, _open(name, graphs, engines, threads=threads, device=device), graphs)
    skipped: dict[str, str] = {}
    fix = ""
    for candidate in BACKENDS[:-1] if device is None else FLAVORS:
        try:
            return SelectedBackend(
                candidate,
                _open(candidate, graphs, engines, threads=threads, device=device, only_if_faster=True),
                graphs,
                skipped,
            )
        except CascadeError as error:
            skipped[candidate], fix = without_home(error.problem), error.fix
    if device is not None:
        reasons = "; ".join(f"{candidate}: {reason}" for candidate, reason in skipped.items())
        raise CascadeError(
            f"--device {device}: no backend can use this GPU ({reasons})", fix=f"{fix}; or omit --device"
        )
    return SelectedBackend(BACKENDS[-1], _open(BACKENDS[-1], graphs, engines, threads=threads), graphs, skipped)


def _check_device(name: str, device: int) -> None:
    """Check that a GPU was chosen for a backend that uses one, and that it exists."""
    if name not in (AUTO, *FLAVORS):
        raise CascadeError(f"--device {device}: {name} runs on the CPU", fix="omit --device, or choose another backend")
    select_gpu(device)


def _open(
    name: str,
    graphs: dict[str, ExportedModel],
    engines: Path | None,
    *,
    threads: int | None = None,
    device: int | None = None,
    only_if_faster: bool = False,
) -> "Backend":
    """Load a backend. `only_if_faster` refuses one that works but is no faster than the next of BACKENDS."""
    segmenter, classifier = graphs[SEGMENTER], graphs[CLASSIFIER]
    if name == "openvino":
        from cascade.runtime.openvino import open_openvino

        return open_openvino(segmenter, classifier, only_if_faster=only_if_faster, threads=threads)
    if name == "onnxruntime":
        from cascade.runtime.onnxruntime import open_onnxruntime

        return open_onnxruntime(segmenter, classifier, threads=threads)
    from cascade.runtime.tensorrt import open_tensorrt

    return open_tensorrt(name, segmenter, classifier, engines, device)
