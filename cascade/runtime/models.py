"""The two graphs on disk and models.json beside them, which vouches for their bytes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError
from cascade.files import sha256_of

SHIPPED = Path(__file__).parents[1] / "models"
"""The folder of the models that come with the package."""

SEGMENTER, CLASSIFIER = "segmenter", "classifier"


@dataclass(frozen=True)
class Graph:
    """One exported model: `path` holds the bytes that `sha256` names; `record` is its whole entry in models.json."""

    path: Path
    sha256: str
    record: dict[str, Any]

    @property
    def uncertain_below(self) -> float:
        """Of the classifier: a class stated with less probability than this is not to be relied on; 0 if unknown."""
        return float(self.record.get("calibration", {}).get("uncertain_below", 0.0))

    @property
    def splits(self) -> set[str]:
        """sha256 of each split whose training part its weights learned from, as far as runs and their starts told."""
        runs = [self.record, *self.record.get("average_with", [])]
        return {sha256 for run in runs for sha256 in splits_of(run.get("settings", {}))}


def splits_of(settings: dict[str, Any]) -> set[str]:
    """Of a run: sha256 of its split, and of those whose training part was learned by what it started from."""
    return {sha256 for sha256 in (settings.get("split_sha256"), *settings.get("other_splits", ())) if sha256}


def find_graph(name: str, folder: Path = SHIPPED) -> Graph:
    """The graph `segmenter` or `classifier` of a models folder, its bytes checked against models.json.

    Raises CascadeError where a file is missing or was changed.
    """
    table = folder / "models.json"
    try:
        record = json.loads(table.read_text())[name]
        sha256 = str(record["sha256"])
    except FileNotFoundError:
        raise CascadeError(
            f"{table}: there is no such file", fix="give a folder that `cascade train export` wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CascadeError(
            f"{table}: does not describe the {name} ({error!r})", fix="export the models again"
        ) from error
    path = folder / f"{name}.onnx"
    if not path.is_file():
        raise CascadeError(f"{path}: there is no such file", fix="export the model, or install the package again")
    if sha256_of(path) != sha256:
        raise CascadeError(f"{path}: is not the file that models.json vouches for", fix="export or download it again")
    return Graph(path, sha256, record)
