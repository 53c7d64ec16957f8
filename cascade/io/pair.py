"""Open volumes stored as a pair of files, .hdr and .img: NIfTI, and Analyze, the predecessor of NIfTI."""

from pathlib import Path

import nibabel as nib
import numpy as np

from cascade.discovery.companions import companion_of
from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.nifti_header import Header, damaged_error, read_header, select_volume, storage_of
from cascade.io.volume import AffineVolume, check_axis, three_axes
from cascade.io.voxels import VoxelFile, open_decompressed


def open_pair(path: Path, name: str, axis: int | None = None, volume: int | None = None) -> AffineVolume:
    """Open a pair of files: the header .hdr, and the voxels .img. Reads the header only.

    Args:
        path: One of the two files.
        name: Its name in the results.
        axis: See `open_nifti`.
        volume: See `open_nifti`.

    Raises:
        CascadeError: If the pair is not complete or does not contain one MRI volume, and `volume` selects none.
    """
    check_axis(path, axis)
    path = path.absolute()
    other = companion_of(path)
    if other is None:
        missing = path.with_suffix(".img" if path.suffix.lower() == ".hdr" else ".hdr")
        raise CascadeError(f"{path}: lacks {missing.name} beside it", fix="put both files of the pair into one folder")
    header_path, voxels_path = (path, other) if path.suffix.lower() == ".hdr" else (other, path)
    with read_errors(header_path, lambda _: damaged_error(header_path, "its header cannot be read")):
        with open_decompressed(header_path) as file:
            header = read_header(header_path, file)
        storage = storage_of(header)
        if storage == "single file":
            raise CascadeError(f"{header_path}: is NIfTI in a single file", fix="give it the suffix .nii")
        dtype, offset = header.get_data_dtype(), header["vox_offset"]
        if storage == "analyze":
            header = _as_nifti(header)
        before, notes = select_volume(header_path, header, volume)
        if not 0 <= offset < np.inf:
            offset = 0
        voxels = VoxelFile(voxels_path, dtype, three_axes(header), int(offset), before)
    source = AffineVolume(name, (header_path, voxels_path), header, axis, voxels.read, notes)
    with read_errors(voxels_path, lambda _: damaged_error(voxels_path, "its voxels cannot be read")):
        voxels.check()
    return source


def _as_nifti(analyze: Header) -> Header:
    """Return a NIfTI header with the shape, type and voxel size of an Analyze header, and without an orientation.

    The formats share the places of these fields. Where NIfTI has scale and orientation, Analyze has others.
    """
    header: Header = nib.Nifti1Header(endianness=analyze.endianness)
    fields: tuple[str, ...] = ("dim", "datatype", "bitpix")
    for field in fields:
        header[field] = analyze[field]
    header["pixdim"][1:] = analyze["pixdim"][1:]
    return header
