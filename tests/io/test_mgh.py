"""MGH volumes of FreeSurfer are read as NIfTI of the same volume, and their masks are NIfTI on the stored grid."""

from __future__ import annotations

import gzip
import io
import pickle
import struct

import nibabel
import numpy as np
import pytest

from cascade.errors import CascadeError
from cascade.io.mgh import open_mgh
from cascade.io.nifti import open_nifti

HEAD = np.random.default_rng(0).integers(1, 1000, (20, 24, 18)).astype(np.int16)
AFFINE = np.array([[0, 0, 1.5, -30], [-0.8, 0, 0, 70], [0, 0.9, 0, -100], [0, 0, 0, 1]], np.float32)


def volumes(folder, array=HEAD, affine=AFFINE):
    """Open the same volume as MGZ and as NIfTI."""
    nibabel.save(nibabel.MGHImage(array, affine), folder / "a.mgz")
    nibabel.save(nibabel.Nifti1Image(array, affine), folder / "a.nii")
    return open_mgh(folder / "a.mgz", "a.mgz"), open_nifti(folder / "a.nii", "a.nii")


def changed(path, place, form, *values):
    content = bytearray(nibabel.MGHImage(HEAD, AFFINE).to_bytes())
    struct.pack_into(form, content, place, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_slices_and_mask_are_those_of_nifti(tmp_path, kind):
    mgh, nifti = volumes(tmp_path, HEAD.astype(kind))
    assert (mgh.count, mgh.notes) == (nifti.count, ())
    assert mgh.slab_mm == pytest.approx(nifti.slab_mm)
    masks = np.zeros((mgh.count, *mgh.read(0).pixels.shape), bool)
    for index in range(mgh.count):
        assert np.array_equal(mgh.read(index).pixels, nifti.read(index).pixels)
        assert mgh.read(index).spacing_mm == pytest.approx(nifti.read(index).spacing_mm)
        masks[index] = mgh.read(index).pixels > 900
    mask = nibabel.Nifti1Image.from_bytes(gzip.decompress(mgh.mask_bytes(masks)))
    assert np.allclose(mask.affine, AFFINE, atol=1e-4)
    assert np.array_equal(mask.get_fdata() > 0, HEAD.astype(kind) > 900)


def test_a_header_without_orientation_gets_a_note(tmp_path):
    source = open_mgh(changed(tmp_path / "a.mgh", 28, ">h", 0), "a.mgh")
    assert "left and right" in source.notes[-1]


def test_without_its_flag_a_header_gives_no_voxel_size(tmp_path):
    """Once, such a volume had voxels of 1 mm, and its tumor a volume in milliliters."""
    source = open_mgh(changed(tmp_path / "a.mgh", 28, ">h", 0), "a.mgh")
    assert (source.read(4).spacing_mm, source.slab_mm) == (None, None)
    assert "axis 0 and 1 and 2" in source.notes[0]


def test_one_volume_of_several_is_read_by_its_number(tmp_path):
    series = np.stack([HEAD, HEAD + 1, HEAD + 2], axis=-1)
    nibabel.save(nibabel.MGHImage(series, AFFINE), tmp_path / "a.mgz")
    with pytest.raises(CascadeError, match="3 volumes") as raised:
        open_mgh(tmp_path / "a.mgz", "a.mgz")
    assert "--volume" in raised.value.fix
    first, second = (open_mgh(tmp_path / "a.mgz", "a.mgz", volume=number) for number in (0, 1))
    assert np.array_equal(second.read(4).pixels, first.read(4).pixels + 1)
    assert "volume 1 of 3" in second.notes[0]


@pytest.mark.parametrize(
    ("place", "form", "values"),
    [
        (0, ">i", [2]),
        (4, ">3i", [2**30] * 3),
        (4, ">3i", [30_000] * 3),
        (4, ">i", [0]),
        (4, ">i", [-20]),
        (20, ">i", [77]),
        (30, ">3f", [1e-9] * 3),
    ],
    ids=["version", "huge", "large", "empty", "negative", "type", "micrometers"],
)
def test_an_impossible_header_is_refused_before_memory_is_allocated(tmp_path, place, form, values):
    with pytest.raises(CascadeError, match=r"a\.mgh"):
        open_mgh(changed(tmp_path / "a.mgh", place, form, *values), "a.mgh")


def test_a_truncated_file_is_refused(tmp_path):
    content = nibabel.MGHImage(HEAD, AFFINE).to_bytes()
    (tmp_path / "a.mgh").write_bytes(content[:-5000])
    with pytest.raises(CascadeError, match="shorter"):
        open_mgh(tmp_path / "a.mgh", "a.mgh")
    compressed = io.BytesIO(gzip.compress(content)).getvalue()
    (tmp_path / "a.mgz").write_bytes(compressed[:-2000])
    with pytest.raises(CascadeError, match=r"a\.mgz"):
        open_mgh(tmp_path / "a.mgz", "a.mgz").read(0)


def test_a_volume_travels_to_another_process_without_its_voxels(tmp_path):
    source, _ = volumes(tmp_path)
    pixels = source.read(3).pixels
    content = pickle.dumps(source)
    assert len(content) < HEAD.nbytes / 2
    copy = pickle.loads(content)
    assert (copy.name, copy.notes, copy.files) == (source.name, source.notes, source.files)
    assert np.array_equal(copy.read(3).pixels, pixels)
