"""START HERE: `build_all` makes the engines of both graphs, with all that has to be true before one is written."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import onnx

from build_engines.builder import Built, build_plan
from build_engines.check_slices import CheckSlices, drawn_check_slices, read_check_slices
from build_engines.fp16 import WEIGHTED, to_fp16
from build_engines.gate import ENGINE, FP16_GRAPH, Reference, find_reference, pass_gate
from build_engines.load import load_graph
from build_engines.precision import count_by_type, engine_layers, load_engine, prove_engine
from build_engines.target import Target, find_target
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.runtime.engines import (
    BatchProfile,
    BuildSpec,
    Engine,
    Layer,
    Sidecar,
    engine_path,
    find_engine,
    sidecar_path,
)
from cascade.runtime.models import CLASSIFIER, SEGMENTER, ExportedModel, find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from cascade.runtime.protocol import LoadedGraph

OpenEngine = Callable[[str, bytes], LoadedGraph]
"""A graph's name and its engine's bytes → what runs it on the GPU that is here."""

Tell = Callable[[str, str, float], None]
"""Called with the graph's name, what is being done, and the share of that which is done, 0 to 1."""


@dataclass(frozen=True)
class Order:
    """What is to be built.

    archs  to build for, as in "sm86"; tensorrt-rtx only, and empty stands for the usual ones.
    check  slices for the accuracy gate: files, folders, patterns; empty takes slices drawn by code.
    force  builds also what is there unchanged.
    """

    models: Path
    out: Path
    flavor: str
    archs: Sequence[str] = ()
    batches: BatchProfile = field(default_factory=BatchProfile)
    check: Sequence[Path] = ()
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """built  False where the engine was there already, made of the same and in the same way."""

    engine: Engine
    built: bool


def build_all(
    order: Order, tell: Tell = lambda name, doing, share: None, open_engine: OpenEngine | None = None
) -> list[Outcome]:
    """The segmenter's and the classifier's engine, built or found unchanged.

    open_engine  runs an engine in the accuracy gate, on a GPU that it was built for; None, or no such GPU here, sends
                 the FP16 graph through the gate instead, and the sidecar says so.

    Raises CascadeError where the order cannot be met here, a graph is not one of ours, TensorRT refuses, or precision
    or accuracy is not what it should be; nothing is then written of the engine concerned.
    """
    batches = order.batches
    if not 1 <= batches.min <= batches.opt <= batches.max:
        raise CascadeError(
            f"batches of {batches.min} at least, {batches.opt} at best and {batches.max} at most contradict each other",
            fix="give 1 <= --min-batch <= --opt-batch <= --max-batch",
        )
    target = find_target(order.flavor, order.archs)
    graphs = {name: find_model(name, order.models) for name in (SEGMENTER, CLASSIFIER)}
    given = read_check_slices(order.check) if order.check else None
    opener = open_engine if target.is_here else None
    reference = None
    outcomes = []
    for name, graph in graphs.items():
        tell(name, "converting", 0.0)
        fp16 = to_fp16(load_graph(name, graph))
        spec = _recipe(name, graph, fp16, target, batches)
        engine = None if order.force else _unchanged(spec, order.out, graph, given, ENGINE if opener else None)
        if engine is None:
            if reference is None:
                tell(name, "running the ONNX graphs", 0.0)
                reference = find_reference(
                    given or drawn_check_slices(), *(OnnxRuntimeGraph(item.path) for item in graphs.values())
                )
            sidecar, plan = _build(spec, fp16, target, order.out, reference, opener, tell)
            engine = _write(sidecar, plan, order.out)
            outcomes.append(Outcome(engine, built=True))
        else:
            outcomes.append(Outcome(engine, built=False))
        tell(name, "done", 1.0)
    return outcomes


def _recipe(name: str, graph: ExportedModel, fp16: onnx.ModelProto, target: Target, batches: BatchProfile) -> BuildSpec:
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


def _unchanged(
    spec: BuildSpec, folder: Path, graph: ExportedModel, given: CheckSlices | None, must_have_run: str | None
) -> Engine | None:
    """The engine that is there, if the spec would make the same one and the gate would ask nothing new of it."""
    try:
        engine = find_engine(spec.name, folder, spec.flavor, graph)
    except CascadeError:
        return None
    verified = engine.sidecar.verified
    same_slices = given is None or given.sha256 == verified.slices_sha256
    enough = must_have_run is None or verified.ran == must_have_run
    return engine if engine.sidecar.spec == spec and same_slices and enough else None


def _build(
    spec: BuildSpec,
    fp16: onnx.ModelProto,
    target: Target,
    out: Path,
    reference: Reference,
    opener: OpenEngine | None,
    tell: Tell,
) -> tuple[Sidecar, bytes]:
    """The engine's bytes and all that is known of it. Raises CascadeError for a precision or accuracy too low."""
    name, ahead_of_time = spec.name, spec.flavor == "tensorrt-rtx"
    built = build_plan(
        target.module,
        _bytes(fp16),
        spec.batches,
        capabilities=spec.compute_capabilities if ahead_of_time else (),
        timing_cache=None if ahead_of_time else out / f"{spec.flavor}-{spec.tensorrt_version}.timing",
        report=lambda share: tell(name, "building", share),
    )
    layers_of, layers = _layers(built, fp16, target)
    tell(name, "checking", 0.0)
    if opener:
        verified = pass_gate(name, opener(name, built.plan), ENGINE, reference, spec.batches)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            write_atomically(path, _bytes(fp16), durable=False)
            verified = pass_gate(name, OnnxRuntimeGraph(path), FP16_GRAPH, reference, spec.batches)
    sidecar = Sidecar(
        spec=spec,
        engine_sha256=hashlib.sha256(built.plan).hexdigest(),
        inputs=built.inputs,
        outputs=built.outputs,
        build_seconds=round(built.seconds, 2),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        verified=verified,
        layers_of=layers_of,
        precision=count_by_type(layers),
        layers=layers,
    )
    return sidecar, built.plan


def _layers(built: Built, fp16: onnx.ModelProto, target: Target) -> tuple[str, list[Layer]]:
    """Those of the engine where it loads here and tells of them, else those of the network it was built from."""
    if target.is_here:
        layers = engine_layers(target.module, load_engine(target.module, built.plan))
        if prove_engine(layers, (node.name for node in fp16.graph.node if node.op_type in WEIGHTED)):
            return "engine", layers
    return "network", built.layers


def _write(sidecar: Sidecar, plan: bytes, folder: Path) -> Engine:
    """The engine first: one whose sidecar is missing, or vouches for what was there before, is none."""
    name, flavor = sidecar.spec.name, sidecar.spec.flavor
    write_atomically(engine_path(name, folder, flavor), plan)
    write_atomically(sidecar_path(name, folder, flavor), sidecar.to_json())
    return Engine(engine_path(name, folder, flavor), sidecar, plan)


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))
