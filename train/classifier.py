"""The classifier: a ResNet-50 and a second network on the segmenter's encoder, on three planes per slice."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision.models import resnet50

from cascade.contract import CLASS_NAMES, PROBABILITY, SLICE, THRESHOLD
from cascade.datasets.split import read_split
from cascade.evaluation.metrics import NONE, accuracy, macro_f1
from cascade.runtime.models import SEGMENTER, ExportedModel, find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from train.dataset import ClassifierData, SliceStore
from train.external import NEGATIVE, ExternalSlice, check_apart, check_subjects, sha256_of_items
from train.external_store import ExternalStore
from train.fit import FitSettings, fit, loader, prepare_run, subject_weights
from train.mixture import CLASSIFIER_WITH_EXTERNAL, ClassifierMixture, MixedCrops, class_shares, usable_tumors
from train.preprocessing import classifier_planes
from train.segmenter_network import SegmenterNetwork
from train.weights import graph_weights, imagenet_resnet50, load_file, load_fitting

BRANCH_WEIGHT = 2 / 3
"""Weight of the branch's logits in the mean: it is the better of the two networks (docs/experiments.md)."""

DROPOUT = 0.3
"""Dropout before the last layer of the branch (Srivastava et al. 2014)."""


@dataclass(frozen=True)
class ClassifierSettings(FitSettings):
    """Settings of the classifier's training, besides `FitSettings`.

    Attributes:
        label_smoothing: Share of the target that is spread over all classes (Szegedy et al. 2016).
        by_subject: 0 draws every slice equally often, 1 every subject. Each of the n slices of a subject is drawn
            n ** -by_subject as often.
    """

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 2e-2
    weights: str = "imagenet"
    label_smoothing: float = 0.05
    by_subject: float = 0.5


class ClassifierNetwork(nn.Module):
    """(N, 3, CROP_SIZE, CROP_SIZE) → logits (N, 3), the weighted mean of two networks; 26.5 M parameters.

    One is torchvision's ResNet-50 (He et al. 2016). The other starts from what the segmenter knows of tumors, costs a
    tenth of its arithmetic, and errs on other slices (docs/experiments.md).
    """

    def __init__(self) -> None:
        super().__init__()
        self.resnet = resnet50(num_classes=len(CLASS_NAMES), zero_init_residual=True)
        self.branch = EncoderBranch()

    def forward(self, planes: Tensor) -> Tensor:
        """Return the weighted mean (N, 3) of both logits for planes (N, 3, CROP_SIZE, CROP_SIZE)."""
        resnet, branch = self.each(planes)
        return (1 - BRANCH_WEIGHT) * resnet + BRANCH_WEIGHT * branch

    def each(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of both, (N, 3) each."""
        return self.resnet(planes), self.branch(planes)


class EncoderBranch(nn.Module):
    """(N, 3, CROP_SIZE, CROP_SIZE) → logits (N, 3): one encoder for crop and whole slice, pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SegmenterNetwork().encoder
        middle, deep = self.encoder.out_channels[-2:]
        self.dropout, self.last = nn.Dropout(DROPOUT), nn.Linear(4 * deep + 2 * middle, len(CLASS_NAMES))

    def forward(self, planes: Tensor) -> Tensor:
        """Return the logits (N, 3) of planes (N, 3, CROP_SIZE, CROP_SIZE): crop, whole slice and mask."""
        crop, whole, mask = planes.split(1, dim=1)
        stages = self.encoder(torch.cat([crop, whole]))[-2:]
        (crop_middle, whole_middle), (crop_deep, whole_deep) = (stage.unflatten(0, (2, -1)) for stage in stages)
        features = [
            crop_middle.mean((2, 3)),
            crop_deep.mean((2, 3)),
            crop_deep.amax((2, 3)),
            mean_under(whole_middle, mask),
            mean_under(whole_deep, mask),
            whole_deep.mean((2, 3)),
        ]
        logits: Tensor = self.last(self.dropout(torch.cat(features, dim=1)))
        return logits


def mean_under(features: Tensor, mask: Tensor) -> Tensor:
    """Average features (N, C, H, W) over a mask (N, 1, k H, k W) in 0 to 1: (N, C)."""
    share = (
        F.avg_pool2d(mask, mask.shape[-1] // features.shape[-1]) + 1e-4
    )  # an empty mask averages over the whole slice
    return (features * share).sum((2, 3)) / share.sum((2, 3))


def start_tensors(weights: str) -> dict[str, Tensor]:
    """Get the tensors of `imagenet` or a file; none for `none`. Raises CascadeError if they are not available."""
    if weights == "none":
        return {}
    return imagenet_resnet50() if weights == "imagenet" else load_file(Path(weights))


def start_weights(network: ClassifierNetwork, weights: str, segmenter: Path) -> None:
    """Load the weights that training starts from.

    Args:
        network: The network to load them into.
        weights: Weights of the ResNet: `imagenet`, `none`, or a file; a last layer for other classes is left out. The
            checkpoint of a classifier and an exported classifier hold those of both networks.
        segmenter: The exported graph whose encoder the second network starts from.
    """
    load_fitting(network.branch.encoder, graph_weights(segmenter, "encoder."), str(segmenter))
    tensors = start_tensors(weights)
    if not tensors:
        return
    if any(name.startswith("branch.") for name in tensors):
        load_fitting(network, tensors, weights)
        return
    head = {name: value for name, value in network.resnet.state_dict().items() if name.startswith("fc.")}
    if any(name in tensors and tensors[name].shape != value.shape for name, value in head.items()):
        tensors |= head
    load_fitting(network.resnet, tensors, weights)


class ClassifierTraining(lightning.LightningModule):
    """Trains each network with its own cross-entropy, weighted by class, so that the two learn different things.

    The validation score is the macro F1 of both together with the segmenter's own masks, as `cascade evaluate` counts:
    a slice with an empty mask counts as wrong. `validation_loss` leaves those slices out.
    """

    def __init__(self, settings: dict[str, Any], class_weights: list[float]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settings = ClassifierSettings(**settings)
        self.network = ClassifierNetwork().to(memory_format=torch.channels_last)
        self.loss = nn.CrossEntropyLoss(torch.tensor(class_weights), label_smoothing=self.settings.label_smoothing)
        self.confusion = MulticlassConfusionMatrix(NONE + 1)

    def forward(self, slices: Tensor, masks: Tensor) -> Tensor:
        """Return the logits (N, 3) float32 of a batch of ClassifierData."""
        logits: Tensor = self.network(planes_of(slices, masks))
        return logits.float()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the mean of the losses of ResNet-50 and branch on a batch of ClassifierData."""
        slices, masks, labels = batch
        resnet, branch = self.network.each(planes_of(slices, masks))
        loss: Tensor = (self.loss(resnet.float(), labels) + self.loss(branch.float(), labels)) / 2
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Add a batch to loss and confusion matrix; a slice with an empty mask counts as class NONE."""
        slices, masks, labels = batch
        logits, seen = self(slices, masks), masks.flatten(1).any(1)
        self.confusion.update(torch.where(seen, logits.argmax(1), NONE), labels)
        loss = self.loss(logits[seen], labels[seen]).nan_to_num()  # of none: weighs nothing
        self.log("validation_loss", loss, batch_size=int(seen.sum()), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy and macro F1 of the epoch."""
        matrix = self.confusion.compute()[:NONE].cpu().double().numpy()
        self.confusion.reset()
        self.log("validation_accuracy", float(accuracy(matrix)))
        self.log("validation_f1", float(macro_f1(matrix)), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with a one-cycle schedule."""
        return self.settings.one_cycle(self)


def planes_of(slices: Tensor, masks: Tensor) -> Tensor:
    """Compute the planes (N, 3, CROP_SIZE, CROP_SIZE) of a batch of ClassifierData."""
    planes, _ = classifier_planes(slices.float(), masks.float())
    return planes.contiguous(memory_format=torch.channels_last)


def draw_masks(store: SliceStore | ExternalStore, segmenter: ExportedModel) -> Tensor:
    """Predict masks with the exported segmenter: (S, 1, SLICE_SIZE, SLICE_SIZE) bool for the slices of a store."""
    loaded = OnnxRuntimeGraph(segmenter.path)
    pieces = store.slices.split(8)
    return torch.cat(
        [
            torch.from_numpy(loaded.run(**{SLICE: piece.float().numpy()})[PROBABILITY] >= THRESHOLD)
            for piece in track(pieces, "drawing masks", console=Console(stderr=True))
        ]
    )


def validation_logits(network: nn.Module, store: SliceStore, masks: Tensor) -> Tensor:
    """Compute logits (S, 3) of a store's slices with masks (S, 1, SLICE_SIZE, SLICE_SIZE)."""
    network.eval()
    with torch.inference_mode():
        return torch.cat(
            [
                network(classifier_planes(slices.float(), found.float())[0])
                for slices, found in zip(store.slices.split(8), masks.split(8), strict=True)
            ]
        )


def train_classifier(
    folder: Path,
    split_file: Path,
    models: Path,
    out: Path,
    settings: ClassifierSettings,
    *,
    external: Sequence[ExternalSlice] = (),
    mixture: ClassifierMixture | None = None,
    resume: bool,
) -> None:
    """Train the classifier on the split's train part and on external slices.

    Leaves best.ckpt, last.ckpt, settings.json, metrics.csv and curves.png in `out`. A split without a validation part
    leaves no best.ckpt.

    Args:
        folder: The data set.
        split_file: Its split.
        models: Folder with the segmenter that draws the masks.
        out: Folder of the run.
        settings: Settings of the training.
        external: Slices of other scanners; those of their train part train.
        mixture: Shares of the kinds of training slices; None takes `default_mixture`.
        resume: Whether to continue the run in `out`.

    Raises:
        CascadeError: The data cannot be read, or `out` does not hold what `resume` asks for.
    """
    split = read_split(split_file)
    segmenter = find_model(SEGMENTER, models)
    check_subjects(external)
    check_apart(external, split)
    others = [item for item in external if item.part == "train"]
    mixture = mixture or default_mixture(others)
    inputs: dict[str, Any] = {
        "split_sha256": split.sha256,
        "segmenter_sha256": segmenter.sha256,
        "mixture": asdict(mixture) | {"pasted_odds": list(mixture.pasted_odds)},
    }
    if external:
        inputs["external_sha256"] = sha256_of_items(others)
    prepare_run(settings, out, inputs, built_on=[segmenter.path], resume=resume)
    stores = {
        part: SliceStore(folder, items, f"reading {part}")
        for part in ("train", "validation")
        if (items := split.subset(part))
    }
    store = ExternalStore(others, "reading external train") if mixture != ClassifierMixture() else None
    drawn = subject_weights(stores["train"].subjects, settings.by_subject)
    found = {part: draw_masks(store, segmenter) for part, store in stores.items()}
    masks = draw_masks(store, segmenter) if store else None
    tumors = usable_tumors(store, masks) if store and masks is not None else None
    shares = class_shares(stores["train"].labels, drawn, mixture, tumors)
    weights = torch.where(shares > 0, 1 / (len(CLASS_NAMES) * shares), 0.0)  # all classes count alike
    training = ClassifierTraining(asdict(settings), weights.tolist())
    if not resume:
        start_weights(training.network, settings.weights, segmenter.path)
    validation = ClassifierData(stores["validation"], found["validation"]) if "validation" in stores else None
    fit(
        training,
        loader(
            MixedCrops(stores["train"], found["train"], mixture, drawn, store, masks),
            settings,
            shuffle=True,
            weights=drawn,
        ),
        loader(validation, settings, shuffle=False) if validation else None,
        settings,
        out=out,
        monitor="validation_f1",
        resume=resume,
    )


def default_mixture(external: Sequence[ExternalSlice]) -> ClassifierMixture:
    """The mixture for the data set with these external training slices.

    Pasting and restyling need tumor-free slices. Without them, only the external tumors join.
    """
    negatives = any(item.label == NEGATIVE for item in external)
    tumors = any(item.label != NEGATIVE for item in external)
    full, none = CLASSIFIER_WITH_EXTERNAL, ClassifierMixture()
    return replace(full if negatives else none, external_tumors=full.external_tumors if tumors else 0.0)
