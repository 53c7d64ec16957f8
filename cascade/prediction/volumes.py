"""Findings of volumes → rows of volumes.csv and of `volumes` in results.json."""

from dataclasses import dataclass
from typing import Any, Literal

from cascade.contract import CLASS_NAMES
from cascade.volume.finding import VolumeFinding

Status = Literal["tumor", "no_tumor", "error"]


@dataclass(frozen=True, slots=True)
class VolumeResult:
    """The row of one volume: an input of several slices, or a file in a format of volumes.

    Attributes:
        name: Path of the input below the input folder.
        status: "tumor", "no_tumor", or "error" if it is unknown which.
        slices: Number of slices; 0 if the volume cannot be opened.
        tumor_slices: Number of slices that show the tumor; None for an error.
        key_slice: Index of the slice with the largest product of diameters, from 0; None without a tumor.
        probabilities: In the order of CLASS_NAMES, rounded to 6 digits; None without a tumor.
        uncertain: True if the highest probability, before rounding, is below the calibrated threshold.
        support: Highest support of a component in the slices that could be read, rounded to 3 digits; None without any.
        volume_ml: Volume of the tumor in milliliters; None for an error, or if the spacing is unknown.
        longest_mm: Longest diameter in the key slice, in millimeters; None without a tumor or spacing.
        perpendicular_mm: Longest diameter at right angles to it.
        mask: Path of the mask below the results folder; None if no slice could be read.
        probability_map: Path of the probability map below the results folder; None unless requested.
        notes: Remarks on the input.
        problem: Why there is no finding; empty unless `status` is "error".
        fix: What the user can do about it; empty unless `status` is "error".
    """

    name: str
    status: Status
    slices: int
    tumor_slices: int | None = None
    key_slice: int | None = None
    probabilities: tuple[float, ...] | None = None
    uncertain: bool = False
    support: float | None = None
    volume_ml: float | None = None
    longest_mm: float | None = None
    perpendicular_mm: float | None = None
    mask: str | None = None
    probability_map: str | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""
    fix: str = ""

    @property
    def label(self) -> str | None:
        """Most probable class; None without a tumor."""
        return CLASS_NAMES[self.probabilities.index(max(self.probabilities))] if self.probabilities else None


def volume_result(
    name: str, finding: VolumeFinding, mask: str | None, probability_map: str | None, notes: tuple[str, ...]
) -> VolumeResult:
    """Return the row of a volume with this finding.

    Args:
        name: Name of the input.
        finding: What was found in it.
        mask: Path of its mask below the results folder.
        probability_map: Path of its probability map below the results folder; None unless requested.
        notes: Remarks on the input.
    """
    diameters = finding.diameters
    return VolumeResult(
        name=name,
        status="tumor" if finding.label else "no_tumor",
        slices=finding.slices,
        tumor_slices=finding.tumor_slices,
        key_slice=finding.key_slice,
        probabilities=tuple(round(finding.probabilities[label], 6) for label in CLASS_NAMES) if finding.label else None,
        uncertain=finding.uncertain,
        support=round(finding.support, 3),
        volume_ml=None if finding.volume_ml is None else round(finding.volume_ml, 3),
        longest_mm=round(diameters.longest_mm, 2) if diameters else None,
        perpendicular_mm=round(diameters.perpendicular_mm, 2) if diameters else None,
        mask=mask,
        probability_map=probability_map,
        notes=notes,
    )


def volume_from_json(content: dict[str, Any]) -> VolumeResult:
    """Return the row whose fields a line of the journal contains."""
    probabilities = content["probabilities"]
    changed = {"probabilities": tuple(probabilities) if probabilities else None, "notes": tuple(content["notes"])}
    return VolumeResult(**{**content, **changed})


def volume_record(row: VolumeResult) -> dict[str, Any]:
    """Return the row as results.json contains it."""
    return {
        "input": row.name,
        "status": row.status,
        "class": row.label,
        "uncertain": row.uncertain if row.probabilities else None,
        "probabilities": dict(zip(CLASS_NAMES, row.probabilities, strict=True)) if row.probabilities else None,
        "volume_ml": row.volume_ml,
        "longest_mm": row.longest_mm,
        "perpendicular_mm": row.perpendicular_mm,
        "slices": row.slices,
        "tumor_slices": row.tumor_slices,
        "key_slice": row.key_slice,
        "support": row.support,
        "mask": row.mask,
        "probability_map": row.probability_map,
        "notes": "; ".join(row.notes) or None,
        "problem": row.problem or None,
        "fix": row.fix or None,
    }
