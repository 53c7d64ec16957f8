"""Augmentation of slice and mask together, as patients, coils and scanners differ (torchvision transforms v2).

Slices are Image (1, H, W) float32 in 0 to 1, masks Mask (C, H, W) in 0 to 1.
"""

import math
from typing import Any

import torch
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2


class RandomQuarterTurn(v2.Transform):
    """Rotates by 0, 90, 180 or 270 degrees: views come in no fixed orientation."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the number of quarter turns, 0 to 3."""
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Rotate an image or mask (C, H, W)."""
        return tv_tensors.wrap(torch.rot90(inpt, params["turns"], dims=(-2, -1)), like=inpt)


class RandomIntensity(v2.Transform):
    """Changes gamma, and multiplies with a smooth bias field as that of a surface coil.

    Args:
        gamma: The logarithm of gamma is drawn from -gamma to gamma.
        bias: Each of the five coefficients of the logarithm of the field is drawn from -bias/2 to bias/2. At 0.3 the
            field is between 0.5 and 2.1, the extremes in a corner.
    """

    def __init__(self, gamma: float = 0.4, bias: float = 0.3) -> None:
        super().__init__()
        self.gamma, self.bias = gamma, bias

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw gamma, and the coefficients of the second-order polynomial that is the logarithm of the field."""
        return {
            "gamma": math.exp(self.gamma * (2 * torch.rand(()).item() - 1)),
            "slope": self.bias * (2 * torch.rand(5) - 1) / 2,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change an image (C, H, W); return a mask as it is."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        down, across = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in inpt.shape[-2:]), indexing="ij")
        terms = torch.stack([down, across, down * across, down.square(), across.square()])
        field = torch.einsum("t,thw->hw", params["slope"], terms).exp()
        return tv_tensors.wrap(inpt.clamp(min=0) ** params["gamma"] * field, like=inpt)


class RandomElastic(v2.Transform):
    """Bends slice and mask smoothly (Simard et al. 2003).

    Args:
        displacement: Standard deviation of the shift of each of `nodes` x `nodes` points, as a share of the side.
    """

    def __init__(self, displacement: float = 0.012, nodes: int = 6) -> None:
        super().__init__()
        self.displacement, self.nodes = displacement, nodes

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the shifts of the nodes: (1, 2, nodes, nodes), in halves of the side."""
        return {"shifts": torch.randn(1, 2, self.nodes, self.nodes) * 2 * self.displacement}  # the side is 2 long

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Bend an image or mask (C, H, W) by the shifts, interpolated between the nodes."""
        height, width = inpt.shape[-2:]
        field = F.interpolate(params["shifts"], size=(height, width), mode="bicubic", align_corners=True)
        still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=False)
        grid = still + field.permute(0, 2, 3, 1)
        return tv_tensors.wrap(
            F.grid_sample(inpt.as_subclass(torch.Tensor)[None], grid, align_corners=False)[0], like=inpt
        )


class RandomLowResolution(v2.Transform):
    """Resamples the slice to pixels up to `coarsest` times as large, and back (as nnU-Net, Isensee et al. 2021)."""

    def __init__(self, coarsest: float = 3.0) -> None:
        super().__init__()
        self.coarsest = coarsest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the factor, 1 to `coarsest`, by which the pixels grow."""
        return {"factor": 1 + (self.coarsest - 1) * torch.rand(()).item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resample an image (C, H, W); return a mask as it is."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        size = inpt.shape[-2:]
        plane = inpt.as_subclass(torch.Tensor)[None]
        small = F.interpolate(plane, size=[round(side / params["factor"]) for side in size], mode="area")
        return tv_tensors.wrap(F.interpolate(small, size=size, mode="bilinear", align_corners=False)[0], like=inpt)


def augmentation() -> v2.Transform:
    """Augmentation of both trainings: geometry, intensity, resolution, blur and noise."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomApply([RandomQuarterTurn()], p=0.3),
            v2.RandomApply(
                [
                    v2.RandomAffine(
                        degrees=30,
                        translate=(0.08, 0.08),
                        scale=(0.7, 1.4),
                        shear=8,
                        interpolation=v2.InterpolationMode.BILINEAR,
                    )
                ],
                p=0.9,
            ),
            v2.RandomApply([RandomElastic()], p=0.3),
            v2.RandomApply([RandomIntensity()], p=0.8),
            v2.RandomApply([RandomLowResolution()], p=0.2),
            v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=(0.3, 1.2))], p=0.2),
            v2.RandomApply([v2.GaussianNoise(sigma=0.02, clip=False)], p=0.3),
        ]
    )


def jitter_mask(mask: torch.Tensor) -> torch.Tensor:
    """Shift, scale and rotate a mask (1, H, W) in 0 to 1 a little, as a segmenter errs.

    One of ten masks becomes the whole slice, so that the classifier can also work without a mask.
    """
    if torch.rand(()) < 0.1:
        return torch.ones_like(mask)
    rows, columns = torch.nonzero(mask[0] >= 0.5, as_tuple=True)
    if len(rows) == 0:
        return mask
    tumor_side = max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) + 1
    shift = (torch.randn(2) * 0.06 * tumor_side).tolist()
    return v2.functional.affine(
        mask,
        angle=torch.randn(()).item() * 8,
        translate=shift,
        scale=math.exp(torch.randn(()).item() * 0.15),
        shear=[0.0, 0.0],
        center=[columns.float().mean().item(), rows.float().mean().item()],
        interpolation=v2.InterpolationMode.BILINEAR,
    )
