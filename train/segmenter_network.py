"""The segmenter: a U-Net on an EfficientNet-Lite0 encoder that outlines a tumor and detects whether there is one.

Lite0 (BatchNorm and ReLU6, no squeeze-and-excitation) was made for low precision, which suits FP16 engines.
U-Net: Ronneberger et al. 2015. EfficientNet: Tan and Le 2019.
"""

from copy import deepcopy
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base import ClassificationHead
from torch import Tensor, nn

from train.weights import SHARED_STAGES, load_file, load_fitting, load_imagenet_lite0

STOCHASTIC_DEPTH = 0.1
"""Probability that a step skips the encoder's last residual block; lower for earlier blocks (Huang et al. 2016)."""


class SegmenterNetwork(smp.Unet):
    """Normalized (N, 1, SEGMENTER_SIZE, SEGMENTER_SIZE) → pixel logits of that shape, and (N, 1) detection logits.

    6.7 M parameters. The detection has last stages of its own, since what tells whether there is a tumor is not what
    outlines it: as long as they were shared, each learned at the cost of the other (docs/experiments.md).

    Attributes:
        detector: The encoder's last four stages once more, the maximum of their features over the slice, and a logit.
    """

    def __init__(self) -> None:
        super().__init__(
            "tu-efficientnet_lite0",
            encoder_weights=None,
            in_channels=1,
            classes=1,
            decoder_channels=(128, 64, 48, 32, 16),
            drop_path_rate=STOCHASTIC_DEPTH,
        )
        head = ClassificationHead(self.encoder.out_channels[-1], classes=1, pooling="max", dropout=0.2)
        self.detector = nn.Sequential(deepcopy(self.encoder.model.blocks[SHARED_STAGES:]), head)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                module.__class__ = DepthwiseConv2d

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both logits."""
        features = self.encoder(planes)
        # The first of the features is the input; each of the others halves the resolution.
        return self.segmentation_head(self.decoder(features)), self.detector(features[SHARED_STAGES])

    def detect(self, planes: Tensor) -> Tensor:
        """Compute the (N, 1) detection logits alone."""
        encoder = self.encoder.model
        features = encoder.bn1(encoder.conv_stem(planes))
        logits: Tensor = self.detector(encoder.blocks[:SHARED_STAGES](features))
        return logits


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that a CPU always computes in FP32.

    Its backward pass in BF16 takes 4 to 6 times as long as in FP32 (torch 2.14 on a 2-core AVX-512 machine).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) in FP32 where autocast on a CPU would take BF16."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def start_weights(network: SegmenterNetwork, weights: str) -> None:
    """Load `imagenet` (not into the decoder) or a file or graph of ours; `none` changes nothing."""
    if weights == "imagenet":
        load_imagenet_lite0(network.encoder.model)
        network.detector[0].load_state_dict(network.encoder.model.blocks[SHARED_STAGES:].state_dict())
    elif weights != "none":
        load_fitting(network, load_file(Path(weights)), weights)
