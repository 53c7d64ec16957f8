"""Engines on disk: each a file that TensorRT runs and a sidecar of JSON that vouches for it. Needs no TensorRT.

An engine is executable code, made for one TensorRT version and for certain GPUs, and a wrong one fails only when it is
loaded, if then: nothing may load one that `find_engine` did not return and that `why_unfit` does not pass. The sidecar
tells a damaged or a wrong engine, not one from strangers, who would forge both: hence a folder of the user's own, and
none where the slices lie.
"""

import hashlib
import json
import os
import shlex
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError
from cascade.runtime.models import SHIPPED, Graph

FLAVORS = ("tensorrt", "tensorrt-rtx")
FORMAT = 1
"""Of the sidecar; one of another format is no sidecar."""

ENGINES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cascade" / "engines"
"""The folder that engines are written to and looked for in."""


@dataclass(frozen=True)
class Gpu:
    """compute_capability  as NVIDIA writes it, "8.6"."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Batches:
    """The optimisation profile: an engine takes min to max slices a run and is fastest at opt."""

    min: int = 1
    opt: int = 8
    max: int = 64


@dataclass(frozen=True)
class EngineTensor:
    """An input or output: dtype as NumPy names it, and its shape at the smallest, best and largest batch."""

    name: str
    dtype: str
    min: list[int]
    opt: list[int]
    max: list[int]


@dataclass(frozen=True)
class Layer:
    """inputs and outputs are types, such as fp16, fp32, int64, bool."""

    name: str
    type: str
    inputs: list[str]
    outputs: list[str]


@dataclass(frozen=True)
class Verification:
    """The accuracy gate that was passed.

    ran            what was compared with the ONNX graph: `engine` or, where it cannot run, `FP16 graph on the CPU`.
    slices         how many, from `source`, whose pixels have the hash `slices_sha256`.
    limits         what a result may be at most, or at least where its name says `min`.
    results        what it was.
    """

    ran: str
    source: str
    slices: int
    slices_sha256: str
    limits: dict[str, float]
    results: dict[str, float]


@dataclass(frozen=True)
class Recipe:
    """What an engine is made of and for. Where any of it changes, the engine is another one and is built again.

    gpu                   that it was built on and for; None for tensorrt-rtx.
    compute_capabilities  that it runs on, as in "8.6".
    fp16_sha256           of the FP16 graph that was built: tells a changed conversion, where onnx_sha256 tells a
                          changed model.
    """

    name: str
    flavor: str
    tensorrt_version: str
    gpu: str | None
    compute_capabilities: list[str]
    onnx_sha256: str
    fp16_sha256: str
    batches: Batches


@dataclass(frozen=True)
class Sidecar:
    """What is known of an engine.

    layers_of      `engine`, as its inspector tells, or `network`, the strongly typed network it was built from.
    precision      how many layers of each type write each precision, as in {"CONVOLUTION fp16": 59}.
    build_seconds  without conversion and gate.
    date           of the build, UTC, ISO 8601.
    """

    recipe: Recipe
    engine_sha256: str
    inputs: list[EngineTensor]
    outputs: list[EngineTensor]
    build_seconds: float
    date: str
    verified: Verification
    layers_of: str
    precision: dict[str, int]
    layers: list[Layer]

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Engine:
    """plan  the bytes that the sidecar's hash names, read from `path`."""

    path: Path
    sidecar: Sidecar
    plan: bytes = field(repr=False)


def engine_path(name: str, folder: Path, flavor: str) -> Path:
    return folder / f"{name}.{flavor}.engine"


def sidecar_path(name: str, folder: Path, flavor: str) -> Path:
    return folder / f"{name}.{flavor}.json"


def read_sidecar(path: Path) -> Sidecar:
    """Raises CascadeError where there is none, or it is not one of this format."""
    fix = "build the engine again with `cascade build`"
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise CascadeError(f"{path}: is of format {content['format']}, not {FORMAT}", fix=fix)
        return _sidecar(content)
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix=fix) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CascadeError(f"{path}: is not the sidecar of an engine ({error!r})", fix=fix) from error


def find_engine(name: str, folder: Path, flavor: str, graph: Graph) -> Engine:
    """The engine of a graph, its bytes checked against the sidecar, and that against the graph.

    Raises CascadeError, whose fix is the command that builds it, where there is none or it is not of this graph.
    """
    path = engine_path(name, folder, flavor)
    fix = build_command(flavor, folder, graph.path.parent)
    try:
        sidecar = read_sidecar(sidecar_path(name, folder, flavor))
    except CascadeError as error:
        raise CascadeError(error.problem, fix=fix) from error
    fix = build_command(flavor, folder, graph.path.parent, sidecar.recipe)
    recipe = sidecar.recipe
    plan = path.read_bytes() if path.is_file() else None
    if (recipe.name, recipe.flavor) != (name, flavor):
        problem = f"{path}: its sidecar is that of the {recipe.name} for {recipe.flavor}"
    elif plan is None:
        problem = f"{path}: there is no such file"
    elif hashlib.sha256(plan).hexdigest() != sidecar.engine_sha256:
        problem = f"{path}: is not the file that its sidecar vouches for; it was cut short, changed or half written"
    elif recipe.onnx_sha256 != graph.sha256:
        problem = f"{path}: was built from another {name} than {graph.path}"
    else:
        return Engine(path, sidecar, plan)
    raise CascadeError(problem, fix=fix)


def why_unfit(recipe: Recipe, tensorrt_version: str, gpu: Gpu) -> str | None:
    """Why an engine may not be loaded by this TensorRT on this GPU, as a clause that follows its path; None if it may.

    An engine without version compatibility, which costs speed, belongs to exactly one version of TensorRT.
    """
    if recipe.tensorrt_version != tensorrt_version:
        return f"was built by {recipe.flavor} {recipe.tensorrt_version}, here is {tensorrt_version}"
    if recipe.gpu is not None and recipe.gpu != gpu.name:
        return f"was built on a {recipe.gpu}, here is a {gpu.name}"
    if gpu.compute_capability not in recipe.compute_capabilities:
        built_for = ", ".join(recipe.compute_capabilities)
        return f"runs on compute capability {built_for}, the {gpu.name} has {gpu.compute_capability}"
    return None


def build_command(
    flavor: str, folder: Path, models: Path = SHIPPED, recipe: Recipe | None = None, gpu: Gpu | None = None
) -> str:
    """The command that builds both engines into the folder: with the options of the `recipe`, but for this `gpu`."""
    words = ["cascade", "build", "--flavor", flavor]
    if folder != ENGINES:
        words += ["--out", str(folder)]
    if models != SHIPPED:
        words += ["--models", str(models)]
    capabilities = [gpu.compute_capability] if gpu else recipe.compute_capabilities if recipe else []
    if flavor == "tensorrt-rtx" and capabilities:
        words += ["--arch", ",".join(f"sm{item.replace('.', '')}" for item in capabilities)]
    if recipe and recipe.batches != Batches():
        for name, size in asdict(recipe.batches).items():
            words += [f"--{name}-batch", str(size)]
    return shlex.join(words)


def _sidecar(content: dict[str, Any]) -> Sidecar:
    """Raises KeyError, TypeError or ValueError where a field is missing or of another kind."""
    values = {item.name: content[item.name] for item in fields(Sidecar)}
    for name, kind in (("inputs", EngineTensor), ("outputs", EngineTensor), ("layers", Layer)):
        values[name] = [kind(**item) for item in values[name]]
    recipe = values["recipe"]
    values["recipe"] = Recipe(**{**recipe, "batches": Batches(**recipe["batches"])})
    values["verified"] = Verification(**values["verified"])
    return Sidecar(**values)
