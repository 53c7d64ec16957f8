"""Read the scale that ImageJ writes into a TIFF."""

import math

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
    distance = metadata.get("spacing")
    if isinstance(distance, int | float) and 0 < distance < math.inf:
        return (row, column), distance * unit_mm, ()
    return (row, column), None, ()
