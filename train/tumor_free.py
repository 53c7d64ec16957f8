"""Slices without a tumor, made of slices with one: the data hold no others, and a network must learn that there are.

The tumor is replaced by tissue of the same slice's mirrored side, or of another person's slice. Both are moved to
the grey levels around the hole and faded in, so that neither edge nor level tells the place; and `retouched` does the
same beside a tumor that stays, so that a trace of the work means nothing either.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SYMMETRY = 0.75
"""Least correlation of a slice with its mirror image for the one side to stand in for the other."""

ALIKE = 60
"""Slices of other people, flipped or not, that are most like a slice as a whole: the same view at about one height."""

DONORS = 12
"""Of those, drawn at random; the one that fits the hole's surroundings best gives its tissue."""

COARSE = 64
"""Height and width at which the mirror axis is sought."""


class TumorFree:
    """Makes slices of the segmenter's training data tumor-free.

    slices  (S, 1, H, W) float16 in 0 .. 1.
    masks   (S, 1, H, W), the tumor's share of each pixel.
    people  (S,) int64, whose slice it is; donors are other people.
    """

    def __init__(self, slices: Tensor, masks: Tensor, people: Tensor) -> None:
        self.slices, self.masks = slices, masks
        self._alike = most_alike(slices, people)
        self._axes: dict[int, tuple[float, float, float]] = {}

    def without_tumor(self, index: int) -> Tensor:
        """(1, H, W) float32: the slice with healthy tissue where the tumor was."""
        hole = grown(self.masks[index].float() > 0, int(torch.randint(3, 9, ())))
        return self._filled(index, hole)

    def retouched(self, index: int) -> Tensor:
        """(1, H, W) float32: the slice with its tumor, and other tissue in a tumor-shaped hole beside it."""
        tumor = grown(self.masks[index].float() > 0, 6)
        shape = self.masks[int(torch.randint(len(self.masks), ()))].float() > 0
        hole = grown(shape, 4) & ~tumor & (self.slices[index].float() > 0.05)
        return self._filled(index, hole, keep=tumor)

    def _filled(self, index: int, hole: Tensor, keep: Tensor | None = None) -> Tensor:
        slice_ = self.slices[index].float()
        if not hole.any():
            return slice_
        ring = grown(hole, 8) & ~hole
        if keep is not None:
            ring &= ~keep
        tissue = self._mirrored(index, slice_, hole, keep) if torch.rand(()) < 0.5 else None
        if tissue is None:
            tissue = self._donated(index, slice_, hole, ring)
        return faded_in(slice_, tissue, hole, ring)

    def _mirrored(self, index: int, slice_: Tensor, hole: Tensor, keep: Tensor | None) -> Tensor | None:
        """The slice mirrored about the head's axis; None where it has none, or would put the hole or a tumor there."""
        if index not in self._axes:
            self._axes[index] = mirror_axis(slice_, self.masks[index].float() > 0)
        angle, offset, correlation = self._axes[index]
        if correlation < SYMMETRY:
            return None
        unfit = hole if keep is None else hole | keep
        planes = mirror(torch.stack([slice_, unfit.float()]), angle, offset)
        return planes[0] if not (planes[1] > 0.1)[hole].any() else None

    def _donated(self, index: int, slice_: Tensor, hole: Tensor, ring: Tensor) -> Tensor:
        """Of DONORS slices of other people the one that is most like this one around the hole, and healthy in it.

        Where none is healthy in it: nothing, so that the levels around the hole alone fill it.
        """
        chosen = self._alike[index, torch.randperm(self._alike.shape[1])[:DONORS]]
        flipped, chosen = chosen >= len(self.slices), chosen % len(self.slices)
        donors, tumors = self.slices[chosen].float(), self.masks[chosen] > 0
        donors[flipped], tumors[flipped] = donors[flipped].flip(3), tumors[flipped].flip(3)
        donors = donors[~tumors[:, hole].any(1)]
        if not len(donors):
            return torch.zeros_like(slice_)
        return donors[int((donors[:, ring] - slice_[ring]).abs().mean(1).argmin())]


def most_alike(slices: Tensor, people: Tensor) -> Tensor:
    """(S, 1, H, W) → (S, ALIKE) int64: the best correlated slices of other people; from S on, flipped ones."""
    coarse = torch.cat([F.adaptive_avg_pool2d(piece.float(), 24) for piece in slices.split(64)])
    coarse = torch.cat([coarse, coarse.flip(3)]).flatten(1)
    coarse = F.normalize(coarse - coarse.mean(1, keepdim=True), dim=1)
    correlation = coarse[: len(slices)] @ coarse.T
    correlation[people[:, None] == people.repeat(2)[None, :]] = -1
    return correlation.topk(min(ALIKE, len(slices))).indices


def grown(mask: Tensor, by: int) -> Tensor:
    """(1, H, W) bool → wider by that many pixels on each side, along one axis after the other."""
    wider = F.max_pool2d(mask.float(), (1, 2 * by + 1), stride=1, padding=(0, by))
    return F.max_pool2d(wider, (2 * by + 1, 1), stride=1, padding=(by, 0)) > 0


def faded_in(slice_: Tensor, tissue: Tensor, hole: Tensor, ring: Tensor) -> Tensor:
    """`tissue` in the hole, moved to the levels around it; all (1, H, W).

    The difference of the two in the ring is carried on into the hole by a normalised convolution, which is what
    Poisson blending does more exactly (Perez et al. 2003).
    """
    weight = ring.float()
    difference = (slice_ - tissue) * weight
    sigma = max(4.0, math.sqrt(float(hole.sum())) / 3)
    carried = blurred(difference, sigma) / blurred(weight, sigma).clamp(min=1e-4)
    opacity = blurred(grown(hole, 2).float(), 1.5)
    return slice_ * (1 - opacity) + (tissue + carried).clamp(0, 1) * opacity


def blurred(plane: Tensor, sigma: float) -> Tensor:
    """(1, H, W), by a Gaussian, along one axis after the other."""
    radius = min(math.ceil(3 * sigma), plane.shape[-1] - 1)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    plane = F.conv2d(F.pad(plane, (radius, radius, 0, 0)), taps[None, None, None, :])
    return F.conv2d(F.pad(plane, (0, 0, radius, radius)), taps[None, None, :, None])


def mirror(planes: Tensor, angle: float, offset: float) -> Tensor:
    """(N, 1, H, W) mirrored about the axis through the middle shifted by `offset` (half widths), turned by `angle`."""
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
    """Angle (radians), offset (half widths) and correlation of the axis about which the slice is most like itself.

    The hole is left out, on both sides.
    """
    angles, offsets = torch.linspace(-0.25, 0.25, 11), torch.linspace(-0.2, 0.2, 21)
    angle, offset = (grid.flatten() for grid in torch.meshgrid(angles, offsets, indexing="ij"))
    planes = F.interpolate(torch.stack([slice_, hole.float()]), size=(COARSE, COARSE), mode="area")
    grid = F.affine_grid(_reflections(angle, offset), [len(angle), 1, COARSE, COARSE], align_corners=False)
    seen = F.grid_sample(planes.transpose(0, 1).expand(len(angle), 2, COARSE, COARSE), grid, align_corners=False)
    valid = ((seen[:, 1] < 0.1) & (planes[1] < 0.1)).float()
    image, mirrored = planes[0].expand(len(angle), COARSE, COARSE), seen[:, 0]
    count = valid.sum((1, 2)).clamp(min=1)

    def centred(values: Tensor) -> Tensor:
        return (values - ((values * valid).sum((1, 2)) / count)[:, None, None]) * valid

    a, b = centred(image), centred(mirrored)
    correlation = (a * b).sum((1, 2)) / (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt().clamp(min=1e-6)
    best = int(correlation.argmax())
    return float(angle[best]), float(offset[best]), float(correlation[best])


def _reflections(angle: Tensor, offset: Tensor) -> Tensor:
    """(N,) twice → (N, 2, 3), what F.affine_grid takes: x -> x - 2 (x.n - offset) n, n the axis' normal."""
    normal = torch.stack([angle.cos(), angle.sin()], 1)
    linear = torch.eye(2) - 2 * normal[:, :, None] * normal[:, None, :]
    return torch.cat([linear, (2 * offset[:, None] * normal)[:, :, None]], 2)
