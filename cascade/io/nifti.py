"""Open NIfTI volumes: .nii and .nii.gz."""

from pathlib import Path

from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.nifti_header import damaged_error, read_header, select_volume, storage_of
from cascade.io.volume import AffineVolume, check_axis, three_axes
from cascade.io.voxels import VoxelFile, open_decompressed

EXTENSION_FLAG_BYTES = 4
"""Length of the field between the header of a single file and its voxels."""


def open_nifti(path: Path, name: str, axis: int | None = None, volume: int | None = None) -> AffineVolume:
    """Open a NIfTI volume. Reads the header only.

    Args:
        path: The file.
        name: Its name in the results.
        axis: Slice axis in the stored array: 0, 1 or 2. None selects the only axis of one voxel; otherwise the one with
            the largest spacing; otherwise the one closest to inferior-superior.
        volume: Number of the volume in a file of several, from 0.

    Raises:
        CascadeError: If the file does not contain one MRI volume, and `volume` selects none.
    """
    check_axis(path, axis)
    path = path.absolute()
    with read_errors(path, lambda _: damaged_error(path, "its header cannot be read")):
        with open_decompressed(path) as file:
            header = read_header(path, file)
        if storage_of(header) != "single file":
            raise CascadeError(
                f"{path}: is not single-file NIfTI", fix="give the files of a pair the suffixes .hdr and .img"
            )
        first_voxel = header.template_dtype.itemsize + EXTENSION_FLAG_BYTES
        before, notes = select_volume(path, header, volume)
        offset = max(int(header["vox_offset"]), first_voxel)
        voxels = VoxelFile(path, header.get_data_dtype(), three_axes(header), offset, before)
    source = AffineVolume(name, (path,), header, axis, voxels.read, notes)
    voxels.check()
    return source
