"""metrics.json: written for slices and for volumes, and read back for slices."""

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from cascade.discovery.output_marker import EVALUATION
from cascade.errors import CascadeError
from cascade.evaluation.schema import Evaluation
from cascade.evaluation.volume_schema import VolumeEvaluation


def to_json(evaluation: Evaluation | VolumeEvaluation) -> bytes:
    """Serialize an evaluation as metrics.json. The metrics of slices are keys, those of volumes are in `volumes`."""
    content = asdict(evaluation)
    metrics = content.pop("metrics")
    content |= metrics if isinstance(evaluation, Evaluation) else {"volumes": metrics}
    return json.dumps({"schema": EVALUATION, **content}, indent=1, allow_nan=False).encode()


def read_evaluation(path: Path) -> Evaluation:
    """Read a metrics.json of slices that `to_json` serialized.

    Raises:
        CascadeError: Another version of cascade wrote the file, the evaluation was interrupted, or it holds metrics of
            volumes.
    """
    content = json.loads(path.read_text())
    if content.get("schema") != EVALUATION:
        raise CascadeError(
            f"{path}: is incomplete, or was written by another version of cascade",
            fix="delete it, and the evaluation runs again",
        )
    if "volumes" in content:
        raise CascadeError(f"{path}: holds metrics of volumes, not of slices", fix="choose another folder with --out")
    evaluation: Evaluation = _parse(Evaluation, {**content, "metrics": content})
    return evaluation


def _parse(kind: Any, value: Any) -> Any:
    """Build an instance of a type annotation from JSON."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{field.name: _parse(hints[field.name], value[field.name]) for field in fields(kind)})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # X | None
        return None if value is None else _parse(arguments[0], value)
    if origin is dict:
        return {key: _parse(arguments[1], item) for key, item in value.items()}
    if origin is tuple:
        return tuple(_parse(arguments[0], item) for item in value)
    return value
