"""Train the segmenter, or its detection alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from monai.metrics import compute_dice
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, Dataset, TensorDataset
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from cascade.contract import THRESHOLD
from cascade.datasets.split import SplitSlice, read_split
from cascade.errors import CascadeError
from train.dataset import SegmenterData, SliceStore, inpainted_copies, pooled
from train.external import NEGATIVE, ExternalSlice, check_apart, check_subjects, sha256_of_items
from train.external_store import ExternalStore
from train.fit import FitSettings, fit, loader, prepare_run, subject_weights
from train.mixture import DATA_SET_ONLY, WITH_EXTERNAL, WITH_NEGATIVES, MixedData, Mixture
from train.preprocessing import cap_by_detection, normalize, upsample2x
from train.segmenter_network import SegmenterNetwork, start_weights


@dataclass(frozen=True)
class SegmenterSettings(FitSettings):
    """Settings of the segmenter's training, besides `FitSettings`.

    Attributes:
        by_subject: 0 draws every slice equally often, 1 every subject. Each of the n slices of a subject is drawn
            n ** -by_subject as often.
        detection: Weight of the loss on whether there is a tumor at all.
        inside: Weight of the loss on the strongest pixels of an area that holds a tumor somewhere.
        detection_only: Whether only the detection learns. The outlines stay as they are.

    Raises:
        CascadeError: Only the detection learns, and the weights to start from have no outlines to keep.
    """

    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    weights: str = "imagenet"
    by_subject: float = 0.5
    detection: float = 0.5
    inside: float = 0.2
    detection_only: bool = False

    def __post_init__(self) -> None:
        if self.detection_only and self.weights in ("imagenet", "none"):
            raise CascadeError(
                f"--detection-only keeps outlines, and the weights `{self.weights}` have none",
                fix="name a segmenter to start from: an exported .onnx or a checkpoint",
            )


STRONGEST = 64
"""Pixels at SEGMENTER_SIZE, of an uncertain area that holds a tumor, that must be tumor."""


class SegmenterTraining(lightning.LightningModule):
    """Trains with Dice where there is an outline, cross-entropy on certain pixels, and cross-entropy of the detection.

    With `detection_only`, the last of these is the only one.

    `validation_score` is the mean of Dice and of the AUC of the detection; neither depends on the threshold that
    export sets. `validation_empty` and `validation_false_alarms` are the fractions of tumors missed and of tumor-free
    slices with a tumor, at a threshold of a half.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settings = SegmenterSettings(**settings)
        self.network = SegmenterNetwork().to(memory_format=torch.channels_last)
        self.dice, self.empty, self.false_alarms = (MeanMetric() for _ in range(3))
        self.auc = BinaryAUROC()
        if self.settings.detection_only:
            self.network.requires_grad_(False)
            self.network.detector.requires_grad_(True)

    def train(self, mode: bool = True) -> "SegmenterTraining":
        """Switch to training, or back. What does not learn always computes as in evaluation."""
        super().train(mode)
        if self.settings.detection_only:
            self.network.eval()
            self.network.detector.train(mode)
        return self

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of pixels (N, 1, H, W) and of detection (N, 1), both float32."""
        logits, detection = self.network(channels_last(slices))
        return logits.float(), detection.float()

    def loss(self, logits: Tensor, detection: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            logits: (N, 1, H, W) of each pixel being tumor.
            detection: (N, 1), logit of there being a tumor.
            targets: (N, 2, H, W) in 0 to 1: the tumor's share of each pixel, and the share that is uncertain.
        """
        masks, uncertain = targets.split(1, dim=1)
        certain = 1 - uncertain
        outlined, tumor = has_tumor(masks).float(), has_tumor(targets).float()
        # All slices' Dice, then the mean over those with an outline: to pick these first, a GPU would be waited for.
        overlap = soft_dice(logits.sigmoid() * certain, masks * certain)
        dice = ((1 - overlap) * outlined).sum() / outlined.sum().clamp(min=1)
        pixels = F.binary_cross_entropy_with_logits(logits, masks, weight=certain, reduction="sum")
        # Where a tumor is somewhere in an uncertain area, the area's strongest pixels are of it.
        areas = (logits + torch.where(uncertain >= 0.5, 0.0, -torch.inf)).flatten(1)
        strongest = areas.topk(min(STRONGEST, areas.shape[1]), dim=1).values
        inside = strongest.isfinite()  # a small area has fewer pixels
        missed = (F.softplus(-strongest.nan_to_num(neginf=0.0)) * inside).sum(1) / inside.sum(1).clamp(min=1)
        missed = (missed * (tumor - outlined)).sum() / len(logits)
        return (
            pixels / certain.sum().clamp(min=1)
            + dice
            + self.settings.detection * detection_loss(detection, targets)
            + self.settings.inside * missed
        )

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of a batch: slices (N, 1, H, W), and targets as in `loss`."""
        slices, targets = batch
        if self.settings.detection_only:
            detection = self.network.detect(channels_last(slices)).float()
            loss = detection_loss(detection, targets)
        else:
            loss = self.loss(*self(slices), targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Add a batch to the metrics; Dice counts slices whose tumor has an outline."""
        slices, targets = batch
        logits, detection = self(slices)
        outlined, tumor = has_tumor(targets[:, :1]) & ~has_tumor(targets[:, 1:]), has_tumor(targets)
        found, truth = logits.sigmoid() >= THRESHOLD, targets[:, :1] >= 0.5
        seen = (cap_by_detection(logits, detection).sigmoid() >= THRESHOLD).flatten(1).any(1).float()
        self.log("validation_loss", self.loss(logits, detection, targets), batch_size=len(slices), sync_dist=True)
        if outlined.any():
            self.dice.update(compute_dice(found[outlined], truth[outlined])[:, 0])
        self.auc.update(detection[:, 0].sigmoid(), tumor.long())  # of logits it would guess batch by batch
        self.empty.update(1 - seen[tumor])
        self.false_alarms.update(seen[~tumor])
        self.log("validation_dice", self.dice, prog_bar=True)
        self.log("validation_detection_auc", self.auc, prog_bar=True)
        self.log("validation_empty", self.empty)
        self.log("validation_false_alarms", self.false_alarms)

    def on_validation_epoch_end(self) -> None:
        """Log the score of the epoch."""
        self.log("validation_score", (self.dice.compute() + self.auc.compute()) / 2, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with a one-cycle schedule."""
        return self.settings.one_cycle(self)


def channels_last(slices: Tensor) -> Tensor:
    """Normalize (N, 1, H, W) for the network, in the layout that convolutions compute fastest in."""
    return normalize(slices.float()).contiguous(memory_format=torch.channels_last)


def detection_loss(detection: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the logits (N, 1) of there being a tumor, with targets as in `SegmenterTraining.loss`."""
    return F.binary_cross_entropy_with_logits(detection[:, 0], has_tumor(targets).float())


def has_tumor(masks: Tensor) -> Tensor:
    """(N, C, H, W) in 0 to 1 → (N,) bool: whether any pixel is tumor, or may be: an uncertain area holds a tumor."""
    return masks.amax((1, 2, 3)) >= 0.5


def soft_dice(probability: Tensor, masks: Tensor) -> Tensor:
    """(N, 1, H, W) twice → (N,) Dice coefficient of probabilities (Milletari et al. 2016, arXiv 1606.04797)."""
    shared = (probability * masks).sum((1, 2, 3))
    return (2 * shared + 1e-5) / (probability.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1e-5)


@torch.inference_mode()
def detection_logits(network: nn.Module, slices: Tensor) -> Tensor:
    """Compute the logits of there being a tumor on slices (N, 1, SEGMENTER_SIZE, SEGMENTER_SIZE): (N,).

    They are minus infinity where no pixel is tumor: the exported graph finds none there, whatever its threshold.
    """
    found = []
    for piece in slices.split(16):
        logits, detection = network(normalize(piece.float()))
        seen = upsample2x(logits).sigmoid().amax((1, 2, 3)) >= THRESHOLD
        found.append(torch.where(seen, detection[:, 0], -torch.inf))
    return torch.cat(found)


def train_segmenter(
    folder: Path,
    split_file: Path,
    out: Path,
    settings: SegmenterSettings,
    *,
    external: Sequence[ExternalSlice] = (),
    mixture: Mixture | None = None,
    resume: bool,
) -> None:
    """Train the segmenter on the split's train part and on external slices.

    Leaves best.ckpt, last.ckpt, settings.json, metrics.csv and curves.png in `out`. A split without a validation part
    leaves no best.ckpt.

    Args:
        folder: The data set.
        split_file: Its split.
        out: Folder of the run.
        settings: Settings of the training.
        external: Slices of other scanners. Those of their train part train, those of the validation part validate.
        mixture: Shares of the kinds of training slices; None takes `default_mixture`.
        resume: Whether to continue the run in `out`.

    Raises:
        CascadeError: The data cannot be read, or `out` does not hold what `resume` asks for.
    """
    split = read_split(split_file)
    check_subjects(external)
    check_apart(external, split)
    parts = {part: [item for item in external if item.part == part] for part in ("train", "validation")}
    mixture = mixture or default_mixture(parts["train"])
    inputs: dict[str, Any] = {"split_sha256": split.sha256, "mixture": asdict(mixture)}
    if external:
        inputs["external_sha256"] = sha256_of_items([item for part in parts.values() for item in part])
    prepare_run(settings, out, inputs, resume=resume)
    training = SegmenterTraining(asdict(settings))
    if not resume:
        start_weights(training.network, settings.weights)
    store = SliceStore(folder, split.subset("train"), "reading train")
    others = ExternalStore(parts["train"], "reading external train") if parts["train"] else None
    drawn = subject_weights(store.subjects, settings.by_subject)
    validated = split.subset("validation")
    validation = _validation_data(folder, validated, parts["validation"]) if validated else None
    fit(
        training,
        loader(MixedData(store, mixture, drawn, others), settings, shuffle=True, weights=drawn),
        loader(validation, settings, shuffle=False) if validation else None,
        settings,
        out=out,
        monitor="validation_score",
        resume=resume,
    )


def _validation_data(
    folder: Path, items: list[SplitSlice], external: Sequence[ExternalSlice]
) -> ConcatDataset[tuple[Tensor, Tensor]]:
    """The validation slices and external ones. Copies without the tumor stand in for missing negatives."""
    store = SliceStore(folder, items, "reading validation")
    data = SegmenterData(store)
    parts: list[Dataset[Any]] = [data]
    if not any(item.label == NEGATIVE for item in external):
        parts.append(inpainted_copies(data, store.subjects))
    if external:
        others = ExternalStore(external, "reading external validation")
        parts.append(TensorDataset(pooled(others.slices).float(), pooled(others.targets).float()))
    return ConcatDataset(parts)


def default_mixture(external: Sequence[ExternalSlice]) -> Mixture:
    """The mixture for the data set with these external training slices."""
    negatives = any(item.label == NEGATIVE for item in external)
    tumors = any(item.label != NEGATIVE for item in external)
    if negatives and tumors:
        return WITH_EXTERNAL
    if negatives:
        return WITH_NEGATIVES
    return replace(DATA_SET_ONLY, external_tumors=WITH_EXTERNAL.external_tumors) if tumors else DATA_SET_ONLY
