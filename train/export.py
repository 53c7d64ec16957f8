"""Export a checkpoint: calibrate it, convert it to an ONNX graph, and record it in models.json."""

import importlib.metadata
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cascade import __version__
from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE
from cascade.datasets.split import SUBSETS, Split, read_split
from cascade.errors import CascadeError
from cascade.files import sha256_of_bytes, write_atomically
from cascade.runtime.models import CLASSIFIER, SEGMENTER, find_model
from train.calibrate import calibrate, detection_threshold, mean_calibration, mean_volume_rule
from train.classifier import ClassifierNetwork, draw_masks, validation_logits
from train.dataset import SegmenterData, SliceStore, inpainted_copies, pooled
from train.external import NEGATIVE, ExternalSlice
from train.external_store import ExternalStore
from train.history import read_history
from train.onnx_graph import largest_difference, round_weights_to_fp16, to_onnx
from train.preprocessing import ClassifierGraph, SegmenterGraph
from train.segmenter import detection_logits
from train.segmenter_network import SegmenterNetwork
from train.weights import GRAPH, load_fitting, mean_weights

COMPARED_SLICES = 32
"""Number of validation slices, taken evenly, on which graph and PyTorch are compared."""

FIGSHARE = "figshare brain tumor dataset by Jun Cheng, doi 10.6084/m9.figshare.1512427, CC BY 4.0"
OTHER_DATA = "other than figshare's; the split's sha256 names it"


def export_model(
    name: str,
    run: Path,
    folder: Path,
    split_file: Path,
    models: Path,
    *,
    checkpoint: str = "best",
    average_with: Sequence[Path] = (),
    thresholds_of: Sequence[Path] = (),
    external: Sequence[ExternalSlice] = (),
) -> dict[str, Any]:
    """Write `name`.onnx and its entry in models.json to the folder `models`.

    The validation part calibrates the model: the segmenter's detection threshold; the classifier's temperature and
    uncertainty threshold, with the masks of the segmenter that is in `models` already. A model that was trained on all
    subjects takes these values from models of the same recipe that left some out, such as those of a cross-validation.

    Args:
        name: `segmenter` or `classifier`.
        run: Folder of the training run, or an exported graph in a folder of models, to calibrate it again.
        folder: The data set.
        split_file: The split that the run was trained on.
        models: Folder to write to.
        checkpoint: Checkpoint of the run: `best` or `last`.
        average_with: Checkpoints of other runs, or exported graphs. The mean of all weights is exported.
        thresholds_of: Folders of models whose mean thresholds, temperature and rule for volumes are taken, instead of
            calibrating.
        external: External slices. The record states, by set, on how many of their validation part the segmenter sees a
            tumor. They do not set the threshold.

    Returns:
        The entry in models.json.

    Raises:
        CascadeError: Graph and PyTorch differ by more than TOLERANCE or in any class, or the split or its files are
            not those of the runs, or the split has no validation part to calibrate on. Nothing is written then.
    """
    if external and (name != SEGMENTER or thresholds_of):
        raise CascadeError(
            "--external measures a segmenter whose threshold is set in the export",
            fix="omit it with --thresholds-of, and for the classifier",
        )
    split = read_split(split_file)
    held_out = split.subset("validation")
    if not held_out and not thresholds_of:
        raise CascadeError(
            f"{split_file}: has no validation subset to calibrate the {name} on",
            fix="give --thresholds-of MODELS: models of the same recipe that were calibrated on a validation subset",
        )
    first = run / f"{checkpoint if held_out else 'last'}.ckpt"  # without validation no epoch is the best one
    checkpoints = [run if run.suffix == GRAPH else first, *average_with]
    # Models of other splits may know the subjects that this split holds out. A split that holds out nobody may use any.
    for checkpoint_file in checkpoints if held_out else checkpoints[:1]:
        if _settings(checkpoint_file)["split_sha256"] != split.sha256:
            named = checkpoint_file if checkpoint_file.suffix == GRAPH else checkpoint_file.parent
            raise CascadeError(
                f"{named}: was trained on another split than {split_file}",
                fix="give the split it was trained on",
            )
    network = SegmenterNetwork() if name == SEGMENTER else ClassifierNetwork()
    load_fitting(network, mean_weights(checkpoints), str(run))
    round_weights_to_fp16(network)
    network.eval()
    store = SliceStore(folder, held_out or split.subset("train")[:COMPARED_SLICES], "reading slices")
    outputs = [PROBABILITY] if name == SEGMENTER else [CLASS_PROBABILITY, BOX]
    volume_rule: dict[str, Any] = {}
    if thresholds_of:
        others = [find_model(name, other) for other in thresholds_of]
        calibration, volume_rule = mean_calibration(others), mean_volume_rule(others)
        graph = _graph(network, calibration).eval()
    elif name == SEGMENTER:
        validation = [item for item in external if item.part == "validation"]
        graph, calibration = _calibrated_segmenter(network, store, validation)
    else:
        graph, calibration = _calibrated_classifier(network, store, models)
    inputs = _compared(name, store)
    content = to_onnx(graph, inputs, outputs).SerializeToString()
    difference = largest_difference(content, graph, inputs, outputs[0])
    trained = _training(checkpoints[0])
    averaged = [*trained.pop("average_with", []), *(_training(other) for other in average_with)]
    record = {
        "sha256": sha256_of_bytes(content),
        **_origin(split),
        **trained,
        **({"average_with": averaged} if averaged else {}),
        "comparison_with_pytorch": {"slices": len(inputs[SLICE]), "max_abs_difference": difference},
        "calibration": calibration,
        **volume_rule,
    }
    table = models / "models.json"
    entries = json.loads(table.read_text()) if table.exists() else {}
    text = json.dumps({**entries, name: record}, indent=1, allow_nan=False)
    write_atomically(models / f"{name}.onnx", content)
    write_atomically(table, text.encode() + b"\n")
    return record


def _calibrated_segmenter(
    network: nn.Module, store: SliceStore, external: Sequence[ExternalSlice]
) -> tuple[nn.Module, dict[str, Any]]:
    """The graph to export, and the entry for models.json about its threshold."""
    data = SegmenterData(store)
    tumor = detection_logits(network, data.slices)
    negative = detection_logits(network, inpainted_copies(data, store.subjects).tensors[0])
    threshold, calibration = detection_threshold(tumor, negative)
    if external:
        slices = pooled(ExternalStore(external, "reading external validation").slices)
        seen = detection_logits(network, slices).sigmoid() >= threshold
        calibration["external"] = _by_set(external, seen)
    return SegmenterGraph(network, threshold).eval(), calibration


def _graph(network: nn.Module, calibration: dict[str, Any]) -> nn.Module:
    if "temperature" in calibration:
        return ClassifierGraph(network, calibration["temperature"])
    return SegmenterGraph(network, calibration["detection_threshold"])


def _by_set(external: Sequence[ExternalSlice], seen: Tensor) -> dict[str, dict[str, Any]]:
    """Slices and the fraction on which a tumor is detected, by set, for tumor-free slices and the others apart."""
    groups: dict[tuple[str, bool], list[bool]] = {}
    for item, detected in zip(external, seen.tolist(), strict=True):
        groups.setdefault((item.set_name, item.label == NEGATIVE), []).append(detected)
    found: dict[str, dict[str, Any]] = {}
    for (set_name, negative), detected in sorted(groups.items()):
        key = "false_positive_rate" if negative else "sensitivity"
        entry = found.setdefault(set_name, {})
        entry["negatives" if negative else "tumors"] = len(detected)
        entry[key] = sum(detected) / len(detected)
    return found


def _calibrated_classifier(network: nn.Module, store: SliceStore, models: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The graph to export, and the entry for models.json about its temperature.

    Slices on which the segmenter finds no tumor do not count: the classifier never sees them.
    """
    segmenter = find_model(SEGMENTER, models)
    masks = draw_masks(store, segmenter)
    detected = masks.flatten(1).any(1)
    if not detected.any():
        raise CascadeError(
            f"{segmenter.path}: finds no tumor in any slice of the validation part", fix="train the segmenter longer"
        )
    logits = validation_logits(network, store, masks)[detected]
    temperature, calibration = calibrate(logits, store.labels[detected])
    return ClassifierGraph(network, temperature).eval(), {**calibration, "segmenter_sha256": segmenter.sha256}


def _compared(name: str, store: SliceStore) -> dict[str, Tensor]:
    """Choose up to COMPARED_SLICES slices; for the classifier with their true masks."""
    chosen = torch.linspace(0, len(store) - 1, min(COMPARED_SLICES, len(store))).long()
    inputs = {SLICE: store.slices[chosen].float()}
    if name == CLASSIFIER:
        inputs[PROBABILITY] = store.masks[chosen].float()
    return inputs


def _origin(split: Split) -> dict[str, Any]:
    """Describe the data and the package versions, for models.json."""
    figshare = all(item.path.lower().endswith(".mat") for item in split.slices)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "data": FIGSHARE if figshare else OTHER_DATA,
        "slices": {part: len(split.subset(part)) for part in SUBSETS},
        "versions": {
            "cascade": __version__,  # which a checkout that nobody installed has, too
            **{name: importlib.metadata.version(name) for name in ("torch", "torchvision", "onnx")},
        },
    }


def _training(checkpoint: Path) -> dict[str, Any]:
    """Describe the run of a checkpoint or of an exported graph, for models.json."""
    if checkpoint.suffix == GRAPH:
        record = find_model(checkpoint.stem, checkpoint.parent).record
        kept = ("checkpoint", "validation", "settings", "average_with")
        return {"graph_sha256": record["sha256"], **{name: record[name] for name in kept if name in record}}
    settings = _settings(checkpoint)
    return {
        "checkpoint": checkpoint.stem,
        "validation": _epoch(checkpoint.parent, checkpoint.stem),
        "settings": settings | {"weights": Path(settings["weights"]).name},  # of a file its name, no path
    }


def _settings(checkpoint: Path) -> dict[str, Any]:
    """Read the settings of the run of a checkpoint or of an exported graph."""
    if checkpoint.suffix == GRAPH:
        return dict(find_model(checkpoint.stem, checkpoint.parent).record["settings"])
    run = checkpoint.parent
    try:
        settings: dict[str, Any] = json.loads((run / "settings.json").read_text())
    except (OSError, ValueError) as error:
        raise CascadeError(
            f"{run}: is not the folder of a training run ({error})", fix="give the --out of a training"
        ) from error
    return settings


def _epoch(run: Path, checkpoint: str) -> dict[str, float]:
    """Find the row of metrics.csv of the epoch in best.ckpt or last.ckpt, without values that are not finite."""
    rows = read_history(run)
    score = "validation_score" if "validation_score" in rows[0] else "validation_f1"
    row = rows[-1] if checkpoint == "last" else max(rows, key=lambda row: row[score])
    return {name: value for name, value in row.items() if math.isfinite(value)}
