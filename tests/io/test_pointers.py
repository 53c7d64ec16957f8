"""Files that git-lfs or git-annex has not fetched yet say so, whatever their format."""

from __future__ import annotations

import pytest

from cascade.datasets.figshare import read_mat
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.io.open import open_source

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
ANNEX = b"/annex/objects/SHA256E-s12345--4d7a2146.nii.gz\n"
ANNEX_LINK_AS_FILE = b"../.git/annex/objects/Zz/k1/MD5E-s9--4d7a/MD5E-s9--4d7a.png"
ON_WINDOWS = ANNEX_LINK_AS_FILE.replace(b"/", b"\\")
NAMES = ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.mat", "a.nii", "a.nii.gz", "a.dcm"]


@pytest.mark.parametrize(
    ("content", "command"),
    [(LFS, "git lfs pull"), (ANNEX, "datalad get"), (ANNEX_LINK_AS_FILE, "datalad get"), (ON_WINDOWS, "datalad get")],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_pointer_is_not_a_damaged_file_and_the_fix_fetches_its_content(tmp_path, name, content, command):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CascadeError, match=rf"{name}: is a .* pointer") as raised:
        open_source(tmp_path / name).read(0)
    assert command in raised.value.fix


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_link_of_git_annex_is_one_too(tmp_path, name):
    (tmp_path / name).symlink_to("../.git/annex/objects/Zz/k1/MD5E-s9--4d7a/MD5E-s9--4d7a.nii.gz")
    (tmp_path / "other.png").symlink_to("nowhere.png")
    problems = find_slices_problems(tmp_path)
    assert "datalad get" in problems[str(tmp_path / name)].fix
    assert "broken link" in problems[str(tmp_path / "other.png")].problem


def find_slices_problems(folder):
    (folder / "good.png").touch()
    return find_slices([folder], formats=("image", "nifti", "dicom")).problems


def test_a_labeled_mat_file_that_is_a_pointer_says_so(tmp_path):
    (tmp_path / "1.mat").write_bytes(LFS)
    with pytest.raises(CascadeError, match=r"1\.mat: is a Git LFS pointer"):
        read_mat(tmp_path / "1.mat")


def test_a_text_that_is_no_pointer_is_still_a_file_of_another_format(tmp_path):
    for content in (b"", b"version 1", b"see the folder annex/objects", bytes(100_000)):
        (tmp_path / "a.nii").write_bytes(content)
        with pytest.raises(CascadeError) as raised:
            open_source(tmp_path / "a.nii")
        assert "fetch" not in raised.value.fix
