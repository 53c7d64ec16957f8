"""Read the scale that ImageJ writes into a TIFF."""

import math
from typing import Any

from tifffile import TiffFile

from cascade.io.slices import MAX_FIELD_MM, MIN_FIELD_MM

RESOLUTIONS = (283, 282)
"""Numbers of the tags of pixels per unit, along columns and rows."""

MM_PER_UNIT = {
    **dict.fromkeys(("mm", "millimeter", "millimeters"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns"), 0.001),
}
"""Unit of length in the metadata of ImageJ → millimeters."""

TIFFFILE_VERSION = "1.11a"
"""Version of ImageJ that tifffile states, which omits the distance of slices only where it is unknown."""


def read_scale(
    tiff: TiffFile, shape: tuple[int, int], *, is_turned: bool
) -> tuple[tuple[float, float] | None, float | None, tuple[str, ...]]:
    """Read the scale of a TIFF. Only ImageJ says what its unit is; others write the resolution of a screen or printer.

    Args:
        tiff: The file.
        shape: (H, W) of its images, as they are shown.
        is_turned: True if they are shown with rows and columns exchanged.

    Returns:
        The spacing of the pixels, see `Slice`; the distance of the slices in millimeters; and a note if the scale was
        ignored. None stands for what is unknown.
    """
    metadata = tiff.imagej_metadata or {}
    unit_mm = MM_PER_UNIT.get(str(metadata.get("unit", "")).strip().lower())
    tags = [tiff.pages.first.tags.valueof(tag) for tag in RESOLUTIONS]
    if unit_mm is None or not all(isinstance(tag, tuple) and len(tag) == 2 and min(tag) > 0 for tag in tags):
        return None, None, ()
    row, column = (unit_mm * units / pixels for pixels, units in tags)
    if is_turned:
        row, column = column, row
    if not all(MIN_FIELD_MM <= field <= MAX_FIELD_MM for field in (row * shape[0], column * shape[1])):
        return None, None, (f"its scale of {row:.3g} x {column:.3g} mm per pixel does not fit a head and was ignored",)
    return (row, column), slice_distance_mm(metadata, unit_mm), ()


def slice_distance_mm(metadata: dict[str, Any], unit_mm: float) -> float | None:
    """Return the distance of the slices; None if it is unknown. ImageJ writes none that is 1, and some as negative."""
    unit = metadata.get("zunit")
    unit_mm = unit_mm if unit is None else MM_PER_UNIT.get(str(unit).strip().lower(), math.nan)
    is_by_imagej = metadata.get("ImageJ") not in (None, TIFFFILE_VERSION)
    distance = metadata.get("spacing", 1.0 if is_by_imagej else math.nan)
    if isinstance(distance, int | float) and 0 < abs(distance * unit_mm) < math.inf:
        return abs(distance * unit_mm)
    return None
