"""TensorRT engines on disk, each with a JSON sidecar that describes it. Does not need TensorRT.

An engine is executable code for one TensorRT version and certain GPUs. A wrong one fails only when it is loaded, or not
even then. Therefore load only what `find_engine` returned and `incompatibility` accepts. The sidecar reveals a damaged
or mismatched engine. It does not protect against a forged pair, so engines live in a folder of the user's own and are
never looked for beside the input files.
"""

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import platformdirs

from cascade.errors import CascadeError
from cascade.runtime.gpu import Gpu
from cascade.runtime.models import BUNDLED_MODELS, ExportedModel
from cascade.runtime.sidecar import BatchProfile, BuildCommands, BuildSpec, Sidecar, read_sidecar

FLAVORS = ("tensorrt", "tensorrt-rtx")

RTX_CAPABILITIES = ("7.5", "8.6", "8.9", "12.0", "12.1")
"""GPUs in NVIDIA's support matrices of TensorRT-RTX. The others need TensorRT: A100, Hopper, B200."""


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
    """Return the path of the engine of a graph in `folder`."""
    return folder / f"{name}.{flavor}.engine"


def sidecar_path(name: str, folder: Path, flavor: str) -> Path:
    """Return the path of the JSON file that describes that engine."""
    return folder / f"{name}.{flavor}.json"


def find_engine(name: str, folder: Path, flavor: str, graph: ExportedModel, gpu: Gpu | None = None) -> Engine:
    """Find the engine of a graph, and check it against its sidecar and the sidecar against the graph.

    Args:
        name: Name of the graph.
        folder: Folder of the engines.
        flavor: One of FLAVORS.
        graph: The graph.
        gpu: The GPU that the engine is for, if it is known.

    Raises:
        CascadeError: If there is no such engine or it was built from another graph. Its fix is the command that builds
            the engine.
    """
    path = engine_path(name, folder, flavor)
    try:
        sidecar = read_sidecar(sidecar_path(name, folder, flavor))
    except CascadeError as error:
        raise CascadeError(error.problem, fix=build_command(flavor, folder, graph.path.parent, gpu=gpu)) from error
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
    raise CascadeError(problem, fix=build_command(flavor, folder, graph.path.parent, spec, gpu))


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


def build_commands(spec: BuildSpec, folder: Path, models: Path, gpu: Gpu) -> BuildCommands:
    """Compose the commands that build engines of the same specification once more, and for smaller batches.

    Args:
        spec: What one of the engines was built from.
        folder: Folder of the engines.
        models: Folder of the models.
        gpu: The GPU that could not use them.
    """
    largest = max(1, spec.batches.max // 8)
    smaller = replace(spec, batches=BatchProfile(1, largest, largest))
    return BuildCommands(
        f"{build_command(spec.flavor, folder, models, spec, gpu)} --force",
        build_command(spec.flavor, folder, models, smaller, gpu),
    )


def misfits(
    folder: Path, graphs: Mapping[str, ExportedModel], gpu: Gpu, tensorrt_versions: Mapping[str, str]
) -> dict[str, str | None]:
    """Find out which engines of a folder run on a GPU. Engines that were not built are left out.

    Args:
        folder: Folder of the engines.
        graphs: The exported graphs by name.
        gpu: The GPU.
        tensorrt_versions: Installed versions by flavor.

    Returns:
        File name of each engine → why it does not run; None if it does.
    """
    reasons: dict[str, str | None] = {}
    for flavor in FLAVORS:
        for name, graph in graphs.items():
            path = engine_path(name, folder, flavor)
            if not path.is_file():
                continue
            try:
                spec = find_engine(name, folder, flavor, graph, gpu).sidecar.spec
            except CascadeError as error:
                reasons[path.name] = error.problem
                continue
            version = tensorrt_versions.get(flavor)
            reasons[path.name] = incompatibility(spec, version, gpu) if version else f"{flavor} is not installed"
    return reasons


def build_command(
    flavor: str,
    folder: Path | None,
    models: Path = BUNDLED_MODELS,
    spec: BuildSpec | None = None,
    gpu: Gpu | None = None,
) -> str:
    """Compose the command that builds both engines.

    Args:
        flavor: One of FLAVORS.
        folder: Folder of the engines; None for the default.
        models: Folder of the models.
        spec: Repeat the options of this build.
        gpu: Build for this GPU too. Where TensorRT-RTX does not support it, the command builds for TensorRT.
    """
    if gpu and gpu.compute_capability not in RTX_CAPABILITIES:
        flavor = "tensorrt"
    words = ["cascade", "build", "--flavor", flavor]
    if folder and folder != _engines_in_cache():
        words += ["--out", str(folder)]
    if models != BUNDLED_MODELS:
        words += ["--models", str(models)]
    capabilities = set(spec.compute_capabilities if spec else ()) | ({gpu.compute_capability} if gpu else set())
    if flavor == "tensorrt-rtx" and capabilities:
        words += ["--arch", ",".join(f"sm{item.replace('.', '')}" for item in sorted(capabilities, key=float))]
    if gpu and gpu.number:
        words += ["--device", str(gpu.number)]
    if spec and spec.batches != BatchProfile():
        for name, size in asdict(spec.batches).items():
            words += [f"--{name}-batch", str(size)]
    return shlex.join(words)
