"""The two exported graphs on disk, checked against the manifest models.json in the same folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError
from cascade.files import sha256_of

BUNDLED_MODELS = Path(__file__).parents[1] / "models"
"""Folder of the models that are installed with the package."""

SEGMENTER, CLASSIFIER = "segmenter", "classifier"


@dataclass(frozen=True)
class ExportedModel:
    """One graph whose file matches the manifest.

    Attributes:
        path: The ONNX file.
        sha256: Hash of its bytes.
        record: Its entry in models.json.
    """

    path: Path
    sha256: str
    record: dict[str, Any]

    @property
    def uncertain_below(self) -> float:
        """Class probability below which a prediction of the classifier is uncertain; 0 if the manifest has none."""
        return float(self.record.get("calibration", {}).get("uncertain_below", 0.0))

    @property
    def splits(self) -> set[str]:
        """SHA-256 of every split whose training subset the weights were trained on, as far as runs recorded it."""
        return _splits(self.record)


def _splits(record: dict[str, Any]) -> set[str]:
    averaged = [_splits(other) for other in record.get("average_with", [])]  # of graphs that are averages themselves
    return training_splits(record.get("settings", {})).union(*averaged)


def training_splits(settings: dict[str, Any]) -> set[str]:
    """SHA-256 of the split of a training run, and of the splits that its initial weights were trained on."""
    return {sha256 for sha256 in (settings.get("split_sha256"), *settings.get("other_splits", ())) if sha256}


def find_model(name: str, folder: Path = BUNDLED_MODELS) -> ExportedModel:
    """Find a graph and check its bytes against the manifest.

    Args:
        name: `segmenter` or `classifier`.
        folder: Contains NAME.onnx and models.json.

    Raises:
        CascadeError: If a file is missing or does not match the manifest.
    """
    manifest = folder / "models.json"
    try:
        record = json.loads(manifest.read_text())[name]
        sha256 = str(record["sha256"])
    except (FileNotFoundError, NotADirectoryError):
        raise CascadeError(
            f"{manifest}: there is no such file", fix="specify a folder that `cascade train export` wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CascadeError(
            f"{manifest}: has no valid entry for the {name} ({error!r})", fix="export the models again"
        ) from error
    path = folder / f"{name}.onnx"
    if not path.is_file():
        raise CascadeError(f"{path}: there is no such file", fix="export the model, or install the package again")
    if sha256_of(path) != sha256:
        raise CascadeError(f"{path}: does not match the manifest models.json", fix="export or download it again")
    return ExportedModel(path, sha256, record)
