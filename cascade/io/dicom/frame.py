"""The geometry and intensity scale of the frames of a DICOM file."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import Dataset

from cascade.io.dicom.attributes import CONTRAST_ATTRIBUTES, FUNCTIONAL_GROUPS
from cascade.io.dicom.elements import (
    Numbers,
    count_frames,
    damaged_error,
    functional_group,
    get_number,
    get_numbers,
    get_text,
)
from cascade.io.orientation import Grid
from cascade.io.slices import MAX_FIELD_MM, MIN_FIELD_MM

ORIENTATION_TOLERANCE = 1e-3
"""Direction cosines with a smaller difference count as equal."""

LPS_TO_RAS = (-1, -1, 1)
"""The x and y axes of DICOM run to the left and to the back of the patient, those of `Grid` to the right and front."""


@dataclass(frozen=True)
class Frame:
    """The geometry and intensity scale of one frame. Attributes are None if the header gives no valid value.

    Attributes:
        position: (x, y, z) of the center of the first pixel in millimeters, in LPS+ orientation.
        orientation: Direction cosines of its rows, then of its columns.
        spacing_mm: Distance between pixel centers in millimeters: (row, column).
        slope: Rescale slope: intensity = stored value * slope + intercept.
        intercept: Rescale intercept.
        contrast: Values of `CONTRAST_ATTRIBUTES`, by keyword.
    """

    position: Numbers | None
    orientation: Numbers | None
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float
    contrast: dict[str, str] = field(hash=False)

    @property
    def distance_mm(self) -> float:
        """Distance from the origin along the slice normal, in millimeters; 0 if unknown."""
        if self.position is None or self.orientation is None:
            return 0.0
        return float(np.cross(self.orientation[:3], self.orientation[3:]) @ self.position)

    @property
    def is_placed(self) -> bool:
        """True if the header says where the frame is along the slice normal."""
        return self.position is not None and self.orientation is not None

    @property
    def missing(self) -> list[str]:
        """Keywords of the attributes that would give its place in the patient, but are missing."""
        attributes = {
            "ImagePositionPatient": self.position,
            "ImageOrientationPatient": self.orientation,
            "PixelSpacing": self.spacing_mm,
        }
        return [keyword for keyword, value in attributes.items() if value is None]

    def is_parallel(self, other: "Frame") -> bool:
        """Return True if both frames have the same orientation and spacing, as in one volume."""
        pairs = ((self.orientation, other.orientation), (self.spacing_mm, other.spacing_mm))
        return all(_is_close(own or (), others or ()) for own, others in pairs)

    def grid(self, rows: int, columns: int, count: int) -> Grid:
        """Return the grid of an array (rows, columns, count) of parallel frames, in their order along the normal.

        Without orientation, the slices are displayed as they are stored.
        """
        shape, spacing_mm = (rows, columns, count), (*(self.spacing_mm or (1.0, 1.0)), 1.0)
        if self.orientation is None:
            return Grid(shape, (2, 0, 1), (False, False, False), (spacing_mm[2], spacing_mm[0], spacing_mm[1]))
        along_row, along_column = np.reshape(self.orientation, (2, 3)) * LPS_TO_RAS
        directions = np.column_stack([along_column, along_row, np.cross(along_row, along_column)])
        return Grid.along(directions, spacing_mm, shape, axis=2)


def _is_close(one: Numbers, other: Numbers) -> bool:
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=0, atol=ORIENTATION_TOLERANCE))


def read_frames(path: Path, dataset: Dataset, invalid: set[str]) -> Iterator[Frame]:
    """Read the frames of a header, in stored order.

    Args:
        path: The file, for error messages.
        dataset: Its header.
        invalid: Receives the keywords of attributes with an invalid value, which count as missing.

    Raises:
        CascadeError: If the header describes another number of frames than it declares.
    """
    count = count_frames(dataset, invalid)
    groups = len(dataset.get(FUNCTIONAL_GROUPS[1]) or ())
    if groups not in (0, count):
        raise damaged_error(path, f"it declares {count:,} frames, but describes {groups:,}")
    for index in range(count):
        slope, intercept = _scale(functional_group(dataset, index, "PixelValueTransformationSequence"), invalid)
        place = functional_group(dataset, index, "PlanePositionSequence")
        has_position = count == 1 or place is not dataset  # a position of the whole file is that of its first frame
        yield Frame(
            position=get_numbers(place, "ImagePositionPatient", 3, invalid) if has_position else None,
            orientation=_orientation(functional_group(dataset, index, "PlaneOrientationSequence"), invalid),
            spacing_mm=_spacing(dataset, functional_group(dataset, index, "PixelMeasuresSequence"), invalid),
            slope=slope,
            intercept=intercept,
            contrast={
                keyword: text
                for keyword, sequence in CONTRAST_ATTRIBUTES.items()
                if (text := get_text(functional_group(dataset, index, sequence), keyword, invalid))
            },
        )


def _orientation(group: Dataset, invalid: set[str]) -> Numbers | None:
    """Return the direction cosines, if they are two perpendicular unit vectors."""
    orientation = get_numbers(group, "ImageOrientationPatient", 6, invalid)
    if orientation:
        directions = np.reshape(np.asarray(orientation, dtype=np.float64), (2, 3))
        if not np.allclose(directions @ directions.T, np.eye(2), atol=0.01):
            invalid.add("ImageOrientationPatient")
            return None
    return orientation


def _spacing(dataset: Dataset, group: Dataset, invalid: set[str]) -> tuple[float, float] | None:
    """Return the pixel spacing, if the slice has the size of a head with it."""
    spacing = get_numbers(group, "PixelSpacing", 2, invalid)
    if not spacing:
        return None
    sides = (int(dataset.Rows) * spacing[0], int(dataset.Columns) * spacing[1])
    if min(spacing) <= 0 or min(sides) < MIN_FIELD_MM or max(sides) > MAX_FIELD_MM:
        invalid.add("PixelSpacing")
        return None
    return spacing[0], spacing[1]


def _scale(group: Dataset, invalid: set[str]) -> tuple[float, float]:
    """Return slope and intercept; 1 and 0, which change nothing, if there are none or the slope is 0."""
    slope, intercept = (get_number(group, keyword, invalid) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        invalid.add("RescaleSlope")
        return 1.0, 0.0
    return 1.0 if slope is None else slope, intercept or 0.0
