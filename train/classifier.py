"""The classifier: torchvision's ResNet-50 (He et al. 2016) on three planes cut out by the mask; it names the tumor."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision.models import resnet50

from cascade.backends.onnxruntime import OnnxRuntimeGraph
from cascade.contract import CLASS_NAMES, PROBABILITY, SLICE, THRESHOLD
from cascade.evaluation.metrics import NONE, accuracy, macro_f1
from cascade.graphs import SEGMENTER, Graph, find_graph
from cascade.split import read_split
from train.dataset import ClassifierData, SliceStore
from train.fit import FitSettings, begin, fit, loader
from train.region import classifier_planes
from train.weights import imagenet_resnet50, load_file, load_fitting


@dataclass(frozen=True)
class ClassifierSettings(FitSettings):
    """label_smoothing: Szegedy et al. 2016."""

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 2e-2
    patience: int = 12
    weights: str = "imagenet"
    label_smoothing: float = 0.05


def classifier_network() -> nn.Module:
    """(N, 3, CROP_SIZE, CROP_SIZE) → logits (N, 3); 23.5 M parameters."""
    network: nn.Module = resnet50(num_classes=len(CLASS_NAMES), zero_init_residual=True)
    return network


def start_weights(network: nn.Module, weights: str) -> None:
    """Loads `imagenet` or a file, all but a last layer for other classes; `none` leaves the network as it is."""
    if weights == "none":
        return
    tensors = imagenet_resnet50() if weights == "imagenet" else load_file(Path(weights))
    head = {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
    if any(name in tensors and tensors[name].shape != value.shape for name, value in head.items()):
        tensors |= head
    load_fitting(network, tensors, weights)


class ClassifierTraining(lightning.LightningModule):
    """Cross-entropy weighted against the classes' shares; validated by macro F1 with the segmenter's own masks.

    As `cascade evaluate` counts: where that mask is empty no class is named, which is wrong. `validation_loss` is of
    the other slices.
    """

    def __init__(self, settings: dict[str, Any], class_weights: list[float]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settings = ClassifierSettings(**settings)
        self.network = classifier_network().to(memory_format=torch.channels_last)
        self.loss = nn.CrossEntropyLoss(torch.tensor(class_weights), label_smoothing=self.settings.label_smoothing)
        self.confusion = MulticlassConfusionMatrix(NONE + 1)

    def forward(self, slices: Tensor, masks: Tensor) -> Tensor:
        planes, _ = classifier_planes(slices.float(), masks.float())
        logits: Tensor = self.network(planes.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        slices, masks, labels = batch
        loss: Tensor = self.loss(self(slices, masks), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        slices, masks, labels = batch
        logits, seen = self(slices, masks), masks.flatten(1).any(1)
        self.confusion.update(torch.where(seen, logits.argmax(1), NONE), labels)
        loss = self.loss(logits[seen], labels[seen]).nan_to_num()  # of none: weighs nothing
        self.log("validation_loss", loss, batch_size=int(seen.sum()), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        matrix = self.confusion.compute()[:NONE].double().cpu().numpy()
        self.confusion.reset()
        self.log("validation_accuracy", float(accuracy(matrix)))
        self.log("validation_f1", float(macro_f1(matrix)), prog_bar=True)

    def configure_optimizers(self) -> Any:
        return self.settings.one_cycle(self)


def draw_masks(store: SliceStore, segmenter: Graph) -> Tensor:
    """(S, 1, SLICE_SIZE, SLICE_SIZE) bool: where the exported segmenter sees tumor in each slice of the store."""
    loaded = OnnxRuntimeGraph(segmenter.path)
    pieces = store.slices.split(8)
    return torch.cat(
        [
            torch.from_numpy(loaded.run(**{SLICE: piece.float().numpy()})[PROBABILITY] >= THRESHOLD)
            for piece in track(pieces, "drawing masks", console=Console(stderr=True))
        ]
    )


def validation_logits(network: nn.Module, store: SliceStore, masks: Tensor) -> Tensor:
    """(S, 3): what the network says of the slices of the store with these masks, (S, 1, SLICE_SIZE, SLICE_SIZE)."""
    network.eval()
    with torch.inference_mode():
        return torch.cat(
            [
                network(classifier_planes(slices.float(), found.float())[0])
                for slices, found in zip(store.slices.split(8), masks.split(8), strict=True)
            ]
        )


def train_classifier(
    folder: Path, split_file: Path, models: Path, out: Path, settings: ClassifierSettings, *, resume: bool
) -> None:
    """Trains on the split's train part, with masks of the segmenter in the folder `models` and true ones.

    Leaves best.ckpt, last.ckpt, settings.json, metrics.csv and curves.png in `out`.
    """
    split = read_split(split_file)
    segmenter = find_graph(SEGMENTER, models)
    begin(settings, out, {"split_sha256": split.sha256, "segmenter_sha256": segmenter.sha256}, resume=resume)
    stores = {part: SliceStore(folder, split.part(part), f"reading {part}") for part in ("train", "validation")}
    counts = torch.bincount(stores["train"].labels, minlength=len(CLASS_NAMES))
    training = ClassifierTraining(asdict(settings), (counts.sum() / (len(CLASS_NAMES) * counts.clamp(min=1))).tolist())
    if not resume:
        start_weights(training.network, settings.weights)
    data = {
        part: ClassifierData(store, draw_masks(store, segmenter), augment=part == "train")
        for part, store in stores.items()
    }
    fit(
        training,
        loader(data["train"], settings, shuffle=True),
        loader(data["validation"], settings, shuffle=False),
        settings,
        out=out,
        monitor="validation_f1",
        resume=resume,
    )
