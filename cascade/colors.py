"""Colors that differ for every kind of color vision (Okabe & Ito 2008), and the one table of class colors."""

from cascade.contract import CLASS_NAMES

RGB = tuple[int, int, int]

ORANGE: RGB = (230, 159, 0)
SKY_BLUE: RGB = (86, 180, 233)
GREEN: RGB = (0, 158, 115)
YELLOW: RGB = (240, 228, 66)
BLUE: RGB = (0, 114, 178)
VERMILLION: RGB = (213, 94, 0)

CLASS_COLORS: dict[str, RGB] = dict(zip(CLASS_NAMES, (ORANGE, SKY_BLUE, GREEN), strict=True))
"""Color by class name, in overlays, reports and figures alike."""


def hex_color(color: RGB) -> str:
    """Return a color as #RRGGBB."""
    return "#{:02X}{:02X}{:02X}".format(*color)
