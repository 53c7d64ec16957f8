"""TensorRT engines on disk, each with a JSON sidecar that describes it. Does not need TensorRT.

An engine is executable code for one TensorRT version and certain GPUs. A wrong one fails only when it is loaded, or not
even then. Therefore load only what `find_engine` returned and `incompatibility` accepts. The sidecar reveals a damaged
or mismatched engine. It does not protect against a forged pair, so engines live in a folder of the user's own and are
never looked for beside the input files.
"""

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS, ExportedModel

FLAVORS = ("tensorrt", "tensorrt-rtx")
FORMAT = 1
"""Version of the sidecar format. Sidecars of another version are rejected."""


@dataclass(frozen=True)
class Gpu:
    """Name and compute capability of a GPU, both as NVIDIA writes them: "NVIDIA GeForce RTX 3090", "8.6"."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class BatchProfile:
    """TensorRT's optimization profile: an engine accepts `min` to `max` slices a batch and is fastest at `opt`."""

    min: int = 1
    opt: int = 8
    max: int = 64


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine.

    Attributes:
        name: Name of the tensor.
        dtype: NumPy name of the type.
        min: Shape at the smallest batch of the profile.
        opt: Shape at the fastest batch.
        max: Shape at the largest batch.
    """

    name: str
    dtype: str
    min: list[int]
    opt: list[int]
    max: list[int]


@dataclass(frozen=True)
class Layer:
    """A layer of a network or engine.

    Attributes:
        name: Name of the layer.
        type: TensorRT's layer type.
        inputs: Type of each input, such as fp16, fp32, int64, bool.
        outputs: Type of each output.
    """

    name: str
    type: str
    inputs: list[str]
    outputs: list[str]


@dataclass(frozen=True)
class Verification:
    """Result of the accuracy gate that an engine passed.

    Attributes:
        ran: What was compared with the ONNX graph: `engine`, or `FP16 graph on the CPU` where the engine cannot run.
        source: Origin of the slices.
        slices: Number of slices.
        slices_sha256: Hash of their pixels.
        limits: Limit of each metric: a minimum if its name starts with `min_`, else a maximum.
        results: Value of each metric.
    """

    ran: str
    source: str
    slices: int
    slices_sha256: str
    limits: dict[str, float]
    results: dict[str, float]


@dataclass(frozen=True)
class BuildSpec:
    """Everything that determines an engine. A changed field means that the engine must be built again.

    Attributes:
        name: `segmenter` or `classifier`.
        flavor: One of FLAVORS.
        tensorrt_version: Version that built the engine.
        gpu: Name of the GPU that it was built on and for; None for tensorrt-rtx.
        compute_capabilities: GPUs that it runs on, as in "8.6".
        onnx_sha256: Hash of the exported graph. Changes with the model.
        fp16_sha256: Hash of the converted FP16 graph. Changes with the conversion, too.
        batches: Batch sizes of the engine.
    """

    name: str
    flavor: str
    tensorrt_version: str
    gpu: str | None
    compute_capabilities: list[str]
    onnx_sha256: str
    fp16_sha256: str
    batches: BatchProfile


@dataclass(frozen=True)
class Sidecar:
    """Description of an engine, stored as JSON beside it.

    Attributes:
        spec: What the engine was built from. The key in the JSON is `recipe`.
        engine_sha256: Hash of the engine's bytes.
        inputs: Input tensors.
        outputs: Output tensors.
        build_seconds: Duration of the build, without conversion and accuracy gate.
        date: Date of the build, UTC, ISO 8601.
        verified: Result of the accuracy gate.
        layers_of: `engine` if the layers come from TensorRT's inspector, or `network` if they are those of the strongly
            typed network that the engine was built from.
        precision: Number of layers by layer type and output type, as in {"CONVOLUTION fp16": 59}.
        layers: All layers.
    """

    spec: BuildSpec
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
        content = asdict(self)
        return json.dumps({"format": FORMAT, "recipe": content.pop("spec"), **content}, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> "Sidecar":
        """Parse a sidecar.

        Raises:
            KeyError, TypeError, ValueError: If a field is missing or has the wrong type, or the format is another one.
        """
        content: dict[str, Any] = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        content["spec"] = content.pop("recipe")
        values = {item.name: content[item.name] for item in fields(cls)}
        for name, kind in (("inputs", EngineTensor), ("outputs", EngineTensor), ("layers", Layer)):
            values[name] = [kind(**item) for item in values[name]]
        spec = values["spec"]
        values["spec"] = BuildSpec(**{**spec, "batches": BatchProfile(**spec["batches"])})
        values["verified"] = Verification(**values["verified"])
        return cls(**values)


@dataclass(frozen=True)
class Engine:
    """An engine whose bytes match its sidecar.

    Attributes:
        path: The engine file.
        sidecar: Its description.
        serialized: The bytes read from `path`.
    """

    path: Path
    sidecar: Sidecar
    serialized: bytes = field(repr=False)


def default_engines_folder() -> Path:
    """Folder of engines in the user's cache.

    Raises:
        CascadeError: If the user has no home directory, as in containers with an arbitrary user id.
    """
    folder = _engines_in_cache()
    if folder is None:
        raise CascadeError(
            "there is no home directory for the engines",
            fix="specify the folder of engines, or set HOME or XDG_CACHE_HOME",
        )
    return folder


def _engines_in_cache() -> Path | None:
    try:
        cache = platformdirs.user_cache_path("cascade", appauthor=False)
    except RuntimeError:  # no home directory; older versions of platformdirs return an unexpanded "~" instead
        return None
    return cache / "engines" if cache.is_absolute() else None


def engine_path(name: str, folder: Path, flavor: str) -> Path:
    return folder / f"{name}.{flavor}.engine"


def sidecar_path(name: str, folder: Path, flavor: str) -> Path:
    return folder / f"{name}.{flavor}.json"


def read_sidecar(path: Path) -> Sidecar:
    """Read a sidecar.

    Raises:
        CascadeError: If the file is missing or is not a sidecar of this format.
    """
    fix = "build the engine again with `cascade build`"
    try:
        return Sidecar.from_json(path.read_bytes())
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix=fix) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CascadeError(f"{path}: is not a valid engine sidecar ({error!r})", fix=fix) from error


def find_engine(name: str, folder: Path, flavor: str, graph: ExportedModel) -> Engine:
    """Find the engine of a graph, and check it against its sidecar and the sidecar against the graph.

    Raises:
        CascadeError: If there is no such engine or it was built from another graph. Its fix is the command that builds
            the engine.
    """
    path = engine_path(name, folder, flavor)
    try:
        sidecar = read_sidecar(sidecar_path(name, folder, flavor))
    except CascadeError as error:
        raise CascadeError(error.problem, fix=build_command(flavor, folder, graph.path.parent)) from error
    spec = sidecar.spec
    serialized = path.read_bytes() if path.is_file() else None
    if (spec.name, spec.flavor) != (name, flavor):
        problem = f"{path}: its sidecar describes the {spec.name} for {spec.flavor}"
    elif serialized is None:
        problem = f"{path}: there is no such file"
    elif hashlib.sha256(serialized).hexdigest() != sidecar.engine_sha256:
        problem = f"{path}: does not match its sidecar; it is incomplete or was modified"
    elif spec.onnx_sha256 != graph.sha256:
        problem = f"{path}: was not built from {graph.path}"
    else:
        return Engine(path, sidecar, serialized)
    raise CascadeError(problem, fix=build_command(flavor, folder, graph.path.parent, spec))


def incompatibility(spec: BuildSpec, tensorrt_version: str, gpu: Gpu) -> str | None:
    """Explain why this TensorRT must not load an engine on this GPU, or return None if it may.

    An engine belongs to exactly one TensorRT version: version compatibility would cost speed.

    Args:
        spec: What the engine was built for.
        tensorrt_version: Installed version.
        gpu: GPU of this machine.

    Returns:
        A clause that follows the engine's path, such as "was built by tensorrt 10.12, but 11.0 is installed".
    """
    if spec.tensorrt_version != tensorrt_version:
        return f"was built by {spec.flavor} {spec.tensorrt_version}, but {tensorrt_version} is installed"
    if spec.gpu is not None and spec.gpu != gpu.name:
        return f"was built for the {spec.gpu}, but this GPU is the {gpu.name}"
    if gpu.compute_capability not in spec.compute_capabilities:
        capabilities = ", ".join(spec.compute_capabilities)
        return f"requires compute capability {capabilities}, but the {gpu.name} has {gpu.compute_capability}"
    return None


def build_command(
    flavor: str, folder: Path, models: Path = BUNDLED_MODELS, spec: BuildSpec | None = None, gpu: Gpu | None = None
) -> str:
    """Compose the command that builds both engines.

    Args:
        flavor: One of FLAVORS.
        folder: Folder of the engines.
        models: Folder of the models.
        spec: Repeat the options of this build.
        gpu: Build for this GPU instead of those of `spec`.
    """
    words = ["cascade", "build", "--flavor", flavor]
    if folder != _engines_in_cache():
        words += ["--out", str(folder)]
    if models != BUNDLED_MODELS:
        words += ["--models", str(models)]
    capabilities = [gpu.compute_capability] if gpu else spec.compute_capabilities if spec else []
    if flavor == "tensorrt-rtx" and capabilities:
        words += ["--arch", ",".join(f"sm{item.replace('.', '')}" for item in capabilities)]
    if spec and spec.batches != BatchProfile():
        for name, size in asdict(spec.batches).items():
            words += [f"--{name}-batch", str(size)]
    return shlex.join(words)
