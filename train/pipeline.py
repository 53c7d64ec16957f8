"""Both models of one split: train, export and evaluate them. Finished steps are not repeated."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade.datasets.split import read_split
from cascade.errors import CascadeError
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.metrics_json import read_evaluation
from cascade.evaluation.schema import Evaluation
from cascade.files import sha256_of, write_atomically
from cascade.runtime.models import CLASSIFIER, SEGMENTER
from train.classifier import ClassifierSettings, start_tensors, train_classifier
from train.export import export_model
from train.external import ExternalSlice, check_subjects, sha256_of_items
from train.segmenter import SegmenterSettings, train_segmenter
from train.segmenter_network import SegmenterNetwork, start_weights
from train.weights import splits_behind


@dataclass(frozen=True)
class PipelineSettings:
    """Settings of both trainings.

    Attributes:
        segmenter: Settings of the segmenter's training.
        classifier: Settings of the classifier's training.
        external: Slices of other scanners that both learn from.
        checkpoint: Epoch of each training to export: `best` on the validation subset, or `last`.
    """

    segmenter: SegmenterSettings
    classifier: ClassifierSettings
    external: Sequence[ExternalSlice] = ()
    checkpoint: str = "best"


def prepare_pipeline(out: Path, split_file: Path, settings: PipelineSettings, **more: Any) -> dict[str, Any]:
    """Record in `out` what the results depend on, `more` included, or check the record of an earlier call.

    Returns:
        The record.

    Raises:
        CascadeError: `out` was begun with other settings or slices, or the weights to start from are not available.
            The classifier's training begins hours later, so this is checked first.
    """
    check_subjects(settings.external)
    file = out / "settings.json"
    earlier = json.loads(file.read_text()) if file.exists() else {}
    record = {
        "split_sha256": read_split(split_file).sha256,
        **more,
        "start": _start(settings, earlier.get("start", {})),
        "external_sha256": sha256_of_items(settings.external) if settings.external else None,
        "checkpoint": settings.checkpoint,
        "segmenter": asdict(settings.segmenter),
        "classifier": asdict(settings.classifier),
    }
    if not earlier:
        start_weights(SegmenterNetwork(), settings.segmenter.weights)
        start_tensors(settings.classifier.weights)
        write_atomically(file, json.dumps(record, indent=1).encode())
    elif earlier != record:
        changed = ", ".join(name for name in {**record, **earlier} if earlier.get(name) != record.get(name))
        raise CascadeError(
            f"{out}: was begun with other settings or slices ({changed})", fix="choose another folder with --out"
        )
    return record


def _start(settings: PipelineSettings, earlier: dict[str, Any]) -> dict[str, Any]:
    """Describe the files of weights that both trainings start from. Those of a resumed run may be gone by now."""
    files = {SEGMENTER: Path(settings.segmenter.weights), CLASSIFIER: Path(settings.classifier.weights)}
    return {
        name: {"sha256": sha256_of(file), "splits": sorted(splits_behind(file))}
        if file.is_file()
        else earlier.get(name)
        for name, file in files.items()
    }


def train_pipeline(
    folder: Path, split_file: Path, out: Path, settings: PipelineSettings, *, subset: str, evaluation: Path
) -> Evaluation:
    """Train both models, export them to out/models and evaluate them; continue where an earlier call ended.

    Args:
        folder: The data set.
        split_file: Its split.
        out: Folder for the runs, out/segmenter and out/classifier, and for the models.
        settings: Settings of both trainings.
        subset: Subset of the split to evaluate.
        evaluation: Folder for the metrics of that subset.

    Returns:
        The content of metrics.json.

    Raises:
        CascadeError: The split has no validation subset, which exports need, or a training or an export fails.
    """
    if not read_split(split_file).subset("validation"):
        raise CascadeError(
            f"{split_file}: its validation subset is empty, and thresholds are set there",
            fix="give a split with one, or train and export each model, with --thresholds-of",
        )
    models = out / "models"
    table = models / "models.json"
    external, checkpoint = settings.external, settings.checkpoint
    if not table.exists():
        run = out / SEGMENTER
        resume = (run / "last.ckpt").exists()
        train_segmenter(folder, split_file, run, settings.segmenter, external=external, resume=resume)
        export_model(SEGMENTER, run, folder, split_file, models, checkpoint=checkpoint, external=external)
    if CLASSIFIER not in json.loads(table.read_text()):
        run = out / CLASSIFIER
        resume = (run / "last.ckpt").exists()
        train_classifier(folder, split_file, models, run, settings.classifier, external=external, resume=resume)
        export_model(CLASSIFIER, run, folder, split_file, models, checkpoint=checkpoint)
    metrics = evaluation / "metrics.json"
    if not metrics.exists():
        evaluate(
            folder,
            split_file=split_file,
            subset=subset,
            models=models,
            backend="onnxruntime",
            engines=None,
            batch_size=8,
            out=evaluation,
        )
    return read_evaluation(metrics)
