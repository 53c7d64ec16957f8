"""START HERE: `build_all` builds the engines of both graphs and checks them before it writes them."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import onnx

from build_engines.builder import BuiltEngine, build_engine
from build_engines.check_slices import CheckSlices, read_check_slices, simulated_check_slices
from build_engines.fp16 import WEIGHTED, convert_to_fp16
from build_engines.gate import ENGINE, FP16_GRAPH, Reference, check_accuracy, compute_reference
from build_engines.load import load_graph
from build_engines.precision import check_engine, count_layers, engine_layers, load_engine
from build_engines.target import Target, find_target
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.runtime.engines import Engine, engine_path, find_engine, sidecar_path
from cascade.runtime.gpu import current_gpu
from cascade.runtime.models import CLASSIFIER, SEGMENTER, ExportedModel, find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from cascade.runtime.protocol import LoadedGraph
from cascade.runtime.sidecar import BatchProfile, BuildSpec, Layer, Sidecar

EngineLoader = Callable[[str, bytes], LoadedGraph]
"""Loads an engine on the GPU of this machine, given the graph's name and the engine's bytes."""

ProgressCallback = Callable[[str, str, float], None]
"""Called with the graph's name, the current step, and the completed fraction of that step, 0 to 1."""


@dataclass(frozen=True)
class BuildRequest:
    """Options of `cascade build`.

    Attributes:
        models: Folder of the models.
        out: Folder of the engines.
        flavor: `tensorrt` or `tensorrt-rtx`.
        archs: Architectures to build for, as in "sm86"; tensorrt-rtx only. Empty for the default ones.
        batches: Batch sizes of the engines.
        check: Files, folders or patterns of the slices for the accuracy gate. Empty for simulated slices.
        force: Build even if an up-to-date engine exists.
        device: Number of the GPU of this machine that builds and checks; None for the first.
    """

    models: Path
    out: Path
    flavor: str
    archs: Sequence[str] = ()
    batches: BatchProfile = field(default_factory=BatchProfile)
    check: Sequence[Path] = ()
    force: bool = False
    device: int | None = None


@dataclass(frozen=True)
class BuildResult:
    """An engine, and whether it was built now or was already up to date."""

    engine: Engine
    built: bool


def build_all(
    request: BuildRequest,
    on_progress: ProgressCallback = lambda name, step, fraction: None,
    engine_loader: EngineLoader | None = None,
) -> list[BuildResult]:
    """Build the engines of the segmenter and the classifier, unless they are up to date.

    Args:
        request: What to build.
        on_progress: Called as the build progresses.
        engine_loader: Loads an engine for the accuracy gate. If it is None, or the engine is for another GPU, the FP16
            graph is checked on the CPU instead, and the sidecar records this.

    Returns:
        The result for the segmenter, then for the classifier.

    Raises:
        CascadeError: If the request cannot be fulfilled on this machine, a graph has unexpected inputs or outputs,
            TensorRT fails, or an engine's precision or accuracy is insufficient. That engine is then not written.
    """
    batches = request.batches
    if not 1 <= batches.min <= batches.opt <= batches.max:
        raise CascadeError(
            f"invalid batch sizes: minimum {batches.min}, optimum {batches.opt}, maximum {batches.max}",
            fix="choose 1 <= --min-batch <= --opt-batch <= --max-batch",
        )
    target = find_target(request.flavor, request.archs, request.device)
    graphs = {name: find_model(name, request.models) for name in (SEGMENTER, CLASSIFIER)}
    requested_slices = read_check_slices(request.check) if request.check else None
    loader = engine_loader if target.can_run_here else None
    reference = None
    results = []
    for name, graph in graphs.items():
        on_progress(name, "converting", 0.0)
        fp16 = convert_to_fp16(load_graph(name, graph))
        spec = _build_spec(name, graph, fp16, target, batches)
        ran = ENGINE if loader else None
        engine = None if request.force else _up_to_date_engine(spec, request.out, graph, requested_slices, ran)
        built = engine is None
        if engine is None:
            if reference is None:
                on_progress(name, "running the ONNX graphs", 0.0)
                segmenter, classifier = (OnnxRuntimeGraph(graph.path) for graph in graphs.values())
                reference = compute_reference(requested_slices or simulated_check_slices(), segmenter, classifier)
            with current_gpu(target.gpu):
                sidecar, serialized = _build(spec, fp16, target, request.out, reference, loader, on_progress)
            engine = _write(sidecar, serialized, request.out)
        results.append(BuildResult(engine, built))
        on_progress(name, "done", 1.0)
    return results


def _build_spec(
    name: str, graph: ExportedModel, fp16: onnx.ModelProto, target: Target, batches: BatchProfile
) -> BuildSpec:
    return BuildSpec(
        name=name,
        flavor=target.flavor,
        tensorrt_version=target.version,
        gpu=target.gpu.name if target.gpu and target.flavor == "tensorrt" else None,
        compute_capabilities=target.capabilities,
        onnx_sha256=graph.sha256,
        fp16_sha256=hashlib.sha256(_bytes(fp16)).hexdigest(),
        batches=batches,
    )


def _up_to_date_engine(
    spec: BuildSpec, folder: Path, graph: ExportedModel, slices: CheckSlices | None, ran: str | None
) -> Engine | None:
    """Return the existing engine if a new build and accuracy gate would add nothing.

    Args:
        spec: What the engine must have been built from.
        folder: Folder of the engines.
        graph: The exported graph.
        slices: Slices that the accuracy gate must have used; None for any.
        ran: What the accuracy gate must have run; None for any.
    """
    try:
        engine = find_engine(spec.name, folder, spec.flavor, graph)
    except CascadeError:
        return None
    verified = engine.sidecar.verified
    same_slices = slices is None or slices.sha256 == verified.slices_sha256
    same_run = ran is None or verified.ran == ran
    return engine if engine.sidecar.spec == spec and same_slices and same_run else None


def _build(
    spec: BuildSpec,
    fp16: onnx.ModelProto,
    target: Target,
    out: Path,
    reference: Reference,
    loader: EngineLoader | None,
    on_progress: ProgressCallback,
) -> tuple[Sidecar, bytes]:
    """Build an engine and check its precision and accuracy."""
    name, ahead_of_time = spec.name, spec.flavor == "tensorrt-rtx"
    built = build_engine(
        target.module,
        _bytes(fp16),
        spec.batches,
        capabilities=spec.compute_capabilities if ahead_of_time else (),
        timing_cache=None if ahead_of_time else out / f"{spec.flavor}-{spec.tensorrt_version}.timing",
        on_progress=lambda fraction: on_progress(name, "building", fraction),
    )
    layers_of, layers = _layers(built, fp16, target)
    on_progress(name, "checking", 0.0)
    if loader:
        verified = check_accuracy(name, loader(name, built.serialized), ENGINE, reference, spec.batches)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            write_atomically(path, _bytes(fp16), durable=False)
            verified = check_accuracy(name, OnnxRuntimeGraph(path), FP16_GRAPH, reference, spec.batches)
    sidecar = Sidecar(
        spec=spec,
        engine_sha256=hashlib.sha256(built.serialized).hexdigest(),
        inputs=built.inputs,
        outputs=built.outputs,
        build_seconds=round(built.seconds, 2),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        verified=verified,
        layers_of=layers_of,
        precision=count_layers(layers),
        layers=layers,
    )
    return sidecar, built.serialized


def _layers(built: BuiltEngine, fp16: onnx.ModelProto, target: Target) -> tuple[str, list[Layer]]:
    """Layers of the engine if it can be loaded here and its inspector lists them, else those of the network."""
    if target.can_run_here:
        layers = engine_layers(target.module, load_engine(target.module, built.serialized))
        if check_engine(layers, (node.name for node in fp16.graph.node if node.op_type in WEIGHTED)):
            return "engine", layers
    return "network", built.layers


def _write(sidecar: Sidecar, serialized: bytes, folder: Path) -> Engine:
    """Write the engine before its sidecar: after a crash in between, the pair does not match and is rejected."""
    name, flavor = sidecar.spec.name, sidecar.spec.flavor
    write_atomically(engine_path(name, folder, flavor), serialized)
    write_atomically(sidecar_path(name, folder, flavor), sidecar.to_json())
    return Engine(engine_path(name, folder, flavor), sidecar, serialized)


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))
