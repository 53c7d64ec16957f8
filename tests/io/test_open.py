"""What is given → pictures, volumes and series, each with a name of its own."""

import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.io.checksums import content_sha256
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


def test_pictures_and_volumes_in_one_folder_come_in_the_order_of_their_names(tmp_path):
    save_volume(tmp_path / "b/head.nii.gz")
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    (tmp_path / "broken.nii").write_bytes(b"no header")
    sources, problems = open_sources(find_slices([tmp_path], formats=("image", "nifti", "dicom")))
    assert [(source.name, source.count) for source in sources] == [("a.png", 1), ("b/head.nii.gz", 3)]
    assert list(problems) == ["broken.nii"]


def test_the_digest_of_one_file_is_what_sha256sum_says_and_of_several_depends_on_each(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    a, b = tmp_path / "a", tmp_path / "b"
    assert content_sha256([a]) == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert len({content_sha256(files) for files in ([a], [b], [a, b], [b, a])}) == 4


def test_a_file_that_went_away_is_named(tmp_path):
    with pytest.raises(CascadeError, match=r"gone\.png: could not be read"):
        content_sha256([tmp_path / "gone.png"])


def test_a_file_that_may_not_be_read_is_no_file_that_changed(tmp_path, monkeypatch):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cascade.io.checksums.sha256_of", refuse)
    with pytest.raises(CascadeError, match=r"locked\.png: may not be read\n.*permissions"):
        content_sha256([tmp_path / "locked.png"])


def test_one_source_is_asked_for_by_its_path_and_several_are_refused(tmp_path):
    save_volume(tmp_path / "head.nii")
    assert open_source(tmp_path / "head.nii").count == 3
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    with pytest.raises(CascadeError, match="holds 2 pictures, volumes or series"):
        open_source(tmp_path)
    with pytest.raises(CascadeError, match="no such file"):
        open_source(Path(tmp_path, "missing.png"))
