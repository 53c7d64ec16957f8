"""The segmenter: a U-Net on an EfficientNet-Lite0 encoder, trained to outline the tumor and to tell if there is one.

Lite0 (BatchNorm and ReLU6, no squeeze-and-excitation) was made for low precision, which suits FP16 engines.
U-Net: Ronneberger et al. 2015. EfficientNet: Tan and Le 2019.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import segmentation_models_pytorch as smp
import torch
from monai.losses import DiceLoss
from monai.metrics import compute_dice
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from cascade.contract import THRESHOLD
from cascade.datasets.split import read_split
from train.dataset import SegmenterData, SliceStore, read_healthy, sha256_of_tensor, tumor_free_copies
from train.fit import FitSettings, begin, fit, loader
from train.region import enlarge, limited, normalise
from train.weights import load_file, load_fitting, load_imagenet_lite0

STOCHASTIC_DEPTH = 0.1
"""Share of the steps in which the encoder's last residual block is left out, less for those before it (Huang 2016)."""


@dataclass(frozen=True)
class SegmenterSettings(FitSettings):
    """learning_rate is the peak of a one-cycle schedule (Smith and Topin 2019), batch_size counts slices.

    tumor_free  share of the training slices whose tumor is replaced by healthy tissue.
    retouched   share in which other tissue is, so that a trace of replacing tells nothing.
    presence    weight of the loss on whether there is a tumor at all.
    """

    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    patience: int = 20
    weights: str = "imagenet"
    tumor_free: float = 0.25
    retouched: float = 0.15
    presence: float = 0.5


def segmenter_network() -> nn.Module:
    """(N, 1, SEGMENTER_SIZE, SEGMENTER_SIZE) normalised → logits of each pixel, and (N, 1) of a tumor on the slice.

    3.8 M parameters. The tumor's presence is told from the encoder's last features, wherever they are strongest.
    """
    network: nn.Module = smp.Unet(
        "tu-efficientnet_lite0",
        encoder_weights=None,
        in_channels=1,
        classes=1,
        decoder_channels=(128, 64, 48, 32, 16),
        aux_params={"classes": 1, "pooling": "max", "dropout": 0.2},
        drop_path_rate=STOCHASTIC_DEPTH,
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.__class__ = DepthwiseConv2d
    return network


def start_weights(network: nn.Module, weights: str) -> None:
    """Loads `imagenet` (the encoder only) or a file or graph of ours (all of it); `none` leaves it as it is."""
    if weights == "imagenet":
        load_imagenet_lite0(network.encoder.model)
    elif weights != "none":
        load_fitting(network, load_file(Path(weights)), weights)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that a CPU always computes in FP32.

    Its backward pass in BF16 takes 4 to 6 times as long as in FP32 (torch 2.14 on a 2-core AVX-512 machine).
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


class SegmenterTraining(lightning.LightningModule):
    """Dice where there is a tumor, cross-entropy everywhere, and whether there is a tumor.

    Validated by `validation_score`, the mean of Dice where there is a tumor and of the AUC of its presence, of which
    neither depends on the threshold that export sets; and told apart, with a threshold of a half: the
    share of tumors whose mask is empty, the share of tumor-free slices whose mask is not.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settings = SegmenterSettings(**settings)
        self.network = segmenter_network().to(memory_format=torch.channels_last)
        self.dice_loss = DiceLoss(sigmoid=True, reduction="none")
        self.dice, self.empty, self.false_alarms = (MeanMetric() for _ in range(3))
        self.auc = BinaryAUROC()

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        planes = normalise(slices.float()).contiguous(memory_format=torch.channels_last)
        logits, presence = self.network(planes)
        return logits.float(), presence.float()

    def loss(self, logits: Tensor, presence: Tensor, masks: Tensor) -> Tensor:
        tumor = has_tumor(masks).float()
        # All slices' Dice, then the mean over those with a tumor: to pick these first, a GPU would be waited for.
        dice: Tensor = (self.dice_loss(logits, masks).flatten() * tumor).sum() / tumor.sum().clamp(min=1)
        told = F.binary_cross_entropy_with_logits(presence[:, 0], tumor)
        return F.binary_cross_entropy_with_logits(logits, masks) + self.settings.presence * told + dice

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        slices, masks = batch
        loss = self.loss(*self(slices), masks)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        slices, masks = batch
        logits, presence = self(slices)
        found, truth, tumor = logits.sigmoid() >= THRESHOLD, masks >= 0.5, has_tumor(masks)
        seen = (limited(logits, presence).sigmoid() >= THRESHOLD).flatten(1).any(1).float()
        self.log("validation_loss", self.loss(logits, presence, masks), batch_size=len(slices), sync_dist=True)
        if tumor.any():
            self.dice.update(compute_dice(found[tumor], truth[tumor])[:, 0])
        self.auc.update(presence[:, 0].sigmoid(), tumor.long())  # of logits it would guess batch by batch
        self.empty.update(1 - seen[tumor])
        self.false_alarms.update(seen[~tumor])
        self.log("validation_dice", self.dice, prog_bar=True)
        self.log("validation_presence_auc", self.auc, prog_bar=True)
        self.log("validation_empty", self.empty)
        self.log("validation_false_alarms", self.false_alarms)

    def on_validation_epoch_end(self) -> None:
        self.log("validation_score", (self.dice.compute() + self.auc.compute()) / 2, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return self.settings.one_cycle(self)


def has_tumor(masks: Tensor) -> Tensor:
    """(N, 1, H, W) in 0 .. 1 → (N,) bool."""
    return masks.amax((1, 2, 3)) >= 0.5


@torch.inference_mode()
def presence_logits(network: nn.Module, slices: Tensor) -> Tensor:
    """(N, 1, SEGMENTER_SIZE, SEGMENTER_SIZE) → (N,) of a tumor being on the slice.

    Minus infinity where no pixel is a tumor's: the exported graph then finds none, whatever its threshold of presence.
    """
    told = []
    for piece in slices.split(16):
        logits, presence = network(normalise(piece.float()))
        seen = enlarge(logits).sigmoid().amax((1, 2, 3)) >= THRESHOLD
        told.append(torch.where(seen, presence[:, 0], -torch.inf))
    return torch.cat(told)


def train_segmenter(
    folder: Path,
    split_file: Path,
    out: Path,
    settings: SegmenterSettings,
    *,
    healthy: Path | None = None,
    resume: bool,
) -> None:
    """Trains on the split's train part, and on the slices in the folder `healthy` as on others without a tumor.

    Leaves best.ckpt, last.ckpt, settings.json, metrics.csv and curves.png in `out`.
    """
    split = read_split(split_file)
    inputs, heads = {"split_sha256": split.sha256}, None
    if healthy:
        heads = read_healthy(healthy)
        inputs["healthy_sha256"] = sha256_of_tensor(heads)
    begin(settings, out, inputs, resume=resume)
    training = SegmenterTraining(asdict(settings))
    if not resume:
        start_weights(training.network, settings.weights)
    stores = {part: SliceStore(folder, split.part(part), f"reading {part}") for part in ("train", "validation")}
    train = SegmenterData(
        stores["train"],
        augment=True,
        tumor_free=settings.tumor_free,
        retouched=settings.retouched,
        healthy=heads,
    )
    validation = SegmenterData(stores["validation"])
    fit(
        training,
        loader(train, settings, shuffle=True),
        loader(
            ConcatDataset([validation, tumor_free_copies(validation, stores["validation"].people)]),
            settings,
            shuffle=False,
        ),
        settings,
        out=out,
        monitor="validation_score",
        resume=resume,
    )
