"""From slice and mask to what each network sees, as tensor operations.

They are exported inside the two graphs: training, ONNX Runtime, OpenVINO and TensorRT run the same arithmetic.
Whatever counts pixels or sums over them stays FP32, also where the networks run in FP16.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascade.contract import SLICE_SIZE, THRESHOLD

SEGMENTER_SIZE = 256
"""Height and width at which the U-Net works."""

CROP_SIZE = 128
"""Height and width of the planes that the classifier sees."""

MARGIN = 1.6
"""Side of the crop over the longer side of the tumor: the surrounding tissue helps to tell the class."""

MIN_SIDE = 48.0
"""Smallest side of the crop in pixels of the slice, so that a tiny mask is not enlarged to noise."""


def normalize(slices: Tensor) -> Tensor:
    """Normalize slices to mean 0 and standard deviation 1 over the tissue, clipped to -5 to 5.

    Tissue is what is brighter than the slice's mean: air would otherwise dominate both figures. The result does not
    depend on the gain and offset of the scanner.

    Args:
        slices: (N, 1, H, W) of any range.

    Returns:
        (N, 1, H, W).
    """
    dims = (1, 2, 3)
    # Row by row: summing all pixels in one go, ONNX Runtime errs by up to 2e-5 of the mean, and pixels that lie so near
    # to it would be tissue in one runtime and air in another.
    average = slices.mean(3, keepdim=True).mean(2, keepdim=True)
    tissue = (slices > average).float()
    count = tissue.sum(dims, keepdim=True).clamp(min=1)
    mean = (slices * tissue).sum(dims, keepdim=True) / count
    variance = ((slices - mean).square() * tissue).sum(dims, keepdim=True) / count
    # A slice of two values has tissue without variance; its own contrast is then the unit.
    contrast = slices.amax(dims, keepdim=True) - slices.amin(dims, keepdim=True)
    deviation = torch.maximum(variance.sqrt(), contrast * 1e-3).clamp(min=1e-12)
    return ((slices - mean) / deviation).clamp(-5.0, 5.0)


def segmenter_input(slices: Tensor) -> Tensor:
    """Average slices (N, 1, SLICE_SIZE, SLICE_SIZE) down to (N, 1, SEGMENTER_SIZE, SEGMENTER_SIZE)."""
    return F.avg_pool2d(slices, SLICE_SIZE // SEGMENTER_SIZE)


def upsample2x(planes: Tensor) -> Tensor:
    """Enlarge (N, 1, H, W) to (N, 1, 2 H, 2 W), bilinear, as F.interpolate does with align_corners=False."""
    return F.pixel_shuffle(quarter_pixels(planes), 2)


def quarter_pixels(planes: Tensor) -> Tensor:
    """Compute the four pixels that each pixel becomes in `upsample2x`.

    It is a convolution. That took the whole segmenter in OpenVINO from 9.7 to 7.8 ms per slice on two cores, and cost
    ONNX Runtime nothing.

    Args:
        planes: (N, 1, H, W).

    Returns:
        (N, 4, H, W): upper left, upper right, lower left, lower right.
    """
    before, after = [0.25, 0.75, 0.0], [0.0, 0.75, 0.25]
    taps = torch.tensor([before, after], dtype=planes.dtype, device=planes.device)
    kernels = (taps[:, None, :, None] * taps[None, :, None, :]).reshape(4, 1, 3, 3)
    return F.conv2d(F.pad(planes, (1, 1, 1, 1), mode="replicate"), kernels)


def mask_to_box(mask: Tensor) -> Tensor:
    """Compute the square crop around each mask, MARGIN times as wide as the mask is long, shifted into the slice.

    Args:
        mask: (N, 1, SLICE_SIZE, SLICE_SIZE), values 0 or 1.

    Returns:
        (N, 4) float32: left, top, right, bottom in pixels; zeros for an empty mask.
    """
    columns, rows = mask.amax((1, 2)), mask.amax((1, 3))
    ahead = torch.arange(SLICE_SIZE, dtype=torch.float32, device=mask.device)
    behind = SLICE_SIZE - ahead
    left, top = (SLICE_SIZE - (hit * behind).amax(1) for hit in (columns, rows))
    right, bottom = ((hit * (ahead + 1)).amax(1) for hit in (columns, rows))
    side = (torch.maximum(right - left, bottom - top) * MARGIN).clamp(MIN_SIDE, float(SLICE_SIZE))
    corner = torch.stack([(left + right - side) / 2, (top + bottom - side) / 2], dim=1)
    corner = torch.minimum(corner.clamp(min=0), (SLICE_SIZE - side)[:, None])
    box = torch.cat([corner, corner + side[:, None]], dim=1)
    return box * (right > 0).float()[:, None]


def crop(slices: Tensor, box: Tensor) -> Tensor:
    """Crop each slice to its box, sampled from the full resolution.

    Sampling is bilinear at twice the size and then averaged, so that a large crop does not alias.

    Args:
        slices: (N, 1, SLICE_SIZE, SLICE_SIZE).
        box: (N, 4) left, top, right, bottom in pixels. An empty box gives the value of one pixel.

    Returns:
        (N, 1, CROP_SIZE, CROP_SIZE).
    """
    steps = (torch.arange(2 * CROP_SIZE, dtype=torch.float32, device=slices.device) + 0.5) / (2 * CROP_SIZE)
    left, top, right, bottom = box[:, :, None].unbind(1)
    to_grid = 2 / SLICE_SIZE  # in the unit of grid_sample, -1 and 1 are the slice's edges
    across = (left + (right - left) * steps) * to_grid - 1  # (N, 2 * CROP_SIZE)
    down = (top + (bottom - top) * steps) * to_grid - 1
    columns = across[:, None, :].expand(-1, 2 * CROP_SIZE, -1)
    rows = down[:, :, None].expand(-1, -1, 2 * CROP_SIZE)
    # Stacked plane by plane: pixel by pixel, OpenVINO took 2.7 ms longer per slice, an eighth of both models.
    grid = torch.stack([columns, rows], dim=1).permute(0, 2, 3, 1)
    return F.avg_pool2d(F.grid_sample(slices, grid, mode="bilinear", padding_mode="border", align_corners=False), 2)


def classifier_planes(slices: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """Compute what the classifier sees.

    Args:
        slices: (N, 1, SLICE_SIZE, SLICE_SIZE) of any range.
        probability: (N, 1, SLICE_SIZE, SLICE_SIZE), the segmenter's output or a mask.

    Returns:
        Planes (N, 3, CROP_SIZE, CROP_SIZE): the crop; the whole slice, because the place of a tumor helps to tell its
        class; the mask in the whole slice. And the boxes of the crops (N, 4), see `mask_to_box`.
    """
    shrink = SLICE_SIZE // CROP_SIZE
    mask = (probability >= THRESHOLD).float()
    box = mask_to_box(mask)
    slices = normalize(slices)
    planes = [crop(slices, box), F.avg_pool2d(slices, shrink), F.avg_pool2d(mask, shrink)]
    return torch.cat(planes, dim=1), box


def cap_by_detection(logits: Tensor, detection: Tensor) -> Tensor:
    """Cap pixel logits (N, C, H, W) by the logit (N, 1) of there being a tumor on the slice at all."""
    return torch.minimum(logits, detection[:, :, None, None])


class SegmenterGraph(nn.Module):
    """The exported graph: `slice` → `probability`, both (N, 1, SLICE_SIZE, SLICE_SIZE).

    Args:
        network: The segmenter's network.
        detection_threshold: Probability of a tumor on the slice that maps to THRESHOLD (train/calibrate.py).
    """

    def __init__(self, network: nn.Module, detection_threshold: float = 0.5) -> None:
        super().__init__()
        self.network, self.shift = network, math.log(detection_threshold / (1 - detection_threshold))

    def forward(self, slice: Tensor) -> Tensor:
        """Return the probability of tumor, in the shape of `slice`: (N, 1, SLICE_SIZE, SLICE_SIZE) float32."""
        logits, detection = self.network(normalize(segmenter_input(slice)))
        capped = cap_by_detection(quarter_pixels(logits.float()), detection.float() - self.shift)
        # Shuffled last: OpenVINO caps a single channel pixel by pixel, which took 5 of 16 ms per slice.
        return F.pixel_shuffle(torch.sigmoid(capped), 2)


class ClassifierGraph(nn.Module):
    """The exported graph: `slice`, `probability` → `class_probability` (N, 3), `box` (N, 4).

    Args:
        network: The classifier's network.
        temperature: What the logits are divided by (train/calibrate.py).
    """

    def __init__(self, network: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, slice: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
        """Return class probabilities (N, 3) and boxes (N, 4) in pixels, float32."""
        planes, box = classifier_planes(slice, probability)
        return torch.softmax(self.network(planes).float() / self.temperature, dim=1), box
