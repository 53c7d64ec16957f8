"""Both models of one split: trained, exported and evaluated; what is finished is not done again."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascade.datasets.split import read_split
from cascade.errors import CascadeError
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.schema import Evaluation, read_evaluation
from cascade.files import write_atomically
from cascade.runtime.engines import ENGINES
from cascade.runtime.models import CLASSIFIER, SEGMENTER
from train.classifier import ClassifierSettings, start_tensors, train_classifier
from train.dataset import read_healthy, sha256_of_tensor
from train.export import export_model
from train.segmenter import SegmenterSettings, segmenter_network, start_weights, train_segmenter


def begin_or_go_on(
    out: Path,
    split_file: Path,
    segmenter: SegmenterSettings,
    classifier: ClassifierSettings,
    healthy: Path | None,
    **more: Any,
) -> dict[str, Any]:
    """Keeps in `out` what its results depend on, `more` among it, and returns that.

    Raises CascadeError where `out` was begun with something else, and where the weights to start from cannot be had:
    the classifier's turn comes hours later.
    """
    settings = {
        "split_sha256": read_split(split_file).sha256,
        **more,
        "healthy_sha256": sha256_of_tensor(read_healthy(healthy)) if healthy else None,
        "segmenter": asdict(segmenter),
        "classifier": asdict(classifier),
    }
    record = out / "settings.json"
    if not record.exists():
        start_weights(segmenter_network(), segmenter.weights)
        start_tensors(classifier.weights)
        write_atomically(record, json.dumps(settings, indent=1).encode())
    elif (begun := json.loads(record.read_text())) != settings:
        other = ", ".join(name for name, value in settings.items() if begun.get(name) != value)
        raise CascadeError(
            f"{out}: was begun with other settings or slices ({other})", fix="name another folder with --out"
        )
    return settings


def train_both(
    folder: Path,
    split_file: Path,
    out: Path,
    segmenter: SegmenterSettings,
    classifier: ClassifierSettings,
    healthy: Path | None = None,
    *,
    part: str,
    evaluation: Path,
) -> Evaluation:
    """The metrics of a part of the split, which are left in the folder `evaluation`; goes on where it was ended.

    Leaves the runs in out/segmenter and out/classifier, and the models in out/models.
    """
    models = out / "models"
    table = models / "models.json"
    if not table.exists():
        run = out / SEGMENTER
        train_segmenter(folder, split_file, run, segmenter, healthy=healthy, resume=(run / "last.ckpt").exists())
        export_model(SEGMENTER, run, folder, split_file, models)
    if CLASSIFIER not in json.loads(table.read_text()):
        run = out / CLASSIFIER
        train_classifier(folder, split_file, models, run, classifier, resume=(run / "last.ckpt").exists())
        export_model(CLASSIFIER, run, folder, split_file, models)
    metrics = evaluation / "metrics.json"
    if not metrics.exists():
        evaluate(
            folder,
            split_file=split_file,
            part=part,
            models=models,
            backend="onnxruntime",
            engines=ENGINES,
            batch_size=8,
            out=evaluation,
        )
    return read_evaluation(metrics)
