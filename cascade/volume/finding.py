"""The finding of a volume: which components are a tumor, and its class, volume and diameters."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cascade.contract import CLASS_NAMES
from cascade.volume.stack import BoolArray, Stack

if TYPE_CHECKING:
    from cascade.volume.components import Components
    from cascade.volume.diameters import Diameters


@dataclass(frozen=True)
class VolumeRule:
    """When a component is a tumor.

    The support of a component is the sum of its log-odds in each of its slices: independent evidence adds up so. The
    evidence in a slice is its most probable pixel there, since the segmenter caps all pixels of a slice by the
    probability of a tumor in it. One slice alone must not be enough, so its log-odds are limited, and thin slices count
    in part only.

    Attributes:
        min_support: A component with less support is not a tumor.
        max_log_odds: No slice gives more support than this; 4 is a probability of 0.982.
        full_slab_mm: A slice that stands for less than this counts in proportion: its neighbors show nearly the same
            tissue, so a false positive repeats on them.
        part_of_head: A stack of fewer full slices shows a part of a head only. Less of a tumor may lie in it, so
            `min_support` is lower in proportion, down to 0 for a single slice: in a stack of a few, one is enough.
        whole_head: Without spacing, a stack counts as this many full slices at most, because a head is no longer.
    """

    min_support: float = 6.0
    max_log_odds: float = 4.0
    full_slab_mm: float = 5.0
    part_of_head: float = 12.0
    whole_head: float = 40.0

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "VolumeRule":
        """Read the rule from its entry in models.json; the defaults stand for what it lacks."""
        return cls(**{item.name: float(record[item.name]) for item in fields(cls) if item.name in record})

    def slice_weights(self, stack: Stack) -> NDArray[np.float64]:
        """Return how much each slice (N,) counts, 0 to 1."""
        count = len(stack.masks)
        if stack.slab_mm is None:
            return np.full(count, min(self.whole_head / count, 1.0))
        return np.minimum(np.array(stack.slab_mm) / self.full_slab_mm, 1.0)

    def support(self, stack: Stack, components: "Components") -> NDArray[np.float64]:
        """Return the support of each component (K,): each slice gives 0 to `max_log_odds`."""
        evidence = components.maxima(stack.mask_probability)
        with np.errstate(divide="ignore"):  # 0 and 1 become minus and plus infinity
            log_odds: NDArray[np.float64] = np.log(evidence) - np.log1p(-evidence)
        return self.slice_weights(stack) @ np.clip(log_odds, 0.0, self.max_log_odds)

    def limit(self, stack: Stack) -> float:
        """Return the support that is enough in this stack."""
        beyond_first = (float(self.slice_weights(stack).sum()) - 1) / (self.part_of_head - 1)
        return self.min_support * min(max(beyond_first, 0.0), 1.0)


@dataclass(frozen=True)
class VolumeFinding:
    """What was found in a volume.

    Attributes:
        status: "tumor" or "no_tumor".
        probabilities: Class name → probability, the mean over the slices of the tumor, weighted by its area in each;
            they sum to 1. Empty without a tumor.
        uncertain: True if the highest probability is below the calibrated threshold.
        support: Highest support of a component, also where it is too low; 0 if all masks are empty.
        slices: Number of slices of the volume.
        tumor_slices: Number of slices that show the tumor.
        key_slice: Index of the slice with the largest product of the two diameters; None without a tumor.
        volume_ml: Volume of the tumor, gaps between slices included; None if the spacing is unknown.
        diameters: Diameters in the key slice; None without a tumor, or if the spacing is unknown.
    """

    status: str
    probabilities: dict[str, float] = field(default_factory=dict)
    uncertain: bool = False
    support: float = 0.0
    slices: int = 0
    tumor_slices: int = 0
    key_slice: int | None = None
    volume_ml: float | None = None
    diameters: "Diameters | None" = None

    @property
    def label(self) -> str | None:
        """Most probable class; None without a tumor."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


def find_tumor(stack: Stack, rule: VolumeRule, uncertain_below: float = 0.0) -> tuple[VolumeFinding, BoolArray]:
    """Decide on a volume.

    Args:
        stack: Predictions of its slices.
        rule: When a component is a tumor.
        uncertain_below: A class with a lower probability is uncertain.

    Returns:
        The finding, and the (N, H, W) mask of the accepted components.
    """
    from cascade.volume.components import find_components  # SciPy loads slowly, and pictures do not need it

    components = find_components(stack.masks)
    support = rule.support(stack, components)
    accepted = support >= rule.limit(stack)
    mask = components.mask(accepted)
    best, known = float(support.max(initial=0.0)), stack.spacing_mm is not None and stack.slab_mm is not None
    if not accepted.any():
        return VolumeFinding("no_tumor", support=best, slices=len(mask), volume_ml=0.0 if known else None), mask
    areas = components.areas[:, accepted].sum(axis=1)
    probability = areas @ stack.class_probability / areas.sum()
    key_slice, diameters = _measure(mask, stack.spacing_mm)
    finding = VolumeFinding(
        status="tumor",
        probabilities=dict(zip(CLASS_NAMES, probability.tolist(), strict=True)),
        uncertain=bool(probability.max() < uncertain_below),
        support=best,
        slices=len(mask),
        tumor_slices=int(np.count_nonzero(areas)),
        key_slice=key_slice,
        volume_ml=_volume_ml(areas, stack),
        diameters=diameters,
    )
    return finding, mask


def _volume_ml(areas: NDArray[np.int64], stack: Stack) -> float | None:
    if stack.spacing_mm is None or stack.slab_mm is None:
        return None
    row_mm, column_mm = stack.spacing_mm
    return float(areas @ np.array(stack.slab_mm)) * row_mm * column_mm / 1000


def _measure(mask: BoolArray, spacing_mm: tuple[float, float] | None) -> "tuple[int, Diameters | None]":
    """Return the slice with the largest product of diameters, and the diameters if the spacing is known."""
    from cascade.volume.diameters import largest_diameters

    slices = np.flatnonzero(mask.any(axis=(1, 2))).tolist()
    measured = {index: largest_diameters(mask[index], spacing_mm or (1.0, 1.0)) for index in slices}
    key_slice = max(slices, key=lambda index: measured[index].product_mm2)
    return key_slice, measured[key_slice] if spacing_mm else None
