"""Turn pictures by the orientation in their header: tag 274 of EXIF and TIFF."""

from typing import Any

from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

UPRIGHT = 1
TURNED = range(2, 9)
"""Values of the tag, as section 8 of the TIFF 6.0 specification numbers them."""


def orientation_of(image: Image.Image) -> int:
    """Return the orientation of a picture, 1 to 8. One that is missing or impossible counts as `UPRIGHT`."""
    try:
        tags = image.tag_v2 if isinstance(image, TiffImageFile) else image.getexif()
        return valid_orientation(tags.get(Base.Orientation))
    except Exception:  # on damaged EXIF, Pillow raises nearly every type; viewers show such a picture as stored
        return UPRIGHT


def valid_orientation(value: object) -> int:
    """Return the value of an orientation tag, or `UPRIGHT` if it is missing or impossible."""
    return int(value) if isinstance(value, int) and value in TURNED else UPRIGHT


def turn(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored pixels (H, W) as viewers show them.

    Returns:
        A view of the pixels; (W, H) for orientation 5 to 8.
    """
    if orientation >= 5:
        stored = stored.T
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return stored[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def orientation_notes(orientation: int) -> tuple[str, ...]:
    """Return the note on a picture that was turned; none for an upright one."""
    if orientation == UPRIGHT:
        return ()
    return (f"was turned as its header says (orientation {orientation}); the mask fits the picture as viewers show it",)
