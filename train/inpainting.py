"""Tumors removed from slices: all slices of the data set show one, and a network must learn that there may be none.

The tumor is replaced by tissue of the slice's mirrored side, or of a donor: another subject's slice. Both are shifted
to the gray values around the hole and blended in, so that neither edge nor level reveals the place. As a control,
`TumorInpainter.control` does the same beside a tumor that stays: traces of inpainting then tell nothing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SYMMETRY = 0.75
"""Least correlation of a slice with its mirror image for one side to replace the other."""

SIMILAR = 60
"""Slices of other subjects, mirrored or not, that resemble a slice most: the same view at about the same height."""

DONORS = 12
"""Number of these that are drawn at random; the one that fits the surroundings of the hole best is the donor."""

COARSE = 64
"""Height and width at which the mirror axis is searched."""


class TumorInpainter:
    """Removes the tumors from the segmenter's training slices.

    Args:
        slices: (S, 1, H, W) float16 in 0 to 1.
        masks: (S, 1, H, W), the tumor's share of each pixel.
        subjects: (S,) int64, the subject of each slice. Donors are other subjects.
    """

    def __init__(self, slices: Tensor, masks: Tensor, subjects: Tensor) -> None:
        self.slices, self.masks = slices, masks
        self._similar = similar_slices(slices, subjects)
        self._axes: dict[int, tuple[float, float, float]] = {}

    def inpaint(self, index: int) -> Tensor:
        """(1, H, W) float32: slice `index` with healthy tissue where the tumor was."""
        hole = dilate(self.masks[index].float() > 0, int(torch.randint(3, 9, ())))
        return self._filled(index, hole)

    def control(self, index: int) -> Tensor:
        """(1, H, W) float32: slice `index` with its tumor, and other tissue in a tumor-shaped hole beside it."""
        tumor = dilate(self.masks[index].float() > 0, 6)
        shape = self.masks[int(torch.randint(len(self.masks), ()))].float() > 0
        hole = dilate(shape, 4) & ~tumor & (self.slices[index].float() > 0.05)
        return self._filled(index, hole, keep=tumor)

    def _filled(self, index: int, hole: Tensor, keep: Tensor | None = None) -> Tensor:
        slice_ = self.slices[index].float()
        if not hole.any():
            return slice_
        ring = dilate(hole, 8) & ~hole
        if keep is not None:
            ring &= ~keep
        tissue = self._from_mirror(index, slice_, hole, keep) if torch.rand(()) < 0.5 else None
        if tissue is None:
            tissue = self._from_donor(index, slice_, hole, ring)
        return blend(slice_, tissue, hole, ring)

    def _from_mirror(self, index: int, slice_: Tensor, hole: Tensor, keep: Tensor | None) -> Tensor | None:
        """Mirror the slice about the axis of the head; None where it has none, or the tumor would land in the hole."""
        if index not in self._axes:
            self._axes[index] = mirror_axis(slice_, self.masks[index].float() > 0)
        angle, offset, correlation = self._axes[index]
        if correlation < SYMMETRY:
            return None
        unfit = hole if keep is None else hole | keep
        planes = mirror(torch.stack([slice_, unfit.float()]), angle, offset)
        return planes[0] if not (planes[1] > 0.1)[hole].any() else None

    def _from_donor(self, index: int, slice_: Tensor, hole: Tensor, ring: Tensor) -> Tensor:
        """Choose, of DONORS slices without a tumor in the hole, the one that resembles this slice most around it.

        Without such a slice the result is all zeros: the gray values around the hole alone then fill it.
        """
        candidates = self._similar[index]
        candidates = candidates[candidates >= 0]
        chosen = candidates[torch.randperm(len(candidates))[:DONORS]]
        flipped, chosen = chosen >= len(self.slices), chosen % len(self.slices)
        donors, tumors = self.slices[chosen].float(), self.masks[chosen] > 0
        donors[flipped], tumors[flipped] = donors[flipped].flip(3), tumors[flipped].flip(3)
        donors = donors[~tumors[:, hole].any(1)]
        if not len(donors):
            return torch.zeros_like(slice_)
        return donors[int((donors[:, ring] - slice_[ring]).abs().mean(1).argmin())]


def similar_slices(slices: Tensor, subjects: Tensor) -> Tensor:
    """Rank the slices of other subjects by their correlation with each slice.

    Args:
        slices: (S, 1, H, W).
        subjects: (S,) int64.

    Returns:
        (S, SIMILAR or fewer) int64, most similar first: index of the slice, plus S for its mirror image; -1 beyond
        the slices of other subjects.
    """
    coarse = torch.cat([F.adaptive_avg_pool2d(piece.float(), 24) for piece in slices.split(64)])
    coarse = torch.cat([coarse, coarse.flip(3)]).flatten(1)
    coarse = F.normalize(coarse - coarse.mean(1, keepdim=True), dim=1)
    correlation = coarse[: len(slices)] @ coarse.T
    correlation[subjects[:, None] == subjects.repeat(2)[None, :]] = -torch.inf
    best = correlation.topk(min(SIMILAR, correlation.shape[1]))
    return torch.where(best.values.isfinite(), best.indices, -1)


def dilate(mask: Tensor, by: int) -> Tensor:
    """Widen a mask, (1, H, W) bool, by that many pixels on each side."""
    wider = F.max_pool2d(mask.float(), (1, 2 * by + 1), stride=1, padding=(0, by))
    return F.max_pool2d(wider, (2 * by + 1, 1), stride=1, padding=(by, 0)) > 0


def blend(slice_: Tensor, tissue: Tensor, hole: Tensor, ring: Tensor) -> Tensor:
    """Put `tissue` into the hole, shifted to the gray values around it; all (1, H, W).

    The difference of the two in the ring is continued into the hole by a normalized convolution, which Poisson
    blending does more exactly (Perez et al. 2003).
    """
    weight = ring.float()
    difference = (slice_ - tissue) * weight
    sigma = max(4.0, math.sqrt(float(hole.sum())) / 3)
    shift = gaussian_blur(difference, sigma) / gaussian_blur(weight, sigma).clamp(min=1e-4)
    opacity = gaussian_blur(dilate(hole, 2).float(), 1.5)
    return slice_ * (1 - opacity) + (tissue + shift).clamp(0, 1) * opacity


def gaussian_blur(plane: Tensor, sigma: float) -> Tensor:
    """Blur (1, H, W) by a Gaussian of this standard deviation in pixels, along one axis after the other."""
    radius = min(math.ceil(3 * sigma), plane.shape[-1] - 1)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    plane = F.conv2d(F.pad(plane, (radius, radius, 0, 0)), taps[None, None, None, :])
    return F.conv2d(F.pad(plane, (0, 0, radius, radius)), taps[None, None, :, None])


def mirror(planes: Tensor, angle: float, offset: float) -> Tensor:
    """Mirror (N, 1, H, W) about an axis `offset` half widths from the center, turned by `angle` radians."""
    return F.grid_sample(
        planes,
        F.affine_grid(
            _reflections(torch.tensor([angle]), torch.tensor([offset])).expand(len(planes), 2, 3),
            list(planes.shape),
            align_corners=False,
        ),
        padding_mode="border",
        align_corners=False,
    )


def mirror_axis(slice_: Tensor, hole: Tensor) -> tuple[float, float, float]:
    """Find the axis about which a slice, (1, H, W), resembles its mirror image most.

    Args:
        slice_: (1, H, W).
        hole: (1, H, W) bool, pixels to ignore, on both sides.

    Returns:
        Angle in radians, offset in half widths, and the correlation.
    """
    angles, offsets = torch.linspace(-0.25, 0.25, 11), torch.linspace(-0.2, 0.2, 21)
    angle, offset = (grid.flatten() for grid in torch.meshgrid(angles, offsets, indexing="ij"))
    planes = F.interpolate(torch.stack([slice_, hole.float()]), size=(COARSE, COARSE), mode="area")
    grid = F.affine_grid(_reflections(angle, offset), [len(angle), 1, COARSE, COARSE], align_corners=False)
    seen = F.grid_sample(planes.transpose(0, 1).expand(len(angle), 2, COARSE, COARSE), grid, align_corners=False)
    valid = ((seen[:, 1] < 0.1) & (planes[1] < 0.1)).float()
    image, mirrored = planes[0].expand(len(angle), COARSE, COARSE), seen[:, 0]
    count = valid.sum((1, 2)).clamp(min=1)

    def centered(values: Tensor) -> Tensor:
        return (values - ((values * valid).sum((1, 2)) / count)[:, None, None]) * valid

    a, b = centered(image), centered(mirrored)
    correlation = (a * b).sum((1, 2)) / (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt().clamp(min=1e-6)
    best = int(correlation.argmax())
    return float(angle[best]), float(offset[best]), float(correlation[best])


def _reflections(angle: Tensor, offset: Tensor) -> Tensor:
    """(N,) angles and offsets → (N, 2, 3) for F.affine_grid: x -> x - 2 (x.n - offset) n, n the normal of the axis."""
    normal = torch.stack([angle.cos(), angle.sin()], 1)
    linear = torch.eye(2) - 2 * normal[:, :, None] * normal[:, None, :]
    return torch.cat([linear, (2 * offset[:, None] * normal)[:, :, None]], 2)
