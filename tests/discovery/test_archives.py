"""Zip files are unpacked member by member; a member that cannot be unpacked does not stop the others."""

import errno
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from input_files import DICOM, files_below, only_problem, pack, patch
from input_files import unpack as unpack

from cascade.discovery.archives import unpack_zip
from cascade.discovery.filters import FORMATS, FileFilter
from cascade.errors import CascadeError


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_slices_are_unpacked_under_their_own_names_and_other_files_are_left_out(tmp_path, unpack):
    path = pack(
        tmp_path / "study.zip",
        ("patient/", b""),
        ("patient/a.png", b"1"),
        ("patient/b/T1.NII.GZ", b"22"),
        ("c.dcm", b"333"),
        ("notes.txt", b"no slice"),
        (".hidden.png", b""),
        ("__MACOSX/patient/a.png", b""),
        ("patient/.DS_Store", b""),
    )
    result = unpack(path)
    assert result.names == ["patient/a.png", "patient/b/T1.NII.GZ", "c.dcm"]
    assert files_below(tmp_path / "into") == [
        "study.zip/c.dcm",
        "study.zip/patient/a.png",
        "study.zip/patient/b/T1.NII.GZ",
    ]
    assert (tmp_path / "into/study.zip/patient/b/T1.NII.GZ").read_bytes() == b"22"
    assert result.problems == {}
    assert result.left_out == {
        "notes.txt": "is not a supported format",
        ".hidden.png": "is hidden",
        "__MACOSX/patient/a.png": "is hidden",
        "patient/.DS_Store": "is hidden",
    }
    assert result.size == 6


def test_output_of_an_earlier_run_in_a_zip_is_left_out(tmp_path, unpack):
    """Its masks and overlays were predicted as slices."""
    path = pack(
        tmp_path / "study.zip",
        ("s/a.png", b"1"),
        ("s/results/results.json", b'{"schema": "cascade results 3"}'),
        ("s/results/masks/b/a.png", b"1"),
        ("s/results/own.png", b"1"),
        ("t/results.json", b"{}"),
        ("t/masks/a.png", b"1"),
    )
    result = unpack(path)
    assert result.names == ["s/a.png", "s/results/own.png", "t/masks/a.png"]
    assert result.left_out["s/results/masks/b/a.png"] == "was written by a run"


def test_a_member_without_suffix_or_with_one_of_digits_is_a_slice_if_its_content_is_dicom(tmp_path, unpack):
    path = pack(
        tmp_path / "study.zip",
        ("IM-0001-0001", DICOM),
        ("1.2.840.113", DICOM),
        ("README", b"text"),
        ("DICOMDIR", DICOM),
        ("short", b""),
    )
    result = unpack(path)
    assert result.names == ["IM-0001-0001", "1.2.840.113"]
    assert (tmp_path / "into/study.zip/IM-0001-0001").read_bytes() == DICOM
    assert set(result.left_out) == {"README", "DICOMDIR", "short"}


def test_only_members_of_the_accepted_formats_are_unpacked(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("a.png", b"1"), ("a.nii", b"1"), ("a.dcm", b"1"), ("a", DICOM))
    assert unpack(path, FileFilter(("image",))).names == ["a.png"]


@pytest.mark.parametrize(
    "name",
    [
        "../out.png",
        "a/../../out.png",
        "/tmp/out.png",
        "//server/share/out.png",
        "C:/out.png",
        "c:out.png",
        "..\\out.png",
        "a\\..\\..\\out.png",
        "\\\\server\\share\\out.png",
        "a/../b.png",
    ],
)
def test_a_member_whose_name_leads_out_of_the_archive_is_refused_and_the_others_are_unpacked(tmp_path, unpack, name):
    before = set(files_below(tmp_path))
    result = unpack(pack(tmp_path / "study.zip", (name, b"evil"), ("good.png", b"1")))
    assert result.names == ["good.png"]
    assert "out of the archive" in only_problem(result).problem
    assert only_problem(result).problem.startswith(f"{tmp_path / 'study.zip'}/")
    assert set(files_below(tmp_path)) - before == {"study.zip", "into/study.zip/good.png"}


def test_folders_packed_with_backslashes_are_folders(tmp_path, unpack):
    result = unpack(pack(tmp_path / "study.zip", ("patient\\", b""), ("patient\\a.png", b"1")))
    assert result.names == ["patient/a.png"]
    assert files_below(tmp_path / "into/study.zip/patient") == ["a.png"]


@pytest.mark.parametrize("flag", [True, False])
def test_names_in_utf_8_are_decoded_with_and_without_the_utf_8_flag(tmp_path, unpack, flag):
    """The archiver of macOS does not set the flag; zipfile then decodes ä as two letters of code page 437."""
    path = pack(tmp_path / "study.zip", ("Ä-脑/ä.png", b"1"))
    if not flag:
        content = path.read_bytes().replace(b"\x14\x00\x00\x08", b"\x14\x00\x00\x00")
        path.write_bytes(content)
        assert zipfile.ZipFile(path).namelist() != ["Ä-脑/ä.png"]
    assert unpack(path).names == ["Ä-脑/ä.png"]


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path, unpack, mode):
    result = unpack(pack(tmp_path / "study.zip", (special("a.png", mode), b"/etc/passwd"), ("b.png", b"1")))
    assert result.names == ["b.png"]
    assert "link or device" in only_problem(result).problem
    assert files_below(tmp_path / "into") == ["study.zip/b.png"]


def test_a_link_to_a_folder_does_not_lead_later_members_out_of_the_archive(tmp_path, unpack):
    link = special("way.png", stat.S_IFLNK | 0o777)
    result = unpack(pack(tmp_path / "study.zip", (link, str(tmp_path)), ("way.png/out.png", b"evil")))
    assert result.names == ["way.png/out.png"]
    assert files_below(tmp_path) == ["into/study.zip/way.png/out.png", "study.zip"]


def test_a_member_longer_than_the_directory_says_is_damaged(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("a.png", bytes(1000)), ("b.png", b"1"))
    patch(path, "a.png", 24, struct.pack("<I", 10))
    result = unpack(path)
    assert result.names == ["b.png"]
    assert "is damaged (Bad CRC-32" in only_problem(result).problem


def test_encrypted_members_are_named(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("secret.png", b"1"), ("b.png", b"1"))
    patch(path, "secret.png", 8, b"\x01\x00")
    result = unpack(path)
    assert result.names == ["b.png"]
    assert only_problem(result).problem == f"{path}/secret.png: is encrypted"
    assert "password" in only_problem(result).fix


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 99])
def test_other_compression_methods_are_refused_by_number(tmp_path, unpack, method):
    if method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = pack(tmp_path / "study.zip", ("a.png", b"1"), method=method)
    else:
        path = pack(tmp_path / "study.zip", ("a.png", b"1"))
        patch(path, "a.png", 10, struct.pack("<H", method))
    assert f"method {method}," in only_problem(unpack(path)).problem


@pytest.mark.parametrize("twin", ["a.png", "./a.png", "b//../a.png"])
def test_two_members_with_one_name_are_both_refused(tmp_path, unpack, twin):
    result = unpack(pack(tmp_path / "study.zip", ("a.png", b"1"), (twin, b"2"), ("c.png", b"3")))
    assert "c.png" in result.names
    assert files_below(tmp_path / "into/study.zip") == sorted(result.names)
    if twin != "b//../a.png":
        assert result.names == ["c.png"]
        assert "2 times" in only_problem(result).problem


def test_a_file_and_a_folder_with_one_name_are_a_problem(tmp_path, unpack):
    result = unpack(pack(tmp_path / "study.zip", ("a.png", b"1"), ("a.png/b.png", b"2"), ("c.png", b"3")))
    assert result.names == ["a.png", "c.png"]
    assert "a.png/b.png: cannot be unpacked" in only_problem(result).problem


def test_a_name_too_long_for_the_file_system_is_a_problem(tmp_path, unpack):
    result = unpack(pack(tmp_path / "study.zip", ("x" * 300 + ".png", b"1"), ("b.png", b"1")))
    assert result.names == ["b.png"]
    assert only_problem(result).fix == "shorten the names in the archive"


def test_a_full_disk_is_a_problem_and_leaves_no_partial_file(tmp_path, unpack, monkeypatch):
    path = pack(tmp_path / "study.zip", ("a.png", b"1"))
    opened = Path.open

    class Full(io.FileIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, mode="r": Full(opened(self, mode).detach().name, "w"))
    result = unpack(path)
    monkeypatch.undo()
    assert "No space left" in only_problem(result).problem
    assert "TMPDIR" in only_problem(result).fix
    assert files_below(tmp_path / "into") == []


def test_a_damaged_member_does_not_stop_the_rest(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("a.png", b"to be flipped"), ("b.png", b"1"), method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"to be flipped", b"to be Flipped"))
    result = unpack(path)
    assert result.names == ["b.png"]
    assert only_problem(result).problem.startswith(f"{path}/a.png: is damaged (Bad CRC-32")
    assert files_below(tmp_path / "into") == ["study.zip/b.png"]


def test_a_member_that_ends_too_early_is_damaged(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("b.png", b"1"), ("a.png", b"1"), method=zipfile.ZIP_STORED)
    patch(path, "a.png", 20, struct.pack("<LL", 10_000, 10_000))
    result = unpack(path)
    assert result.names == ["b.png"]
    assert only_problem(result).problem == f"{path}/a.png: is damaged (it ends too early)"


def test_an_archive_in_an_archive_is_a_problem_and_is_not_opened(tmp_path, unpack):
    inner = pack(tmp_path / "inner.zip", ("a.png", b"1")).read_bytes()
    result = unpack(pack(tmp_path / "study.zip", ("deep/inner.ZIP", inner), ("b.png", b"1")))
    assert result.names == ["b.png"]
    assert only_problem(result).problem == f"{tmp_path / 'study.zip'}/deep/inner.ZIP: is an archive in an archive"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06"])
def test_a_file_that_is_not_a_zip_file_is_an_error_that_names_it(tmp_path, unpack, content):
    (tmp_path / "study.zip").write_bytes(content)
    with pytest.raises(CascadeError, match=r"study\.zip: cannot be read as a zip file"):
        unpack(tmp_path / "study.zip")


def test_an_archive_cut_short_is_an_error(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("a.png", bytes(1000)))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CascadeError, match="cannot be read as a zip file"):
        unpack(path)


def test_a_missing_archive_is_an_error(tmp_path, unpack):
    with pytest.raises(CascadeError, match=r"gone\.zip: cannot be read \(No such file"):
        unpack(tmp_path / "gone.zip")


def test_files_in_an_excluded_folder_stay_excluded(tmp_path, unpack):
    """As in folders on the disk, which are not opened."""
    path = pack(tmp_path / "study.zip", ("a/1.png", b"1"), ("a/b/2.png", b"2"), ("b/c/3.png", b"3"), ("4.png", b"4"))
    result = unpack(path, FileFilter(FORMATS, exclude=("a", "b/c/", "!a/1.png", "!2.png", "!3.png")))
    assert result.names == ["4.png"]
    assert result.left_out["a/b/2.png"] == "matches --exclude a"


def test_patterns_are_compared_with_the_path_in_the_archive_and_its_prefix(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("p1/t1.png", b"1"), ("p1/t1_mask.png", b"1"), ("p2/t1.png", b"1"))
    assert unpack(path, FileFilter(FORMATS, exclude=("*_mask.png", "p2"))).names == ["p1/t1.png"]
    file_filter = FileFilter(FORMATS, include=("sub/study.zip/p1/*",))
    result = unpack_zip(path, tmp_path / "again", file_filter, prefix="sub/study.zip/")
    assert result.names == ["p1/t1.png", "p1/t1_mask.png"]
    assert result.left_out == {"p2/t1.png": "matches no --include"}
