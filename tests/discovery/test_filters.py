"""Files are selected by format and by patterns."""

import os

import pytest

from cascade.discovery.filters import FORMATS, FileFilter, detect_format
from cascade.errors import CascadeError

DICOM = bytes(128) + b"DICM"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "image"),
        ("a.TIFF", "image"),
        ("1.mat", "image"),
        ("a.nii", "nifti"),
        ("a.b.NII.GZ", "nifti"),
        ("a.hdr", "pair"),
        ("a.IMG", "pair"),
        ("a.mgz", "mgh"),
        ("a.nrrd", "itk"),
        ("a.MHD", "itk"),
        ("a.npy", "npy"),
        ("a.dcm", "dicom"),
        ("a.IMA", "dicom"),
        ("a.gz", None),
        ("a.zip", None),
        ("a.dcm.bak", None),
        ("png", None),
        (".png", None),
    ],
)
def test_the_suffix_decides_the_format_and_the_file_need_not_exist(tmp_path, name, expected):
    assert detect_format(tmp_path / name) == expected


@pytest.mark.parametrize("name", ["IM-0001-0001", "1.2.840.113619.2", "MR.1.2.3", "image.0001"])
def test_files_without_a_known_suffix_are_dicom_by_their_content(tmp_path, name):
    (tmp_path / name).write_bytes(DICOM)
    assert detect_format(tmp_path / name) == "dicom"
    (tmp_path / name).write_bytes(DICOM[1:])
    assert detect_format(tmp_path / name) is None
    (tmp_path / name).unlink()
    assert detect_format(tmp_path / name) is None


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir"])
def test_a_dicomdir_is_not_a_dicom_slice(tmp_path, name):
    (tmp_path / name).write_bytes(DICOM)
    assert detect_format(tmp_path / name) is None


def test_a_file_with_another_suffix_is_dicom_if_its_content_is(tmp_path):
    (tmp_path / "notes.txt").write_bytes(DICOM)
    (tmp_path / "other.txt").write_bytes(b"text")
    assert detect_format(tmp_path / "notes.txt") == "dicom"
    assert detect_format(tmp_path / "other.txt") is None


def test_a_folder_or_pipe_without_suffix_is_not_opened(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert detect_format(tmp_path / "folder") is None
    assert detect_format(tmp_path / "pipe") is None  # opening it would block


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
        ("b/*.png", ["b/a.png"]),
        ("b/**/*.png", ["b/a.png", "b/c/a.png"]),
        ("b/?/a.png", ["b/c/a.png"]),
        ("*/a.png", ["b/a.png"]),
        ("a.png/", []),
        ("**", ["a.png", "b/a.png", "b/c/a.png", "b/c/x.tif"]),
        ("b*.png", []),
        ("b*", ["b/a.png", "b/c/a.png", "b/c/x.tif"]),
        ("[!a].tif", ["b/c/x.tif"]),
        ("?.tif", ["b/c/x.tif"]),
        ("", []),
        ("[", []),
    ],
)
def test_patterns_are_read_as_in_a_gitignore_file(pattern, names):
    files = ["a.png", "b/a.png", "b/c/a.png", "b/c/x.tif"]
    assert [name for name in files if FileFilter(exclude=(pattern,)).exclusion_reason(name)] == names
    assert [name for name in files if not FileFilter(include=(pattern,)).left_out_reason(name)] == names


def test_a_pattern_with_a_slash_at_its_end_matches_folders_only():
    file_filter = FileFilter(exclude=("b/",))
    assert file_filter.exclusion_reason("b") is None
    assert file_filter.exclusion_reason("b/") == "matches --exclude b/"
    assert file_filter.exclusion_reason("c/b/") == "matches --exclude b/"


def test_the_last_matching_pattern_decides_and_an_exclamation_mark_reverts():
    file_filter = FileFilter(exclude=("", "*.png", "!a.png", "b/"))
    reasons = [file_filter.exclusion_reason(name) for name in ("a.png", "b.png", "b/c.tif", "c.tif")]
    assert reasons == [None, "matches --exclude *.png", "matches --exclude b/", None]


def test_a_number_sign_does_not_start_a_comment():
    assert FileFilter(exclude=("#*",)).exclusion_reason("#a.png#") == "matches --exclude #*"
    assert not FileFilter(exclude=("#*",)).exclusion_reason("a.png")


@pytest.mark.parametrize("name", ["a\nb.png", "a\nb/a.png", "b/a\n/c.png"])
def test_patterns_match_names_with_line_breaks(name):
    assert FileFilter(exclude=("*.png",)).exclusion_reason(name) == "matches --exclude *.png"
    assert FileFilter(exclude=("**/?.png", "a?b.png")).exclusion_reason(name)


@pytest.mark.parametrize("pattern", ["!", "a\\"])
def test_an_invalid_pattern_is_an_error_that_names_the_option(pattern):
    for option in ("include", "exclude"):
        with pytest.raises(CascadeError, match=f"--{option}"):
            FileFilter(**{option: (pattern,)})


def test_exclude_has_precedence_over_include_and_the_reason_names_the_pattern():
    file_filter = FileFilter(include=("*.png",), exclude=("*_mask.png", "b"))
    assert file_filter.left_out_reason("a.png") is None
    assert file_filter.left_out_reason("a_mask.png") == "matches --exclude *_mask.png"
    assert file_filter.left_out_reason("b/a.png") == "matches --exclude b"
    assert file_filter.left_out_reason("a.tif") == "matches no --include"


def test_format_names_are_those_of_the_accepted_formats():
    assert FileFilter().format_names == "PNG, JPEG, TIFF, BMP, WebP or .mat"
    assert FileFilter(("dicom",)).format_names == "DICOM"
    assert (
        FileFilter(FORMATS).format_names
        == "PNG, JPEG, TIFF, BMP, WebP, .mat, NIfTI, Analyze, MGH, NRRD, MetaImage, .npy or DICOM"
    )
