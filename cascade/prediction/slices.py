"""The row of a slice, in memory and in results.json."""

from dataclasses import dataclass
from typing import Any

from cascade.contract import CLASS_NAMES, Box
from cascade.prediction.volumes import Status


@dataclass(frozen=True, slots=True)
class SliceResult:
    """The row of one slice.

    Attributes:
        name: Path of the slice below the input folder. A slice of a volume ends in its number: `scan.nii.gz/012`.
        status: "tumor", "no_tumor", or "error" if the slice could not be processed.
        index: Index of the slice in its volume, from 0; None if the input is a single slice.
        file: Path of the file that contains the slice, unless its input is a file of this name.
        probabilities: In the order of CLASS_NAMES, rounded to 6 digits; None without a tumor.
        uncertain: True if the highest probability, before rounding, is below the calibrated threshold.
        box: Region that the classifier saw, in pixels of the slice; None without a tumor.
        mask_pixels: Area of the mask; None for an error.
        mask_mm2: Area of the mask in mm²; None if the pixel spacing is unknown.
        accepted_pixels: Pixels that belong to the finding of the volume; None for an error or a picture.
        latency_ms: Time of both models for the batch, divided by the number of slices in it.
        mask: Path of the mask below the results folder; all slices of a volume share one mask.
        probability_map: Path of the probability map below the results folder, likewise; None unless requested.
        overlay: Path of the overlay below the results folder.
        secondary_capture: Path of the secondary capture below the results folder; None without a tumor.
        notes: Remarks on the input file.
        problem: Why the slice could not be processed; empty unless `status` is "error".
        fix: What the user can do about it; empty unless `status` is "error".
    """

    name: str
    status: Status
    index: int | None = None
    file: str | None = None
    probabilities: tuple[float, ...] | None = None
    uncertain: bool = False
    box: Box | None = None
    mask_pixels: int | None = None
    mask_mm2: float | None = None
    accepted_pixels: int | None = None
    latency_ms: float | None = None
    mask: str | None = None
    probability_map: str | None = None
    overlay: str | None = None
    secondary_capture: str | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""
    fix: str = ""

    @property
    def input(self) -> str:
        """Name of the file or series that contains the slice."""
        return self.name if self.index is None else self.name.rpartition("/")[0]

    @property
    def label(self) -> str | None:
        """Most probable class; None without a tumor."""
        return CLASS_NAMES[self.probabilities.index(max(self.probabilities))] if self.probabilities else None


def slice_record(row: SliceResult) -> dict[str, Any]:
    """Return the row as results.json contains it."""
    return {
        "slice": row.name,
        "input": row.input,
        "index": row.index,
        "file": row.file,
        "status": row.status,
        "class": row.label,
        "uncertain": row.uncertain if row.probabilities else None,
        "probabilities": dict(zip(CLASS_NAMES, row.probabilities, strict=True)) if row.probabilities else None,
        "box": row.box._asdict() if row.box else None,
        "mask_pixels": row.mask_pixels,
        "mask_mm2": row.mask_mm2,
        "accepted_pixels": row.accepted_pixels,
        "latency_ms": row.latency_ms,
        "mask": row.mask,
        "probability_map": row.probability_map,
        "overlay": row.overlay,
        "secondary_capture": row.secondary_capture,
        "notes": "; ".join(row.notes) or None,
        "problem": row.problem or None,
        "fix": row.fix or None,
    }
