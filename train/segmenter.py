"""The segmenter: a U-Net on an EfficientNet-Lite0 encoder, trained to outline the tumor.

Lite0 (BatchNorm and ReLU6, no squeeze-and-excitation) was made for low precision, which suits FP16 engines.
U-Net: Ronneberger et al. 2015. EfficientNet: Tan and Le 2019.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import segmentation_models_pytorch as smp
import torch
from monai.losses import DiceCELoss
from monai.metrics import compute_dice
from torch import Tensor, nn

from cascade.contract import THRESHOLD
from cascade.split import read_split
from train.dataset import SegmenterData, SliceStore
from train.fit import FitSettings, fit, loader
from train.region import normalise
from train.weights import load_file, load_fitting, load_imagenet_lite0

STOCHASTIC_DEPTH = 0.1
"""Share of the steps in which the encoder's last residual block is left out, less for those before it (Huang 2016)."""


@dataclass(frozen=True)
class SegmenterSettings(FitSettings):
    """learning_rate is the peak of a one-cycle schedule (Smith and Topin 2019), batch_size counts slices."""

    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    patience: int = 8
    weights: str = "imagenet"


def segmenter_network() -> nn.Module:
    """(N, 1, SEGMENTER_SIZE, SEGMENTER_SIZE) normalised → logits of the same shape; 3.8 M parameters."""
    network: nn.Module = smp.Unet(
        "tu-efficientnet_lite0",
        encoder_weights=None,
        in_channels=1,
        classes=1,
        decoder_channels=(128, 64, 48, 32, 16),
        drop_path_rate=STOCHASTIC_DEPTH,
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.__class__ = DepthwiseConv2d
    return network


def start_weights(network: nn.Module, weights: str) -> None:
    """Loads `imagenet` (the encoder only) or a file of ours (all of it); `none` leaves the network as it is."""
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
    """Dice + cross-entropy; validated by the mean Dice over slices, an empty mask counting 0."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settings = SegmenterSettings(**settings)
        self.network = segmenter_network().to(memory_format=torch.channels_last)
        self.loss = DiceCELoss(sigmoid=True)

    def forward(self, slices: Tensor) -> Tensor:
        planes = normalise(slices.float()).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(planes)
        return logits.float()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        slices, masks = batch
        loss = self.loss(self(slices), masks)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        slices, masks = batch
        logits = self(slices)
        found, truth = logits.sigmoid() >= THRESHOLD, masks >= 0.5
        dice = compute_dice(found, truth, ignore_empty=False)
        size = len(slices)
        self.log("validation_loss", self.loss(logits, masks), batch_size=size, sync_dist=True)
        self.log("validation_dice", dice.mean(), batch_size=size, sync_dist=True, prog_bar=True)
        self.log("validation_empty", (found.sum((1, 2, 3)) == 0).float().mean(), batch_size=size, sync_dist=True)

    def configure_optimizers(self) -> Any:
        return self.settings.one_cycle(self)


def train_segmenter(folder: Path, split_file: Path, out: Path, settings: SegmenterSettings, *, resume: bool) -> None:
    """Trains on the split's train part.

    Leaves best.ckpt, last.ckpt, settings.json, metrics.csv and curves.png in `out`.
    """
    split = read_split(split_file)
    training = SegmenterTraining(asdict(settings))
    if not resume:
        start_weights(training.network, settings.weights)
    stores = {part: SliceStore(folder, split.part(part), f"reading {part}") for part in ("train", "validation")}
    fit(
        training,
        loader(SegmenterData(stores["train"], augment=True), settings, shuffle=True),
        loader(SegmenterData(stores["validation"], augment=False), settings, shuffle=False),
        settings,
        out=out,
        inputs={"split_sha256": split.sha256},
        monitor="validation_dice",
        resume=resume,
    )
