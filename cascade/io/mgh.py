"""Open the volumes of FreeSurfer: .mgh and .mgz."""

from pathlib import Path

import nibabel as nib

from cascade.files import read_errors
from cascade.io.nifti_header import NO_ORIENTATION, damaged_error, make_header, select_volume
from cascade.io.volume import AffineVolume, check_axis, three_axes
from cascade.io.voxels import VoxelFile, open_decompressed

VERSION = 1
"""First number of every MGH file."""

ORIENTATION_FLAG = slice(28, 30)
"""Bytes of the header that are zero if it gives neither orientation nor voxel size."""


def open_mgh(path: Path, name: str, axis: int | None = None, volume: int | None = None) -> AffineVolume:
    """Open an MGH volume, compressed or not. Reads the header only.

    Args:
        path: The file.
        name: Its name in the results.
        axis: See `open_nifti`.
        volume: See `open_nifti`.

    Raises:
        CascadeError: If the file does not contain one MRI volume, and `volume` selects none.
    """
    check_axis(path, axis)
    path = path.absolute()
    with read_errors(path, lambda _: damaged_error(path, "its header cannot be read")):
        with open_decompressed(path) as file:
            content = file.read(nib.MGHImage.header_class.template_dtype.itemsize)
        mgh = nib.MGHImage.header_class(content, check=False)
        if int(mgh["version"]) != VERSION:
            raise damaged_error(path, "it does not begin like an MGH file")
        has_orientation = content[ORIENTATION_FLAG] != bytes(2)  # nibabel replaces what is missing, and sets the flag
        dtype = mgh.get_data_dtype().newbyteorder(">")
        unknown_axes = () if has_orientation else (0, 1, 2)
        header = make_header(path, mgh.get_data_shape(), dtype.newbyteorder("="), mgh.get_affine(), unknown_axes)
        before, notes = select_volume(path, header, volume)
        voxels = VoxelFile(path, dtype, three_axes(header), mgh.get_data_offset(), before)
        notes = notes if has_orientation else (*notes, NO_ORIENTATION)
    source = AffineVolume(name, (path,), header, axis, voxels.read, notes)
    voxels.check()
    return source
