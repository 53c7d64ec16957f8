"""Files and folders become the names of slices, with a reason for everything that is left out."""

import ntpath
import os
import socket
import tracemalloc
from pathlib import Path

import pytest
from input_files import DICOM, pack, put
from input_files import scans as scans

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices
from cascade.discovery.walk import TEXT_MATRIX
from cascade.errors import CascadeError


def test_a_folder_gives_all_slices_below_it_sorted_and_without_hidden_files(scans):
    inputs = find_slices([scans])
    assert inputs.folder == scans
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.problems == {}


def test_a_slice_given_twice_is_listed_once(scans):
    assert find_slices([scans / "a.png", scans, scans / "b" / ".." / "a.png"]).names == ["a.png", "b/1.mat", "b/a.JPG"]


def test_names_distinguish_the_files_of_two_folders(scans):
    (scans / "c").mkdir()
    (scans / "c" / "a.JPG").touch()
    inputs = find_slices([scans / "b", scans / "c"])
    assert (inputs.folder, inputs.names) == (scans, ["b/1.mat", "b/a.JPG", "c/a.JPG"])


def test_inputs_that_are_not_slices_are_problems_and_the_others_are_listed(scans):
    inputs = find_slices([scans / "missing.png", scans / "notes.txt", scans / "a.png"])
    assert inputs.names == ["a.png"]
    assert list(inputs.problems) == [str(scans / "missing.png"), str(scans / "notes.txt")]
    assert "there is no such file" in inputs.problems[str(scans / "missing.png")].problem
    assert "PNG, JPEG, TIFF, BMP, WebP or .mat" in inputs.problems[str(scans / "notes.txt")].fix


def test_inputs_without_slices_are_an_error_that_names_every_path(scans):
    (scans / "empty").mkdir()
    with pytest.raises(CascadeError, match=r"(?s)missing.*empty: contains no PNG"):
        find_slices([scans / "missing", scans / "empty"])


def test_a_link_to_a_file_keeps_its_own_name(scans):
    (scans / "link.png").symlink_to(scans / "a.png")
    assert find_slices([scans / "link.png"]).names == ["link.png"]


def test_files_that_filters_leave_out_suggest_fewer_filters(scans):
    with pytest.raises(CascadeError) as caught:
        find_slices([scans / "a.png"], exclude=["*.png"])
    assert "left out: 1 (matches --exclude *.png)" in caught.value.problem
    assert caught.value.fix.endswith("or exclude fewer files")


def test_paths_are_relative_to_where_the_command_is_run(scans, monkeypatch):
    monkeypatch.chdir(scans)
    assert find_slices([Path(), Path("a.png")]).names == ["a.png", "b/1.mat", "b/a.JPG"]


def test_inputs_on_several_drives_are_named(scans, monkeypatch):
    monkeypatch.setattr(os.path, "commonpath", lambda paths: ntpath.commonpath(["C:\\a", "D:\\b"]))
    with pytest.raises(CascadeError, match="several drives"):
        find_slices([scans])


def test_volumes_and_zip_files_are_not_accepted_by_default(scans):
    put(scans, "a.nii.gz", "a.dcm")
    put(scans, "IM0001", content=DICOM)
    pack(scans / "study.zip", ("z.png", b"1"))
    inputs = find_slices([scans, scans / "study.zip"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert "is not a supported format" in inputs.problems[str(scans / "study.zip")].problem


def test_each_file_has_a_format(scans):
    put(scans, "v.nii.gz", "c.IMA", content=b"12345")
    put(scans, "IM0001", "1.2.840.9", content=DICOM)
    put(scans, "README")
    inputs = find_slices([scans], formats=FORMATS)
    assert inputs.of_format("image") == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.of_format("nifti") == ["v.nii.gz"]
    assert inputs.of_format("dicom") == ["1.2.840.9", "IM0001", "c.IMA"]
    assert inputs.left_out[str(scans / "README")] == "is not a supported format"


def test_transforms_of_fsl_beside_a_scan_are_left_out(scans):
    """They were failed slices, with the advice to download them again."""
    put(scans, "b/t1_to_mni.mat", content=b"1 0 0 0\n0 1 0 0\n")
    inputs = find_slices([scans])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.left_out[str(scans / "b/t1_to_mni.mat")] == TEXT_MATRIX
    assert find_slices([scans / "b/t1_to_mni.mat"]).names == ["t1_to_mni.mat"]


def test_without_recursion_only_the_files_directly_in_a_folder_are_listed(scans, tmp_path):
    pack(scans / "study.zip", ("deep/z.png", b"1"))
    inputs = find_slices([scans], recursive=False, formats=FORMATS, unpack_into=tmp_path / "unpacked")
    assert inputs.names == ["a.png", "study.zip/deep/z.png"]
    assert inputs.left_out[str(scans / "b")] == "is a subfolder, and --no-recursive was given"


def test_patterns_filter_files_in_folders_and_files_given_directly(scans):
    put(scans, "a_mask.png", "b/c_mask.png")
    assert find_slices([scans], exclude=["*_mask.png"]).names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert find_slices([scans], exclude=["b"]).names == ["a.png", "a_mask.png"]
    assert find_slices([scans], include=["*.JPG", "a.*"]).names == ["a.png", "b/a.JPG"]
    inputs = find_slices([scans / "a.png", scans / "a_mask.png"], exclude=["*_mask.png"])
    assert (inputs.names, inputs.problems) == (["a.png"], {})
    assert inputs.left_out == {str(scans / "a_mask.png"): "matches --exclude *_mask.png"}


def test_an_excluded_folder_is_left_out_with_everything_in_it_and_a_file_of_that_name_is_not(scans):
    put(scans, "c/b/a.png", "c/b.png/a.png")
    inputs = find_slices([scans], exclude=["b/", "!b/a.JPG"])
    assert inputs.names == ["a.png", "c/b.png/a.png"]
    assert inputs.left_out[str(scans / "c/b")] == "matches --exclude b/"
    assert find_slices([scans], exclude=["a.png/"]).names[0] == "a.png"


def test_an_invalid_pattern_is_an_error(scans):
    with pytest.raises(CascadeError, match="--exclude"):
        find_slices([scans], exclude=["!"])


def test_a_file_left_out_of_one_folder_may_be_accepted_in_another(scans):
    inputs = find_slices([scans, scans / "b"], exclude=["b/*"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert not any(path.startswith(str(scans / "b" / "a")) for path in inputs.left_out)


def test_a_subfolder_that_is_an_input_too_is_not_left_out(scans):
    inputs = find_slices([scans, scans / "b"], recursive=False)
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert str(scans / "b") not in inputs.left_out


def test_patterns_that_exclude_everything_are_an_error(scans):
    with pytest.raises(CascadeError, match=r"(?s)contains no PNG.*exclude fewer"):
        find_slices([scans], exclude=["*.*"])
    with pytest.raises(CascadeError, match="contain no slice"):
        find_slices([scans / "a.png"], exclude=["*"])


def test_every_file_that_is_left_out_has_a_reason(scans):
    (scans / "way").symlink_to(scans / "b")
    inputs = find_slices([scans], exclude=["*.mat"])
    assert inputs.left_out == {
        str(scans / "notes.txt"): "is not a supported format",
        str(scans / ".hidden.png"): "is hidden",
        str(scans / ".trash"): "is hidden",
        str(scans / "way"): "is a link to a folder",
        str(scans / "b" / "1.mat"): "matches --exclude *.mat",
    }


def test_a_folder_named_like_an_image_is_walked(scans):
    put(scans, "folder.png/x.png")
    assert "folder.png/x.png" in find_slices([scans]).names
    assert find_slices([scans / "folder.png"]).names == ["x.png"]


def test_circular_and_broken_links_are_problems(scans):
    (scans / "b" / "up").symlink_to(scans)
    (scans / "self.png").symlink_to(scans / "self.png")
    (scans / "gone.png").symlink_to(scans / "nowhere.png")
    inputs = find_slices([scans, scans / "self.png"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.left_out[str(scans / "b" / "up")] == "is a link to a folder"
    assert "is a broken link" in inputs.problems[str(scans / "gone.png")].problem
    assert str(scans / "self.png") in inputs.problems


@pytest.mark.parametrize("suffix", [".png", ".zip", ".nii.gz", ""])
def test_pipes_and_sockets_are_never_opened(scans, tmp_path, suffix):
    os.mkfifo(scans / f"pipe{suffix}")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(scans / f"end{suffix}"))
    everything = [scans, scans / f"pipe{suffix}", scans / f"end{suffix}"]
    inputs = find_slices(everything, formats=FORMATS, unpack_into=tmp_path / "unpacked")
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    reason = "is not a regular file" if suffix else "is not a supported format"
    assert set(inputs.problems) == {str(path) for path in everything[1:]}
    assert all(reason in error.problem for error in inputs.problems.values())


@pytest.mark.parametrize("name", ["ä 脑\n.png", "x" * 251 + ".png", os.fsdecode(b"\xff\xfe.png"), "-.png", "[a]*?.png"])
def test_any_valid_file_name_is_accepted(scans, name):
    put(scans, name)
    assert name in find_slices([scans]).names
    assert find_slices([scans / name]).names == [name]


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "f/" * 3000 + "a.png"])
def test_an_invalid_file_name_is_a_problem(scans, name):
    inputs = find_slices([scans / name, scans / "a.png"])
    assert inputs.names == ["a.png"]
    assert "there is no such file" in inputs.problems[str(scans / name)].problem


def test_an_error_counts_the_reasons_if_everything_was_left_out(scans):
    with pytest.raises(CascadeError, match=r"left out: 1 \(matches --exclude scans\)"):
        find_slices([scans], exclude=["scans"])


def test_an_error_lists_20_problems_and_counts_the_others():
    with pytest.raises(CascadeError, match="and 80 more") as raised:
        find_slices([Path(f"missing-{number}.png") for number in range(100)])
    assert len(raised.value.problem.splitlines()) == 21
    assert raised.value.fix == "check the path"


def test_the_walk_takes_less_than_a_kilobyte_per_file(tmp_path):
    """A large study of 100,000 files stays below 100 MB."""
    for number in range(10_000):
        (tmp_path / f"{number:06}.png").touch()
    before = find_slices([tmp_path])  # the interpreter's own table of names may grow, by 8 MB after many other tests
    tracemalloc.start()
    inputs = find_slices([tmp_path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert inputs == before
    assert len(inputs.names) == 10_000
    assert peak < 10_000_000
