"""Check the header of a NRRD or MetaImage file before ITK reads it, which crashes on impossible ones."""

import math
import re
from pathlib import Path

from cascade.discovery.companions import MAX_HEADER_BYTES, NRRD, header_fields
from cascade.errors import CascadeError
from cascade.io.nifti_header import MAX_SIDE, damaged_error
from cascade.io.slices import MAX_VOXELS

NUMBER_OR_VECTOR = re.compile(r"\([^)]*\)|\S+")
"""The voxel size along one axis; in NRRD it may be a vector in parentheses."""

BLANK_LINE = re.compile(rb"^\s*\n", re.MULTILINE)

NO_NUMBER = re.compile(r"nan|none", re.IGNORECASE)

COUNTS = {
    "offset": 1,
    "position": 1,
    "origin": 1,
    "elementspacing": 1,
    "elementsize": 1,
    "centerofrotation": 1,
    "transformmatrix": 2,
    "rotation": 2,
    "orientation": 2,
}
"""MetaImage field of numbers → how many it has: the number of axes to this power."""

SPACING_KEYS = ("spacings", "space directions", "elementspacing", "elementsize")
"""Fields that give the voxel size, of NRRD and of MetaImage."""

UNIT_KEYS = ("space units", "units", "distanceunits")
"""Fields that give units of length, of NRRD and of MetaImage. ITK ignores them."""

MILLIMETERS = ("mm", "millimeter", "millimeters", "", "?", "???", "none")
"""Units of which the lengths are millimeters, and those that say nothing."""

ORIENTATION_KEYS = ("transformmatrix", "rotation", "orientation")
"""MetaImage fields that give the directions of the axes."""

ANATOMICAL_SPACES = (
    *("left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"),
    *("left-posterior-superior-time", "lpst", "right-anterior-superior-time", "rast"),
    *("left-anterior-superior-time", "last"),
)
"""NRRD spaces that say where left is. ITK takes the axes of all others for those of LPS."""

REQUIRED = {name.lower(): name for name in ("NDims", "DimSize", "ElementType", "ElementDataFile")}
"""MetaImage fields that ITK finds in this spelling only."""

Fields = dict[str, str]


def read_fields(path: Path) -> Fields:
    """Return the fields of a header, with keys in lower case. Texts may be in any encoding.

    Raises:
        CascadeError: If it declares a field twice, or is longer than MAX_HEADER_BYTES: it might name a file elsewhere
            behind them.
    """
    with path.open("rb") as file:
        content = file.read(MAX_HEADER_BYTES)
    fields: Fields = {}
    for key, value in header_fields(content):
        spelling = key.decode("latin-1")  # which decodes any bytes
        name = spelling.lower()
        if not content.startswith(NRRD) and spelling != REQUIRED.get(name, spelling):
            raise damaged_error(path, f"its header declares {spelling!r}")
        if name in fields:
            raise damaged_error(path, f"its header declares {name!r} twice")
        fields[name] = value.decode("latin-1")
        if name == "elementdatafile":
            return fields
    if len(content) == MAX_HEADER_BYTES and not (content.startswith(NRRD) and BLANK_LINE.search(content)):
        raise damaged_error(path, f"its header is longer than {MAX_HEADER_BYTES:,} bytes")
    return fields


def check_fields(path: Path, fields: Fields) -> tuple[int, ...]:
    """Check the fields that ITK takes for granted.

    Returns:
        Number of voxels along 2 or 3 axes, without a fourth axis of length 1.

    Raises:
        CascadeError: If it is not that of one volume. Also ValueError and KeyError, if a number is missing.
    """
    is_nrrd = "dimension" in fields
    axes = int(fields["dimension" if is_nrrd else "ndims"])
    shape = tuple(int(size) for size in fields["sizes" if is_nrrd else "dimsize"].split())
    if axes not in (2, 3) and not (axes == 4 and shape[3:] == (1,)):
        raise CascadeError(f"{path}: has {axes} axes", fix="save one volume per file, of one gray value per voxel")
    if len(shape) != axes or min(shape) < 1:
        raise damaged_error(path, f"its header does not give the size of {axes} axes")
    if max(shape) > MAX_SIDE or math.prod(shape) > MAX_VOXELS:
        size = " x ".join(map(str, shape))
        raise CascadeError(
            f"{path}: {size} voxels are too large for an MRI volume", fix=f"give at most {MAX_VOXELS:,} voxels"
        )
    for key in UNIT_KEYS:
        units = re.findall(r'"([^"]*)"', fields.get(key, "")) or fields.get(key, "").split()
        if other := [unit for unit in units[:3] if unit.strip().lower() not in MILLIMETERS]:
            raise CascadeError(f"{path}: gives lengths in {other[0]!r}, which ITK reads as mm", fix="save it in mm")
    for name, power in COUNTS.items():
        if not is_nrrd and name in fields and len([float(item) for item in fields[name].split()]) != axes**power:
            raise damaged_error(path, f"its header does not give {axes**power} numbers as {name}")
    return shape[:3]


def has_orientation(fields: Fields) -> bool:
    """Return True if a header says which side is left."""
    is_anatomical = "space directions" in fields and fields.get("space", "").lower() in ANATOMICAL_SPACES
    return is_anatomical or any(key in fields for key in ORIENTATION_KEYS)


def unknown_axes(fields: Fields, count: int) -> list[int]:
    """Return those of the first `count` axes along which a header gives no voxel size. ITK reads 1 mm there."""
    sizes = next((NUMBER_OR_VECTOR.findall(fields[key]) for key in SPACING_KEYS if key in fields), [])
    return [axis for axis in range(count) if axis >= len(sizes) or NO_NUMBER.search(sizes[axis])]


def check_length(path: Path, fields: Fields, length: int) -> None:
    """Check the size of the file of the voxels; ITK would complain on the terminal, or allocate what is declared.

    Args:
        path: The file.
        fields: Of the header.
        length: Number of bytes of the voxels.

    Raises:
        CascadeError: If the file is too short.
    """
    is_raw = fields.get("encoding", "raw").lower() == "raw" and fields.get("compresseddata", "").lower() != "true"
    if (length if is_raw else int(fields.get("compresseddatasize", "0"))) > path.stat().st_size:
        raise damaged_error(path, "it is shorter than its header declares")
