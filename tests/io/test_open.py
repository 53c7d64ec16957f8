"""Inputs are opened as images, volumes and series, each with its own name."""

import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.io.checksums import sha256_of_files
from cascade.io.content import content_format
from cascade.io.image import mask_png
from cascade.io.open import open_source, open_sources

RAMP = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)


def save_volume(path, count=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(0).normal(100, 20, (32, 32, count)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), path)


def test_a_mask_is_one_channel_of_0_and_255():
    mask = np.zeros((3, 5), dtype=bool)
    mask[1, 2] = True
    image = Image.open(io.BytesIO(mask_png(mask)))
    assert (image.mode, image.size) == ("L", (5, 3))
    assert np.array_equal(np.asarray(image), 255 * mask)


def test_images_and_volumes_in_one_folder_are_sorted_by_name(tmp_path):
    save_volume(tmp_path / "b/head.nii.gz")
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    (tmp_path / "broken.nii").write_bytes(b"no header")
    sources, problems, _ = open_sources(find_slices([tmp_path], formats=("image", "nifti", "dicom")))
    assert [(source.name, source.count) for source in sources] == [("a.png", 1), ("b/head.nii.gz", 3)]
    assert list(problems) == ["broken.nii"]


def test_the_digest_of_one_file_is_that_of_sha256sum_and_that_of_several_depends_on_each(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    a, b = tmp_path / "a", tmp_path / "b"
    assert sha256_of_files([a]) == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert len({sha256_of_files(files) for files in ([a], [b], [a, b], [b, a])}) == 4


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(CascadeError, match=r"gone\.png: could not be read"):
        sha256_of_files([tmp_path / "gone.png"])


def test_an_unreadable_file_is_not_reported_as_a_changed_one(tmp_path, monkeypatch):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cascade.io.checksums.sha256_of", refuse)
    with pytest.raises(CascadeError, match=r"locked\.png: permission denied\n.*permissions"):
        sha256_of_files([tmp_path / "locked.png"])


@pytest.mark.parametrize("content", ["png", "jpg", "tif", "bmp", "webp", "nii", "nii.gz"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".nii", ".nii.gz", ".dcm", ".jfif", ".jpe"])
def test_pictures_and_nifti_are_recognized_by_their_content_whatever_the_suffix(tmp_path, content, suffix):
    written = tmp_path / f"written.{content}"
    if content.startswith("nii"):
        save_volume(written)
    else:
        Image.fromarray(RAMP).save(written)
    path = written.rename(tmp_path / f"a{suffix}")
    source = open_source(path)
    assert source.count == (3 if content.startswith("nii") else 1)
    assert source.read(0).pixels.shape == (32, 32)
    assert source.mask_suffix == (".nii.gz" if content.startswith("nii") else ".png")


def test_a_dicom_file_that_begins_like_a_tiff_is_not_a_picture(tmp_path):
    """DICOM leaves its first 128 bytes to other formats."""
    (tmp_path / "a.dcm").write_bytes(b"II*\0" + bytes(124) + b"DICM")
    assert content_format(tmp_path / "a.dcm") == "dicom"


@pytest.mark.parametrize("suffix", [".nii", ".hdr", ".mgh", ".mha"])
def test_a_bug_is_not_reported_as_a_damaged_file(tmp_path, monkeypatch, suffix):
    """A TypeError in our own code told the owners of eight valid heads to export them again."""

    def fail(header):
        raise TypeError("a bug")

    path = tmp_path / f"a{suffix}"
    array = np.random.default_rng(0).normal(100, 20, (32, 32, 32)).astype(np.float32)
    if suffix == ".mha":
        sitk = pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[dev]'")
        sitk.WriteImage(sitk.GetImageFromArray(array), path)
    else:
        kinds = {".nii": nibabel.Nifti1Image, ".hdr": nibabel.Nifti1Pair, ".mgh": nibabel.MGHImage}
        nibabel.save(kinds[suffix](array, np.eye(4, dtype=np.float32)), path)
    assert open_source(path).count > 0
    monkeypatch.setattr("cascade.io.volume.repair_geometry", fail)
    with pytest.raises(TypeError, match="a bug"):
        open_source(path)


def test_a_path_with_several_sources_is_refused_where_one_is_expected(tmp_path):
    save_volume(tmp_path / "head.nii")
    assert open_source(tmp_path / "head.nii").count == 3
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    with pytest.raises(CascadeError, match="contains 2 images, volumes or series"):
        open_source(tmp_path)
    with pytest.raises(CascadeError, match="no such file"):
        open_source(Path(tmp_path, "missing.png"))
