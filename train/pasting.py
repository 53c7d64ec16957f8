"""Tumors pasted into tumor-free slices of other scanners, and slices restyled to look like them.

External data hold gliomas and tumor-free slices, but no meningioma and no pituitary tumor. A network trained on them
as they are learns "another scanner, hence no tumor", or "another scanner, hence a glioma". Pasting puts tumors of all
classes into slices of other scanners; a patch without a tumor, pasted in the same way, is the control: traces of
pasting then do not suggest a tumor. Restyling gives a slice the gray values of another scanner.

Copying labeled objects into other images: CarveMix, Zhang et al. 2021, arXiv 2108.06883.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

FloatPlane = NDArray[np.float32]
BoolPlane = NDArray[np.bool_]

HEAD_SIZE = 256
"""Height and width at which heads are described; boxes and other lengths are in these pixels."""

LEVELS = 33
"""Quantiles of the tissue that describe a slice's gray values."""

DESCRIPTOR = 48
"""Height and width at which the heads of two slices are compared."""

CANDIDATES = 30
"""Donor slices of each class per host slice: those that resemble it most."""

TRIES = 6
"""Candidates that are tried before pasting is given up."""

MIN_CORRELATION = 0.58
"""Least correlation of host and donor. Below it they are often of different views."""

MIN_HEAD = 100
"""Least height and width in pixels of a host's head."""

MAX_AIR = 0.08
"""Highest level of the air around a host's head. Skull-stripped slices on gray ground are no hosts."""

MIN_TUMOR = 40
"""Least area in pixels of a pasted tumor."""

INSIDE_HEAD = 0.9
"""Least fraction of a pasted tumor that lies in the head, away from its border."""

MAX_SHARE = 0.3
"""Largest area of a pasted tumor over that of the head."""

BRAIN_LIKE = 0.8
"""Least fraction of the host's pixels under a pasted tumor that are BRAIN_LEVELS: not air, bone or fat."""

BRAIN_LEVELS = (0.45, 1.6)
"""Gray values of brain over the median of the slice's tissue."""

EDGE_SIGMA = (0.5, 2.0)
"""Standard deviation in pixels of the Gaussian that softens the edge of a pasted area."""

MAX_GRADIENT = 0.11
"""Largest mean gradient of the host under a pasted tumor, per pixel and over the median of the slice's tissue: brain is
smooth, while jaw, teeth and sinuses are not."""

MAX_HEAD_GRADIENT = 0.15
"""Largest upper quartile of a host's gradient over the head, in the same unit: slices through the face are no hosts."""

BORDER = 4
"""Width in pixels of the head's border: scalp and skull."""


@dataclass(frozen=True, eq=False)
class Heads:
    """What pasting needs to know of each slice's head; see `find_heads`.

    Attributes:
        boxes: (S, 4) float32, left, top, right and bottom of each head in pixels.
        descriptors: (S, DESCRIPTOR ** 2) float32, the heads' pixels, mean 0 and length 1.
        levels: (S, LEVELS + 1) float32, the least value of each slice, then the quantiles of its tissue.
        air: (S,) float32, median of each slice's outermost pixels.
        interiors: (S, H, W) bool, the heads without their border.
        gradients: (S, H, W) float16, magnitude of the gradient per pixel over the median of the slice's tissue.
    """

    boxes: FloatPlane
    descriptors: FloatPlane
    levels: FloatPlane
    air: FloatPlane
    interiors: BoolPlane
    gradients: NDArray[np.float16]

    def head(self, index: int, slices: Tensor) -> "Head":
        """The head on slice `index` of `slices`, (S, 1, k H, k W), which may be finer than those described here."""
        return Head(
            _plane(slices, index), self.boxes[index], self.levels[index], self.interiors[index], self.gradients[index]
        )

    def can_host(self) -> BoolPlane:
        """(S,) bool: heads that are large enough, surrounded by dark air, and not cut through the face."""
        left, top, right, bottom = self.boxes.T
        rough = [
            np.quantile(gradient[interior], 0.75) if interior.any() else np.inf
            for gradient, interior in zip(self.gradients, self.interiors, strict=True)
        ]
        large = np.minimum(right - left, bottom - top) >= MIN_HEAD
        able: BoolPlane = large & (self.air <= MAX_AIR) & (np.array(rough) <= MAX_HEAD_GRADIENT)
        return able


def head_mask(plane: FloatPlane) -> BoolPlane:
    """Find the head: the largest bright area, with its holes filled.

    Args:
        plane: (H, W) in 0 to 1.
    """
    smooth = ndimage.gaussian_filter(plane, 1.5)
    air = float(np.median(np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])))
    bright = np.abs(smooth - air) > 0.12 * (float(np.percentile(smooth, 99)) - air)
    areas, count = ndimage.label(bright)
    if count == 0:
        return np.ones_like(bright)
    largest = areas == 1 + int(np.argmax(np.bincount(areas.ravel())[1:]))
    filled: BoolPlane = ndimage.binary_fill_holes(largest)
    return filled


def gray_levels(plane: FloatPlane) -> FloatPlane:
    """(LEVELS + 1,) float32, increasing: the least value, then quantiles of the tissue (brighter than the mean)."""
    tissue = plane[plane > plane.mean()]
    quantiles = np.quantile(tissue if tissue.size else plane, np.linspace(0, 1, LEVELS))
    levels = np.concatenate([[plane.min()], quantiles])
    increasing: FloatPlane = (np.maximum.accumulate(levels) + np.arange(LEVELS + 1) * 1e-6).astype(np.float32)
    return increasing


def find_heads(slices: Tensor) -> Heads:
    """Describe the heads on (S, 1, H, W) slices in 0 to 1."""
    boxes, levels, air, interiors, gradients = [], [], [], [], []
    for slice_ in slices:
        plane = slice_[0].float().numpy()
        mask = head_mask(plane)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        levels.append(gray_levels(plane))
        gradient = ndimage.gaussian_gradient_magnitude(plane, 1) / max(float(levels[-1][1 + LEVELS // 2]), 1e-3)
        gradients.append(gradient.astype(np.float16))
        air.append(np.median(np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])))
        interiors.append(ndimage.binary_erosion(mask, iterations=BORDER))
    corners = np.array(boxes, dtype=np.float32)
    return Heads(
        corners,
        _descriptors(slices, corners),
        np.stack(levels),
        np.array(air, dtype=np.float32),
        np.stack(interiors),
        np.stack(gradients),
    )


def _descriptors(slices: Tensor, boxes: FloatPlane) -> FloatPlane:
    side = slices.shape[-1]
    left, top, right, bottom = (torch.from_numpy(column) for column in boxes.T)
    theta = torch.zeros(len(slices), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = (right - left) / side, (left + right) / side - 1
    theta[:, 1, 1], theta[:, 1, 2] = (bottom - top) / side, (top + bottom) / side - 1
    pieces = []
    for planes, matrices in zip(slices.split(64), theta.split(64), strict=True):
        grid = F.affine_grid(matrices, [len(planes), 1, 2 * DESCRIPTOR, 2 * DESCRIPTOR], align_corners=False)
        pieces.append(F.avg_pool2d(F.grid_sample(planes.float(), grid, align_corners=False), 2).flatten(1))
    flat = torch.cat(pieces)
    found: FloatPlane = F.normalize(flat - flat.mean(1, keepdim=True), dim=1).numpy()
    return found


def flipped(descriptors: FloatPlane) -> FloatPlane:
    """The descriptors of the slices mirrored left to right."""
    squares = descriptors.reshape(-1, DESCRIPTOR, DESCRIPTOR)
    return np.ascontiguousarray(squares[:, :, ::-1]).reshape(len(descriptors), -1)


def most_similar(hosts: FloatPlane, donors: FloatPlane, allowed: BoolPlane | None = None) -> NDArray[np.int64]:
    """Rank donors by the correlation of their heads with each host's.

    Args:
        hosts: (E, DESCRIPTOR ** 2) descriptors.
        donors: (S, DESCRIPTOR ** 2) descriptors.
        allowed: (E, S) bool, which donors each host may have; None allows all.

    Returns:
        (E, CANDIDATES or fewer) int64: index of the donor, plus S for its mirror image, most similar first;
        -1 where the correlation is below MIN_CORRELATION.
    """
    correlation = np.concatenate([hosts @ donors.T, hosts @ flipped(donors).T], axis=1)
    if allowed is not None:
        correlation[~np.concatenate([allowed, allowed], axis=1)] = -1
    count = min(CANDIDATES, correlation.shape[1])
    best = np.argpartition(-correlation, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(correlation, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
    ranked: NDArray[np.int64] = np.where(values >= MIN_CORRELATION, best, -1).astype(np.int64)
    return ranked


def match_levels(plane: FloatPlane, source: FloatPlane, target: FloatPlane) -> FloatPlane:
    """Map gray values so that quantiles of the tissue `source` become those of `target` (histogram matching)."""
    mapped: FloatPlane = np.interp(plane, source, target).astype(np.float32)
    return mapped


def match_quartiles(plane: FloatPlane, source: FloatPlane, target: FloatPlane) -> FloatPlane:
    """Map gray values linearly so that the quartiles of the tissue `source` become those of `target`."""
    first, third = 1 + LEVELS // 4, 1 + 3 * LEVELS // 4
    gain = float(target[third] - target[first]) / max(float(source[third] - source[first]), 1e-3)
    mapped: FloatPlane = ((plane - source[first]) * gain + target[first]).astype(np.float32)
    return mapped


def restyle(plane: FloatPlane, source: FloatPlane, target: FloatPlane, random: np.random.Generator) -> FloatPlane:
    """Give a slice the gray values of another scanner, at a random strength; 40 % also at half the resolution.

    Args:
        plane: (H, W) in 0 to 1.
        source: Its `gray_levels`.
        target: The `gray_levels` to approach.
        random: Draws strength and resolution.
    """
    strength = random.uniform(0.3, 1.0)
    mixed = strength * match_levels(plane, source, target) + (1 - strength) * plane
    return half_resolution(mixed) if random.random() < 0.4 else mixed


def half_resolution(plane: FloatPlane) -> FloatPlane:
    """(H, W) averaged over 2 x 2 pixels and enlarged again."""
    small = F.avg_pool2d(torch.from_numpy(np.ascontiguousarray(plane))[None, None], 2)
    back: FloatPlane = F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)[0, 0].numpy()
    return back


@dataclass(frozen=True, eq=False)
class Head:
    """One slice of `Heads` with its pixels, which may be several times as fine.

    Attributes:
        plane: (k H, k W) float32 in 0 to 1.
        box, levels, interior, gradient: As in `Heads`.
    """

    plane: FloatPlane
    box: FloatPlane
    levels: FloatPlane
    interior: BoolPlane
    gradient: NDArray[np.float16]

    @property
    def scale(self) -> int:
        """Pixels of `plane` along one of `interior`: k."""
        return len(self.plane) // len(self.interior)


def paste(
    host: Head,
    donor: Head,
    shape: FloatPlane,
    shape_box: FloatPlane,
    *,
    mirror_donor: bool,
    mirror_shape: bool,
    random: np.random.Generator,
) -> tuple[FloatPlane, FloatPlane] | None:
    """Paste the part of `donor` under `shape` into `host`, head onto head.

    Args:
        host: The slice to paste into.
        donor: The slice to take the tissue from; its plane is as large as that of the host.
        shape: The area to paste, as large as the planes, in 0 to 1.
        shape_box: (4,) box around the head that it comes from, as in `Heads`.
        mirror_donor: Mirror the donor left to right first.
        mirror_shape: Mirror the shape left to right first.
        random: Draws stretch, shift, the way to match gray values, and the softness of the edge.

    Returns:
        The new slice and the pasted area, as large as the planes, float32 in 0 to 1; None where the area does not
        lie in the brain or is too small.
    """
    scale, host_box = host.scale, host.box * host.scale
    stretch, shift = random.uniform(0.9, 1.1, 2), random.uniform(-0.04, 0.04, 2)
    area = onto_head(shape, shape_box * scale, host_box, stretch, shift, mirror=mirror_shape)
    if not _lies_in_brain(area[::scale, ::scale] >= 0.5, host):
        return None
    tissue = onto_head(donor.plane, donor.box * scale, host_box, stretch, shift, mirror=mirror_donor)
    match = match_levels if random.random() < 0.5 else match_quartiles
    tissue = match(tissue, donor.levels, host.levels)
    tumor = area >= 0.5
    edge = ndimage.binary_dilation(tumor, iterations=scale)
    rim = ndimage.binary_dilation(edge, iterations=4 * scale) & ~edge
    rim &= np.kron(host.interior, np.ones((scale, scale), bool))
    if rim.any():
        tissue = tissue + (np.median(host.plane[rim]) - np.median(tissue[rim]))
    opacity = ndimage.gaussian_filter(edge.astype(np.float32), scale * random.uniform(*EDGE_SIGMA))
    blended: FloatPlane = (host.plane * (1 - opacity) + np.clip(tissue, 0, 1.2) * opacity).astype(np.float32)
    return blended, area


def _lies_in_brain(tumor: BoolPlane, host: Head) -> bool:
    """True if a tumor (H, W) is large enough, inside the head, and on smooth tissue with gray values of brain."""
    count, middle = np.count_nonzero(tumor), host.levels[1 + LEVELS // 2]
    if count < MIN_TUMOR or count > MAX_SHARE * np.count_nonzero(host.interior):
        return False
    under = host.plane[:: host.scale, :: host.scale][tumor]
    brain = (under > BRAIN_LEVELS[0] * middle) & (under < BRAIN_LEVELS[1] * middle)
    return bool(
        np.count_nonzero(tumor & host.interior) >= INSIDE_HEAD * count
        and np.mean(brain) >= BRAIN_LIKE
        and host.gradient[tumor].mean(dtype=np.float32) <= MAX_GRADIENT
    )


def onto_head(
    plane: FloatPlane,
    box: FloatPlane,
    host_box: FloatPlane,
    stretch: NDArray[np.float64],
    shift: NDArray[np.float64],
    *,
    mirror: bool,
) -> FloatPlane:
    """Resample a slice so that the box around its head fills that of the host, stretched and shifted a little.

    Args:
        plane: (H, W) float32.
        box: (4,) left, top, right, bottom of the head in pixels.
        host_box: (4,) the same of the host.
        stretch: Height and width over those of the host's box.
        shift: Down and right, in heights and widths of the host's box.
        mirror: Mirror the slice left to right.
    """
    left, top, right, bottom = (float(value) for value in box)
    host_left, host_top, host_right, host_bottom = (float(value) for value in host_box)
    scale_y = (bottom - top) / (host_bottom - host_top) / stretch[0]
    scale_x = (right - left) / (host_right - host_left) / stretch[1]
    center_y = (host_top + host_bottom) / 2 + shift[0] * (host_bottom - host_top)
    center_x = (host_left + host_right) / 2 + shift[1] * (host_right - host_left)
    if mirror:
        scale_x = -scale_x
    matrix = np.array([scale_y, scale_x])
    offset = np.array([(top + bottom) / 2 - 0.5, (left + right) / 2 - 0.5]) - matrix * (
        np.array([center_y, center_x]) - 0.5
    )
    moved: FloatPlane = ndimage.affine_transform(plane, np.diag(matrix), offset, order=1, output=np.float32)
    return moved


class Paster:
    """Draws slices with pasted tumors, their controls, and restyled slices.

    Args:
        slices, masks: (S, 1, H, W), slices with exact masks, in 0 to 1.
        labels: (S,) int64, their classes.
        donor_weights: (S,) how often each is drawn as a donor.
        negatives: (M, 1, H, W), tumor-free slices of other scanners.
        subjects: (M,) int64, their subjects.
        host_weights: (M,) how often each is drawn as a host.
        styles: (K, 1, H, W), slices whose gray values restyled slices take.
        style_weights: (K,) how often each is drawn for that.
    """

    def __init__(
        self,
        slices: Tensor,
        masks: Tensor,
        labels: Tensor,
        donor_weights: Tensor,
        negatives: Tensor,
        subjects: Tensor,
        host_weights: Tensor,
        styles: Tensor,
        style_weights: Tensor,
    ) -> None:
        self.slices, self.masks, self.negatives = slices, masks, negatives
        self.labels, self.donor_weights = labels.numpy(), donor_weights.numpy()
        self.donors, self.hosts = find_heads(_small(slices)), find_heads(_small(negatives))
        self.style_levels = np.stack([gray_levels(slice_[0].float().numpy()) for slice_ in _small(styles)])
        self.style_odds = _odds(style_weights.numpy())
        able = self.hosts.can_host()
        self.host_odds = _odds(np.where(able, host_weights.numpy(), 0.0))
        self.classes = sorted(set(self.labels.tolist()))
        self.candidates = {
            label: most_similar(
                self.hosts.descriptors,
                self.donors.descriptors,
                np.broadcast_to(self.labels == label, (len(negatives), len(slices))),
            )
            for label in self.classes
        }
        others = (subjects.numpy()[:, None] != subjects.numpy()[None, :]) & able[None, :]
        self.patches = most_similar(self.hosts.descriptors, self.hosts.descriptors, others)

    def restyled(self, index: int, random: np.random.Generator) -> FloatPlane:
        """(H, W): slice `index` with gray values of a random external slice."""
        style = int(random.choice(len(self.style_levels), p=self.style_odds))
        return restyle(_plane(self.slices, index), self.donors.levels[index], self.style_levels[style], random)

    def restyled_negative(self, index: int, random: np.random.Generator) -> FloatPlane:
        """(H, W): tumor-free slice `index` with gray values of a random slice of the data set."""
        style = int(random.integers(len(self.donors.levels)))
        return restyle(_plane(self.negatives, index), self.hosts.levels[index], self.donors.levels[style], random)

    def pasted(
        self, random: np.random.Generator, *, control: bool = False, class_odds: Sequence[float] = ()
    ) -> tuple[FloatPlane, FloatPlane, int]:
        """A tumor of a random class in a random tumor-free slice; as a control, tumor-free tissue of the same shape.

        Args:
            random: Source of random numbers.
            control: Whether to paste tumor-free tissue.
            class_odds: How often each class is drawn, relative to the others; empty draws all alike.

        Returns:
            Slice and mask of the tumor, (H, W) float32, and its class; for a control the mask is empty and the class
            -1. Where nothing fits, after some hosts, the last host as it is, also with an empty mask and -1.
        """
        host, odds = 0, _odds(np.array([class_odds[label] if class_odds else 1.0 for label in self.classes]))
        for _ in range(TRIES):
            host = int(random.choice(len(self.negatives), p=self.host_odds))
            label = int(random.choice(self.classes, p=odds))
            pair = self._pasted_into(host, label, random, control=control)
            if pair is not None:
                slice_, mask = pair
                return (slice_, np.zeros_like(mask), -1) if control else (slice_, mask, label)
        plane = _plane(self.negatives, host)
        return plane, np.zeros_like(plane), -1

    def _pasted_into(
        self, host: int, label: int, random: np.random.Generator, *, control: bool
    ) -> tuple[FloatPlane, FloatPlane] | None:
        candidates = self.candidates[label][host]
        candidates = candidates[candidates >= 0]
        patches = self.patches[host][self.patches[host] >= 0]
        if not len(candidates) or (control and not len(patches)):
            return None
        count = len(self.slices)
        odds = _odds(self.donor_weights[candidates % count])
        for shape in random.choice(candidates, min(TRIES, len(candidates)), replace=False, p=odds):
            if control:
                patch = int(random.choice(patches))
                donor = self.hosts.head(patch % len(self.negatives), self.negatives)
                mirror_donor = patch >= len(self.negatives)
            else:
                donor, mirror_donor = self.donors.head(int(shape) % count, self.slices), bool(shape >= count)
            pair = paste(
                self.hosts.head(host, self.negatives),
                donor,
                _plane(self.masks, int(shape) % count),
                self.donors.boxes[int(shape) % count],
                mirror_donor=mirror_donor,
                mirror_shape=bool(shape >= count),
                random=random,
            )
            if pair is not None:
                return pair
        return None


def _small(slices: Tensor) -> Tensor:
    """(S, 1, H, W) averaged down to HEAD_SIZE."""
    factor = max(1, slices.shape[-1] // HEAD_SIZE)
    return torch.cat([F.avg_pool2d(piece.float(), factor).half() for piece in slices.split(64)])


def _plane(planes: Tensor, index: int) -> FloatPlane:
    plane: FloatPlane = planes[index, 0].float().numpy()
    return plane


def _odds(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights as probabilities; all alike where they are all 0."""
    total = float(weights.sum())
    if not math.isfinite(total) or total <= 0:
        return np.full(len(weights), 1 / len(weights))
    odds: NDArray[np.float64] = weights.astype(np.float64) / total
    return odds
