"""Slices in zip files are found and named as if the zip files were folders."""

from pathlib import Path

import pytest
from input_files import pack, put
from input_files import scans as scans

from cascade.discovery.archives import Limits
from cascade.discovery.inputs import find_slices


def test_slices_in_a_zip_file_are_named_as_if_it_were_a_folder(scans, tmp_path):
    pack(scans / "b" / "study.zip", ("p/z.png", b"zipped"), ("notes.txt", b""))
    into = tmp_path / "unpacked"
    inputs = find_slices([scans], unpack_into=into)
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG", "b/study.zip/p/z.png"]
    assert inputs.path("b/study.zip/p/z.png").read_bytes() == b"zipped"
    assert inputs.path("b/study.zip/p/z.png").is_relative_to(into)
    assert inputs.path("a.png") == scans / "a.png"
    assert inputs.left_out[str(scans / "b" / "study.zip" / "notes.txt")] == "is not a supported format"


def test_a_zip_alone_two_zips_and_a_zip_given_twice(scans, tmp_path):
    first = pack(scans / "c" / "x.zip", ("a.png", b"1"))
    second = pack(scans / "d" / "x.zip", ("a.png", b"2"))
    inputs = find_slices([first, first, scans / "c"], unpack_into=tmp_path / "one")
    assert (inputs.folder, inputs.names) == (scans / "c", ["x.zip/a.png"])
    inputs = find_slices([first, second], unpack_into=tmp_path / "two")
    assert [inputs.path(name).read_bytes() for name in ("c/x.zip/a.png", "d/x.zip/a.png")] == [b"1", b"2"]


def test_patterns_apply_to_members_of_zip_files(scans, tmp_path):
    path = pack(scans / "study.zip", ("p/z.png", b""), ("p/z_mask.png", b""), ("q/z.png", b""))
    inputs = find_slices([path], exclude=["*_mask.png", "q"], unpack_into=tmp_path / "one")
    assert inputs.names == ["study.zip/p/z.png"]
    assert find_slices([path], include=["p/*"], exclude=["*_*"], unpack_into=tmp_path / "two").names == inputs.names
    inputs = find_slices([scans], include=["study.zip/q"], unpack_into=tmp_path / "three")
    assert inputs.names == ["study.zip/q/z.png"]
    inputs = find_slices([scans], exclude=["*.zip"], unpack_into=tmp_path / "four")
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]


def test_problems_in_zip_files_name_the_member_and_the_others_are_listed(scans, tmp_path):
    path = pack(scans / "study.zip", ("../out.png", b""), ("z.png", b""))
    put(scans, "broken.zip", content=b"no zip")
    pack(scans / "empty.zip", ("notes.txt", b""))
    inputs = find_slices([path, scans], unpack_into=tmp_path / "unpacked")
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG", "study.zip/z.png"]
    assert set(inputs.problems) == {f"{path}/../out.png", str(scans / "broken.zip"), str(scans / "empty.zip")}
    assert "cannot be read as a zip file" in inputs.problems[str(scans / "broken.zip")].problem
    assert "contains no PNG" in inputs.problems[str(scans / "empty.zip")].problem


def test_the_size_of_all_zip_files_of_a_run_together_is_limited(scans, tmp_path):
    zips = [pack(scans / f"{number}.zip", ("a.png", bytes(1000))) for number in range(4)]
    inputs = find_slices(zips, unpack_into=tmp_path / "unpacked", limits=Limits(total=2500))
    assert inputs.names == ["0.zip/a.png", "1.zip/a.png"]
    assert list(inputs.problems) == [f"{zips[2]}/a.png", f"{zips[3]}/a.png"]


def test_no_two_slices_share_a_name(scans, tmp_path):
    """No folder can have the name of a zip file beside it. A folder named like a zip file is a folder."""
    put(scans, "a/y.zip/a.png", "x.zip.png", content=b"in a folder")
    path = pack(scans / "a" / "x.zip", ("a.png", b"in a zip"), ("y.zip/a.png", b"deep in a zip"))
    with pytest.raises(FileExistsError):
        path.mkdir()
    paths = [scans, scans / "a", path, scans / "a" / "y.zip", scans / "a" / ".." / "a" / "x.zip", scans / "**" / "*"]
    inputs = find_slices(paths, unpack_into=tmp_path / "unpacked")
    assert len(set(inputs.names)) == len(inputs.names) == 7
    assert len({inputs.path(name).resolve() for name in inputs.names}) == 7
    assert inputs.path("a/y.zip/a.png").read_bytes() == b"in a folder"
    assert inputs.path("a/x.zip/a.png").read_bytes() == b"in a zip"
    assert inputs.path("a/x.zip/y.zip/a.png").read_bytes() == b"deep in a zip"


def test_a_path_with_dots_or_a_link_has_the_name_of_the_file_that_it_leads_to(scans, tmp_path, monkeypatch):
    """Once, a broken zip file was named by the path on the command line, and --resume did not recognize it."""
    (scans / "link").symlink_to(scans / "b")
    monkeypatch.chdir(scans / "b")
    pack(scans / "b" / "x.zip", ("../out.png", b""), ("z.png", b""))
    for folder in ("../b", "../link"):
        inputs = find_slices([Path("../a.png"), Path(folder, "x.zip")], unpack_into=tmp_path / folder[3:])
        assert inputs.names == ["a.png", "b/x.zip/z.png"]
        assert [inputs.name(path) for path in inputs.problems] == ["b/x.zip/../out.png"]
        assert inputs.name(f"{folder}/gone.zip") == "b/gone.zip"
    (scans / "linked.zip").symlink_to(scans / "b" / "x.zip")
    inputs = find_slices([scans / "linked.zip"], unpack_into=tmp_path / "linked")
    assert [inputs.name(path) for path in inputs.problems] == ["linked.zip/../out.png"]


def test_two_links_to_one_zip_are_two_zips(scans, tmp_path):
    path = pack(tmp_path / "elsewhere" / "x.zip", ("a.png", b"1"))
    for name in ("1.zip", "2.zip"):
        (scans / "b" / name).symlink_to(path)
    inputs = find_slices([scans / "b" / "1.zip", scans / "b" / "2.zip"], unpack_into=tmp_path / "unpacked")
    assert inputs.names == ["1.zip/a.png", "2.zip/a.png"]
