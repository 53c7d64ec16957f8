"""Read labeled volumes that a CSV table lists, each with the mask of its tumor."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.contract import CLASS_NAMES
from cascade.datasets.table import Row, find_table, names_volumes, parse_rows, read_rows
from cascade.errors import CascadeError
from cascade.io.mask import VolumeSource, read_volume_mask
from cascade.io.open import open_source
from cascade.io.slices import BoolArray

NO_TUMOR = "none"
"""Label of a head without a tumor."""


@dataclass(frozen=True)
class VolumeInfo:
    """Files, label and patient of a labeled volume.

    Attributes:
        path: File of a volume, or folder of a DICOM series, relative to the folder of the data set.
        mask: File of the mask, relative to the same folder; may be empty for a head without a tumor.
        label: One of CLASS_NAMES, or NO_TUMOR.
        patient: Patient id as stored.
    """

    path: str
    mask: str
    label: str
    patient: str

    @property
    def has_tumor(self) -> bool:
        """True unless the head is labeled as without a tumor."""
        return self.label != NO_TUMOR


@dataclass(frozen=True, eq=False)
class VolumeLabel:
    """What an expert drew on a volume of N slices.

    Attributes:
        mask: (N, H, W) bool, True on tumor, in the order and orientation in which `predict_volume` returns masks.
        pixel_ml: (N,) volume that a pixel of each slice stands for, gaps included, in milliliters; None if unknown.
    """

    mask: BoolArray
    pixel_ml: NDArray[np.float64] | None


def lists_volumes(folder: Path) -> bool:
    """Return True if the folder has a table of volumes, False if it has one of slices, or none.

    Raises:
        CascadeError: The table cannot be read, or lists both volumes and slices.
    """
    table = find_table(folder)
    return table is not None and names_volumes(folder, read_rows(table))


def list_volumes(folder: Path) -> list[VolumeInfo | CascadeError]:
    """List the volumes of a data set, and an error for each row that cannot be used.

    Raises:
        CascadeError: The folder has no table, or it cannot be read.
    """
    table = find_table(folder)
    if table is None:
        raise CascadeError(f"{folder}: contains no table of volumes", fix="write one, see docs/data.md")
    return parse_rows(read_rows(table), _parse_volume)


def _parse_volume(row: Row) -> VolumeInfo:
    label = row.class_name((*CLASS_NAMES, NO_TUMOR))
    cells = {"path": row.path, "mask": row.mask, "patient": row.patient}
    if label == NO_TUMOR:
        del cells["mask"]
    row.check_cells(**cells)
    return VolumeInfo(row.path, row.mask, label, row.patient)


def read_label(folder: Path, info: VolumeInfo) -> VolumeLabel:
    """Read the mask of a volume. Of the volume itself, only headers are read.

    Raises:
        CascadeError: Volume or mask cannot be opened or lie on different grids, or the mask contradicts the label.
    """
    path = folder / info.path
    with closing(open_source(path)) as source:
        if not isinstance(source, VolumeSource):
            raise CascadeError(f"{path}: is a picture, not a volume", fix="give a file of a volume or a DICOM series")
        mask = read_volume_mask(folder / info.mask, source) if info.mask else np.zeros(source.grid.shape, bool)
        row_mm, column_mm = source.grid.spacing_mm[1:]
        pixel_ml = None if source.slab_mm is None else np.array(source.slab_mm) * row_mm * column_mm / 1000
    if mask.any() != info.has_tumor:
        content = "shows a tumor" if mask.any() else "is empty"
        raise CascadeError(
            f"{path}: is labeled {info.label} but its mask {content}", fix="correct the label or the mask"
        )
    return VolumeLabel(mask, pixel_ml)
