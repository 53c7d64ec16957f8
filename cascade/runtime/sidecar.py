"""JSON sidecar of a TensorRT engine: what the engine was built from and for, and how it was checked."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError

FORMAT = 1
"""Version of the sidecar format. Sidecars of another version are rejected."""


@dataclass(frozen=True)
class BatchProfile:
    """TensorRT's optimization profile: an engine accepts `min` to `max` slices a batch and is fastest at `opt`."""

    min: int = 1
    opt: int = 8
    max: int = 64


@dataclass(frozen=True)
class BuildCommands:
    """Commands that build both engines once more, for the fixes of errors.

    Attributes:
        again: Builds the same engines.
        smaller: Builds engines that need less memory.
    """

    again: str
    smaller: str


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
        """Encode the sidecar as UTF-8 JSON, which `from_json` reads."""
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
