"""Tumor or none: the share of tumors found against the share of tumor-free slices in which one is seen."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from cascade.contract import THRESHOLD
from cascade.evaluation.metrics import DoubleArray
from cascade.io.preprocess import Letterbox
from cascade.io.slices import Slice
from cascade.pipeline import Cascade

LARGE = 0.005
"""Share of the picture from which on a false alarm counts as a large one."""

SENSITIVITY = 0.98
"""Of the threshold that is looked for: this share of the tumors is still found with it."""


@dataclass(frozen=True)
class TumorFreeSlice:
    """peak  highest probability of any pixel.  area_share  of the picture, that the mask takes."""

    path: str
    peak: float
    area_share: float

    @property
    def folder(self) -> str:
        """The first name of its path, be it a folder, a zip or a volume; empty for a file that lies in none."""
        return self.path.rpartition("/")[0].partition("/")[0]


def look(cascade: Cascade, batch: Sequence[tuple[str, Slice]]) -> list[TumorFreeSlice]:
    """What the segmenter sees in slices, given with their paths, that show no tumor."""
    letterboxes = [Letterbox.of(item) for _, item in batch]
    squares = np.stack([box.square(item.pixels) for box, (_, item) in zip(letterboxes, batch, strict=True)])[:, None]
    planes = [box.original(plane[0]) for box, plane in zip(letterboxes, cascade.segment(squares), strict=True)]
    return [
        TumorFreeSlice(path, float(plane.max()), float((plane >= THRESHOLD).mean()))
        for (path, _), plane in zip(batch, planes, strict=True)
    ]


def presence(tumor_peaks: DoubleArray, tumor_free: Sequence[TumorFreeSlice]) -> dict[str, Any]:
    """Ready for JSON. A tumor is seen where the peak, the slice's highest probability, reaches a threshold.

    tumor_peaks  (N,) of the slices with a tumor.

    `curve` holds every peak as a threshold, falling; `by_folder` the false alarms of each of TumorFreeSlice.folder.
    """
    free_peaks = np.array([item.peak for item in tumor_free])
    peaks = np.concatenate([tumor_peaks, free_peaks])
    truth = np.concatenate([np.ones(len(tumor_peaks)), np.zeros(len(free_peaks))])
    # The curve needs no points on a straight line, but the threshold looked for may be one.
    false_alarms, sensitivity, thresholds = roc_curve(truth, peaks, drop_intermediate=False)
    enough = int(np.argmax(sensitivity >= SENSITIVITY))
    return {
        "tumor_free_slices": len(tumor_free),
        "sensitivity": float((tumor_peaks >= THRESHOLD).mean()),
        "false_alarms": float((free_peaks >= THRESHOLD).mean()),
        "large_false_alarms": float(np.mean([item.area_share > LARGE for item in tumor_free])),
        "by_folder": _by_folder(tumor_free),
        "auc": float(roc_auc_score(truth, peaks)),
        "at_sensitivity": {
            "least": SENSITIVITY,
            "threshold": float(thresholds[enough]),
            "sensitivity": float(sensitivity[enough]),
            "false_alarms": float(false_alarms[enough]),
        },
        "curve": {  # without the first point, whose threshold is infinite
            "threshold": thresholds[1:].tolist(),
            "sensitivity": sensitivity[1:].tolist(),
            "false_alarms": false_alarms[1:].tolist(),
        },
    }


def _by_folder(tumor_free: Sequence[TumorFreeSlice]) -> dict[str, dict[str, float]]:
    seen: dict[str, list[bool]] = {}
    for item in tumor_free:
        seen.setdefault(item.folder, []).append(item.peak >= THRESHOLD)
    return {name: {"slices": len(seen[name]), "false_alarms": float(np.mean(seen[name]))} for name in sorted(seen)}


def tumor_free_csv(slices: Sequence[TumorFreeSlice]) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["path", "peak", "area_share"])
    writer.writerows([item.path, item.peak, item.area_share] for item in slices)
    return lines.getvalue()
