"""A NIfTI volume with a marker, written with any header, and how it is refused."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from cascade.errors import CascadeError
from cascade.io.nifti import open_nifti

SHAPE = (20, 24, 18)
HEAD = np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.int16)  # indexed left-right, posterior-anterior, ...
MARKER = (3, 17, 5)  # of HEAD: left, anterior, inferior
HEAD[MARKER] = 4000
SPACING = (0.8, 0.9, 1.5)
AFFINE = np.diag([*SPACING, 1.0])
AFFINE[:3, 3] = -70, -100, -30


def write(path, array=HEAD, affine=AFFINE, **fields):
    """Write a NIfTI file; `fields` replace fields of its header."""
    image = nib.Nifti1Image(array, affine)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read_all(path):
    source = open_nifti(path, path.name)
    for index in range(source.count):
        source.read(index)


def refusal(path):
    """Return the problem of opening the file or reading its slices."""
    with pytest.raises(CascadeError) as raised:
        read_all(path)
    assert str(path) in raised.value.problem
    assert raised.value.fix
    return raised.value.problem
