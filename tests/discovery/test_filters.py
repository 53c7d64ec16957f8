import os

import pytest

from cascade.discovery.filters import KINDS, Wanted, kind

DICOM = bytes(128) + b"DICM"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "picture"),
        ("a.TIFF", "picture"),
        ("1.mat", "picture"),
        ("a.nii", "nifti"),
        ("a.b.NII.GZ", "nifti"),
        ("a.dcm", "dicom"),
        ("a.IMA", "dicom"),
        ("a.gz", None),
        ("a.zip", None),
        ("a.dcm.bak", None),
        ("png", None),
        (".png", None),
    ],
)
def test_the_suffix_tells_the_kind_and_the_file_need_not_exist(tmp_path, name, expected):
    assert kind(tmp_path / name) == expected


@pytest.mark.parametrize("name", ["IM-0001-0001", "1.2.840.113619.2", "MR.1.2.3", "image.0001"])
def test_names_that_tell_nothing_are_dicom_by_their_content(tmp_path, name):
    (tmp_path / name).write_bytes(DICOM)
    assert kind(tmp_path / name) == "dicom"
    (tmp_path / name).write_bytes(DICOM[1:])
    assert kind(tmp_path / name) is None
    (tmp_path / name).unlink()
    assert kind(tmp_path / name) is None


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "notes.txt"])
def test_the_index_of_a_disc_and_files_of_another_suffix_are_no_dicom_slices(tmp_path, name):
    (tmp_path / name).write_bytes(DICOM)
    assert kind(tmp_path / name) is None


def test_a_folder_or_pipe_without_suffix_is_not_opened(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert kind(tmp_path / "folder") is None
    assert kind(tmp_path / "pipe") is None  # to open it would wait for a writer


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["a.png", "b/a.png", "b/c/a.png"]),
        ("a.png", ["a.png", "b/a.png", "b/c/a.png"]),
        ("A.png", []),
        ("b", ["b/a.png", "b/c/a.png", "b/c/x.tif"]),
        ("b/", ["b/a.png", "b/c/a.png", "b/c/x.tif"]),
        ("c", ["b/c/a.png", "b/c/x.tif"]),
        ("b/c", ["b/c/a.png", "b/c/x.tif"]),
        ("c/a.png", []),
        ("**/c/a.png", ["b/c/a.png"]),
        ("**/a.png", ["a.png", "b/a.png", "b/c/a.png"]),
        ("b/**/a.png", ["b/a.png", "b/c/a.png"]),
        ("/a.png", ["a.png"]),
        ("b/*.png", ["b/a.png", "b/c/a.png"]),
        ("b*.png", []),
        ("b*", ["b/a.png", "b/c/a.png", "b/c/x.tif"]),
        ("[!a].tif", ["b/c/x.tif"]),
        ("?.tif", ["b/c/x.tif"]),
        ("", []),
        ("[", []),
    ],
)
def test_patterns_are_read_as_in_a_gitignore_but_that_a_star_of_one_with_a_slash_crosses_folders(pattern, names):
    below = ["a.png", "b/a.png", "b/c/a.png", "b/c/x.tif"]
    wanted = Wanted(exclude=(pattern,))
    assert [name for name in below if wanted.excluded(name)] == names
    assert [name for name in below if not Wanted(include=(pattern,)).unasked(name)] == names


def test_excluding_is_stronger_than_including_and_the_reason_names_the_pattern():
    wanted = Wanted(include=("*.png",), exclude=("*_mask.png", "b"))
    assert wanted.unasked("a.png") is None
    assert wanted.unasked("a_mask.png") == "matches --exclude *_mask.png"
    assert wanted.unasked("b/a.png") == "matches --exclude b"
    assert wanted.unasked("a.tif") == "matches no --include"


def test_formats_are_those_of_the_wanted_kinds():
    assert Wanted().formats == "PNG, JPEG, TIFF, BMP, WebP or .mat"
    assert Wanted(("dicom",)).formats == "DICOM"
    assert Wanted(KINDS).formats == "PNG, JPEG, TIFF, BMP, WebP, .mat, NIfTI or DICOM"
