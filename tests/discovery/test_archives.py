import errno
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from input_files import DICOM, files_below, only_problem, pack, patch
from input_files import unpack as unpack

from cascade.discovery.archives import unpacked
from cascade.discovery.filters import KINDS, Wanted
from cascade.errors import CascadeError


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_slices_come_out_under_their_own_names_and_the_rest_does_not(tmp_path, unpack):
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
    found = unpack(path)
    assert found.names == ["patient/a.png", "patient/b/T1.NII.GZ", "c.dcm"]
    assert files_below(tmp_path / "into") == [
        "study.zip/c.dcm",
        "study.zip/patient/a.png",
        "study.zip/patient/b/T1.NII.GZ",
    ]
    assert (tmp_path / "into/study.zip/patient/b/T1.NII.GZ").read_bytes() == b"22"
    assert found.problems == {}
    assert found.left_out == {
        "notes.txt": "is no slice",
        ".hidden.png": "is hidden",
        "__MACOSX/patient/a.png": "is hidden",
        "patient/.DS_Store": "is hidden",
    }
    assert found.size == 6


def test_a_name_without_suffix_or_of_digits_is_a_slice_where_the_content_is_dicom(tmp_path, unpack):
    path = pack(
        tmp_path / "study.zip",
        ("IM-0001-0001", DICOM),
        ("1.2.840.113", DICOM),
        ("README", b"text"),
        ("DICOMDIR", DICOM),
        ("short", b""),
    )
    found = unpack(path)
    assert found.names == ["IM-0001-0001", "1.2.840.113"]
    assert (tmp_path / "into/study.zip/IM-0001-0001").read_bytes() == DICOM
    assert set(found.left_out) == {"README", "DICOMDIR", "short"}


def test_only_the_kinds_that_are_wanted_come_out(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("a.png", b"1"), ("a.nii", b"1"), ("a.dcm", b"1"), ("a", DICOM))
    assert unpack(path, Wanted(("picture",))).names == ["a.png"]


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
def test_a_member_whose_name_leads_out_is_refused_and_the_others_come(tmp_path, unpack, name):
    before = set(files_below(tmp_path))
    found = unpack(pack(tmp_path / "study.zip", (name, b"evil"), ("good.png", b"1")))
    assert found.names == ["good.png"]
    assert "leads out of the archive" in only_problem(found).problem
    assert only_problem(found).problem.startswith(f"{tmp_path / 'study.zip'}/")
    assert set(files_below(tmp_path)) - before == {"study.zip", "into/study.zip/good.png"}


def test_folders_packed_with_backslashes_are_folders(tmp_path, unpack):
    found = unpack(pack(tmp_path / "study.zip", ("patient\\", b""), ("patient\\a.png", b"1")))
    assert found.names == ["patient/a.png"]
    assert files_below(tmp_path / "into/study.zip/patient") == ["a.png"]


@pytest.mark.parametrize("flag", [True, False])
def test_names_in_utf_8_are_read_with_and_without_the_flag_that_says_so(tmp_path, unpack, flag):
    """The archiver of macOS leaves the flag out; zipfile then reads ä as two letters of code page 437."""
    path = pack(tmp_path / "study.zip", ("Ä-脑/ä.png", b"1"))
    if not flag:
        content = path.read_bytes().replace(b"\x14\x00\x00\x08", b"\x14\x00\x00\x00")
        path.write_bytes(content)
        assert zipfile.ZipFile(path).namelist() != ["Ä-脑/ä.png"]
    assert unpack(path).names == ["Ä-脑/ä.png"]


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path, unpack, mode):
    found = unpack(pack(tmp_path / "study.zip", (special("a.png", mode), b"/etc/passwd"), ("b.png", b"1")))
    assert found.names == ["b.png"]
    assert "is a link or device" in only_problem(found).problem
    assert files_below(tmp_path / "into") == ["study.zip/b.png"]


def test_a_link_to_a_folder_is_no_way_out_for_what_comes_after_it(tmp_path, unpack):
    link = special("way.png", stat.S_IFLNK | 0o777)
    found = unpack(pack(tmp_path / "study.zip", (link, str(tmp_path)), ("way.png/out.png", b"evil")))
    assert found.names == ["way.png/out.png"]
    assert files_below(tmp_path) == ["into/study.zip/way.png/out.png", "study.zip"]


def test_a_member_longer_than_the_directory_says_is_damaged(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("a.png", bytes(1000)), ("b.png", b"1"))
    patch(path, "a.png", 24, struct.pack("<I", 10))
    found = unpack(path)
    assert found.names == ["b.png"]
    assert "is damaged (Bad CRC-32" in only_problem(found).problem


def test_encrypted_members_are_named(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("secret.png", b"1"), ("b.png", b"1"))
    patch(path, "secret.png", 8, b"\x01\x00")
    found = unpack(path)
    assert found.names == ["b.png"]
    assert only_problem(found).problem == f"{path}/secret.png: is encrypted"
    assert "password" in only_problem(found).fix


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 99])
def test_other_ways_to_compress_are_refused_by_number(tmp_path, unpack, method):
    if method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = pack(tmp_path / "study.zip", ("a.png", b"1"), method=method)
    else:
        path = pack(tmp_path / "study.zip", ("a.png", b"1"))
        patch(path, "a.png", 10, struct.pack("<H", method))
    assert f"is packed by method {method}, not 8" in only_problem(unpack(path)).problem


@pytest.mark.parametrize("twin", ["a.png", "./a.png", "b//../a.png"])
def test_of_two_members_of_one_name_neither_is_taken(tmp_path, unpack, twin):
    found = unpack(pack(tmp_path / "study.zip", ("a.png", b"1"), (twin, b"2"), ("c.png", b"3")))
    assert "c.png" in found.names
    assert files_below(tmp_path / "into/study.zip") == sorted(found.names)
    if twin != "b//../a.png":
        assert found.names == ["c.png"]
        assert "is there 2 times" in only_problem(found).problem


def test_a_file_and_a_folder_of_one_name_end_in_a_problem(tmp_path, unpack):
    found = unpack(pack(tmp_path / "study.zip", ("a.png", b"1"), ("a.png/b.png", b"2"), ("c.png", b"3")))
    assert found.names == ["a.png", "c.png"]
    assert "a.png/b.png: cannot be unpacked" in only_problem(found).problem


def test_a_name_too_long_for_the_file_system_is_a_problem(tmp_path, unpack):
    found = unpack(pack(tmp_path / "study.zip", ("x" * 300 + ".png", b"1"), ("b.png", b"1")))
    assert found.names == ["b.png"]
    assert only_problem(found).fix == "shorten the names in the archive"


def test_a_full_disk_is_a_problem_that_leaves_no_part_of_a_file(tmp_path, unpack, monkeypatch):
    path = pack(tmp_path / "study.zip", ("a.png", b"1"))
    opened = Path.open

    class Full(io.FileIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, mode="r": Full(opened(self, mode).detach().name, "w"))
    found = unpack(path)
    monkeypatch.undo()
    assert "No space left" in only_problem(found).problem
    assert "TMPDIR" in only_problem(found).fix
    assert files_below(tmp_path / "into") == []


def test_a_damaged_member_does_not_stop_the_rest(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("a.png", b"to be flipped"), ("b.png", b"1"), method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"to be flipped", b"to be Flipped"))
    found = unpack(path)
    assert found.names == ["b.png"]
    assert only_problem(found).problem.startswith(f"{path}/a.png: is damaged (Bad CRC-32")
    assert files_below(tmp_path / "into") == ["study.zip/b.png"]


def test_a_member_that_ends_too_early_is_damaged(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("b.png", b"1"), ("a.png", b"1"), method=zipfile.ZIP_STORED)
    patch(path, "a.png", 20, struct.pack("<LL", 10_000, 10_000))
    found = unpack(path)
    assert found.names == ["b.png"]
    assert only_problem(found).problem == f"{path}/a.png: is damaged (it ends too early)"


def test_an_archive_in_an_archive_is_named_not_opened(tmp_path, unpack):
    inner = pack(tmp_path / "inner.zip", ("a.png", b"1")).read_bytes()
    found = unpack(pack(tmp_path / "study.zip", ("deep/inner.ZIP", inner), ("b.png", b"1")))
    assert found.names == ["b.png"]
    assert only_problem(found).problem == f"{tmp_path / 'study.zip'}/deep/inner.ZIP: is an archive in an archive"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06"])
def test_what_is_no_zip_is_an_error_that_names_it(tmp_path, unpack, content):
    (tmp_path / "study.zip").write_bytes(content)
    with pytest.raises(CascadeError, match=r"study\.zip: cannot be read as a zip file"):
        unpack(tmp_path / "study.zip")


def test_an_archive_cut_short_is_an_error(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("a.png", bytes(1000)))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CascadeError, match="cannot be read as a zip file"):
        unpack(path)


def test_an_archive_that_has_gone_is_an_error(tmp_path, unpack):
    with pytest.raises(CascadeError, match=r"gone\.zip: cannot be read \(No such file"):
        unpack(tmp_path / "gone.zip")


def test_patterns_are_matched_below_the_archive_and_with_what_stands_before_it(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("p1/t1.png", b"1"), ("p1/t1_mask.png", b"1"), ("p2/t1.png", b"1"))
    assert unpack(path, Wanted(KINDS, exclude=("*_mask.png", "p2"))).names == ["p1/t1.png"]
    found = unpacked(path, tmp_path / "again", Wanted(KINDS, include=("sub/study.zip/p1/*",)), below="sub/study.zip/")
    assert found.names == ["p1/t1.png", "p1/t1_mask.png"]
    assert found.left_out == {"p2/t1.png": "matches no --include"}
