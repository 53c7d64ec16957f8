"""Tumors pasted into tumor-free slices of other scanners, and slices restyled to look like them.

External data hold gliomas and tumor-free slices, but no meningioma and no pituitary tumor. A network trained on them
as they are learns "another scanner, hence no tumor", or "another scanner, hence a glioma". Pasting puts tumors of all
classes into slices of other scanners; a patch without a tumor, pasted in the same way, is the control: traces of
pasting then do not suggest a tumor. Restyling gives a slice the gray values of another scanner.

Copying labeled objects into other images: CarveMix, Zhang et al. 2021, arXiv 2108.06883.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from train.donors import most_similar
from train.heads import FloatPlane, find_heads, gray_levels, plane_of, small
from train.pasting import paste
from train.restyling import restyle

TRIES = 6
"""Candidates that are tried before pasting is given up."""


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
        self.donors, self.hosts = find_heads(small(slices)), find_heads(small(negatives))
        self.style_levels = np.stack([gray_levels(slice_[0].float().numpy()) for slice_ in small(styles)])
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
        return restyle(plane_of(self.slices, index), self.donors.levels[index], self.style_levels[style], random)

    def restyled_negative(self, index: int, random: np.random.Generator) -> FloatPlane:
        """(H, W): tumor-free slice `index` with gray values of a random slice of the data set."""
        style = int(random.integers(len(self.donors.levels)))
        return restyle(plane_of(self.negatives, index), self.hosts.levels[index], self.donors.levels[style], random)

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
        label = int(random.choice(self.classes, p=odds))  # before the hosts, or classes that rarely fit become rarer
        for _ in range(TRIES):
            host = int(random.choice(len(self.negatives), p=self.host_odds))
            pair = self._pasted_into(host, label, random, control=control)
            if pair is not None:
                slice_, mask = pair
                return (slice_, np.zeros_like(mask), -1) if control else (slice_, mask, label)
        plane = plane_of(self.negatives, host)
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
                plane_of(self.masks, int(shape) % count),
                self.donors.boxes[int(shape) % count],
                mirror_donor=mirror_donor,
                mirror_shape=bool(shape >= count),
                random=random,
            )
            if pair is not None:
                return pair
        return None


def _odds(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights as probabilities; all alike where they are all 0."""
    total = float(weights.sum())
    if not math.isfinite(total) or total <= 0:
        return np.full(len(weights), 1 / len(weights))
    odds: NDArray[np.float64] = weights.astype(np.float64) / total
    return odds
