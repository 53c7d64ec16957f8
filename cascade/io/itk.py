"""Open NRRD and MetaImage volumes (.nrrd, .nhdr, .mha, .mhd) with SimpleITK, an optional package."""

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.discovery.companions import companion_of, data_file_of
from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.itk_header import check_fields, check_length, has_orientation, read_fields, unknown_axes
from cascade.io.nifti_header import NO_ORIENTATION, damaged_error, make_header
from cascade.io.volume import AffineVolume, check_axis, three_axes

TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""ITK counts to the left and to posterior, NIfTI to the right and to anterior."""

PIXEL_TYPES = {
    **{f"{bits}-bit unsigned integer": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"{bits}-bit signed integer": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"{bits}-bit float": np.dtype(f"f{bits // 8}") for bits in (32, 64)},
}
"""Type of voxels in the words of SimpleITK → dtype."""


def open_itk(path: Path, name: str, axis: int | None = None) -> AffineVolume:
    """Open a NRRD or MetaImage volume. Reads the header only.

    Args:
        path: The file of the header, which may also hold the voxels.
        name: Its name in the results.
        axis: See `open_nifti`.

    Raises:
        CascadeError: If SimpleITK is not installed, or the file does not contain one MRI volume.
    """
    check_axis(path, axis)
    path = path.absolute()
    with read_errors(path, lambda _: damaged_error(path, "its header cannot be read")):
        fields = read_fields(path)
        shape = check_fields(path, fields)
        voxels_path = companion_of(path)
        if voxels_path is None and (data_file := data_file_of(path)):
            raise CascadeError(
                f"{path}: its voxels are in {data_file!r}, which is no file beside it",
                fix="put both files into one folder, or save the volume as one file",
            )
        files = (path,) if voxels_path is None else (path, voxels_path)
        reader = _reader(path)
        reader.ReadImageInformation()
        dtype = PIXEL_TYPES.get(pixel_type := _type_name(reader))
        size = reader.GetSize()
        if dtype is None:
            raise CascadeError(f"{path}: contains color or vectors ({pixel_type})", fix="save one gray value per voxel")
        if size not in (shape, (*shape, 1)):
            raise damaged_error(path, "its header cannot be read")
        check_length(files[-1], fields, math.prod(shape) * dtype.itemsize)
        header = make_header(path, shape, dtype, _affine(reader), unknown_axes(fields, len(shape)))
        notes = () if has_orientation(fields) else (NO_ORIENTATION,)
    return AffineVolume(name, files, header, axis, partial(_read_voxels, path, three_axes(header)), notes)


def _reader(path: Path) -> Any:
    """Return the SimpleITK reader of a file, which has read nothing yet."""
    try:
        import SimpleITK
    except ImportError:
        raise CascadeError(
            f"{path}: reading NRRD and MetaImage needs SimpleITK", fix="pip install 'cascade-mri[formats]'"
        ) from None
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # warnings would quote the header
    reader = SimpleITK.ImageFileReader()
    with path.open("rb") as file:  # by its content: ITK would decide by its suffix
        reader.SetImageIO("NrrdImageIO" if file.read(4) == b"NRRD" else "MetaImageIO")
    reader.SetFileName(os.fspath(path))
    return reader


def _type_name(reader: Any) -> str:
    import SimpleITK

    name = str(SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()))
    count = reader.GetNumberOfComponents()
    return name.removeprefix("vector of ") if count == 1 else f"{count} x {name}"


def _affine(reader: Any) -> NDArray[np.float64]:
    """Return the affine (4, 4) to RAS+ millimeters. A single slice lies across the third axis; a fourth is left out."""
    axes = len(reader.GetSize())
    directions, spacing, origin = np.eye(4), np.ones(4), np.zeros(4)
    directions[:axes, :axes] = np.reshape(reader.GetDirection(), (axes, axes))
    spacing[:axes], origin[:axes] = reader.GetSpacing(), reader.GetOrigin()
    affine = np.eye(4)
    affine[:3, :3] = TO_RAS @ directions[:3, :3] * spacing[:3]
    affine[:3, 3] = TO_RAS @ origin[:3]
    return affine


def _read_voxels(path: Path, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Read the voxels in the order of the axes of the header."""
    import SimpleITK

    with read_errors(path, lambda _: damaged_error(path, "its voxels cannot be read")):
        return np.asarray(SimpleITK.GetArrayFromImage(_reader(path).Execute()).T.reshape(shape))
