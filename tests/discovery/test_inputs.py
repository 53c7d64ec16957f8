import io
import ntpath
import os
import socket
import tracemalloc
from pathlib import Path

import pytest
from input_files import DICOM, pack, put
from input_files import scans as scans

from cascade.discovery.filters import KINDS
from cascade.discovery.inputs import find_slices, read_list
from cascade.errors import CascadeError


def test_a_folder_gives_its_slices_at_any_depth_sorted_and_without_hidden_ones(scans):
    inputs = find_slices([scans])
    assert inputs.folder == scans
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.problems == {}


def test_a_slice_given_twice_is_done_once(scans):
    assert find_slices([scans / "a.png", scans, scans / "b" / ".." / "a.png"]).names == ["a.png", "b/1.mat", "b/a.JPG"]


def test_names_tell_files_of_two_folders_apart(scans):
    (scans / "c").mkdir()
    (scans / "c" / "a.JPG").touch()
    inputs = find_slices([scans / "b", scans / "c"])
    assert (inputs.folder, inputs.names) == (scans, ["b/1.mat", "b/a.JPG", "c/a.JPG"])


def test_a_pattern_that_the_shell_left_alone_is_expanded(scans):
    assert find_slices([scans / "**" / "*.JPG"]).names == ["a.JPG"]


def test_a_file_whose_name_looks_like_a_pattern_is_taken_as_it_is(scans):
    (scans / "a[1].png").touch()
    assert find_slices([scans / "a[1].png"]).names == ["a[1].png"]


def test_the_rest_is_done_when_some_of_what_is_given_is_no_slice(scans):
    inputs = find_slices([scans / "missing.png", scans / "notes.txt", scans / "a.png"])
    assert inputs.names == ["a.png"]
    assert list(inputs.problems) == [str(scans / "missing.png"), str(scans / "notes.txt")]
    assert "there is no such file" in inputs.problems[str(scans / "missing.png")].problem
    assert "PNG, JPEG, TIFF, BMP, WebP or .mat" in inputs.problems[str(scans / "notes.txt")].fix


def test_what_a_pattern_matches_besides_slices_does_not_hide_the_slices(scans):
    inputs = find_slices([scans / "*"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert list(inputs.problems) == [str(scans / "notes.txt")]


def test_nothing_to_do_is_an_error_that_names_every_path(scans):
    (scans / "empty").mkdir()
    with pytest.raises(CascadeError, match=r"(?s)missing.*empty: holds no PNG"):
        find_slices([scans / "missing", scans / "empty"])


def test_what_runs_write_is_never_read_even_when_it_is_asked_for(scans):
    for name in ("results/masks/a.png", "results/overlays/b/a.png", "results/extra.png"):
        path = scans / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    written = (scans / "results" / "masks", scans / "results" / "overlays")
    inputs = find_slices([scans, written[0] / "a.png"], written)
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG", "results/extra.png"]
    assert "lies where the results go" in inputs.problems[str(written[0] / "a.png")].problem


def test_a_link_to_a_file_keeps_its_own_name(scans):
    (scans / "link.png").symlink_to(scans / "a.png")
    assert find_slices([scans / "link.png"]).names == ["link.png"]


@pytest.mark.usefixtures("permissions")
def test_a_folder_that_may_not_be_looked_into_is_named(scans):
    (scans / "b").chmod(0)
    inputs = find_slices([scans])
    (scans / "b").chmod(0o755)
    assert inputs.names == ["a.png"]
    assert "cannot be looked into" in inputs.problems[str(scans / "b")].problem


def test_paths_are_relative_to_where_the_command_is_run(scans, monkeypatch):
    monkeypatch.chdir(scans)
    assert find_slices([Path(), Path("a.png")]).names == ["a.png", "b/1.mat", "b/a.JPG"]


def test_inputs_on_several_drives_are_named(scans, monkeypatch):
    monkeypatch.setattr(os.path, "commonpath", lambda paths: ntpath.commonpath(["C:\\a", "D:\\b"]))
    with pytest.raises(CascadeError, match="several drives"):
        find_slices([scans])


def test_by_default_volumes_and_zips_are_not_taken(scans):
    put(scans, "a.nii.gz", "a.dcm")
    put(scans, "IM0001", content=DICOM)
    pack(scans / "study.zip", ("z.png", b"1"))
    inputs = find_slices([scans, scans / "study.zip"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert "is no slice, going by its name" in inputs.problems[str(scans / "study.zip")].problem


def test_kinds_are_told_apart(scans):
    put(scans, "v.nii.gz", "c.IMA", content=b"12345")
    put(scans, "IM0001", "1.2.840.9", content=DICOM)
    put(scans, "README")
    inputs = find_slices([scans], kinds=KINDS)
    assert inputs.of_kind("picture") == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.of_kind("nifti") == ["v.nii.gz"]
    assert inputs.of_kind("dicom") == ["1.2.840.9", "IM0001", "c.IMA"]
    assert inputs.left_out[str(scans / "README")] == "is no slice"


def test_only_what_lies_directly_in_a_folder_where_that_is_asked_for(scans, tmp_path):
    pack(scans / "study.zip", ("deep/z.png", b"1"))
    inputs = find_slices([scans], recursive=False, kinds=KINDS, unpack_into=tmp_path / "unpacked")
    assert inputs.names == ["a.png", "study.zip/deep/z.png"]
    assert inputs.left_out[str(scans / "b")] == "is a folder in a folder"


def test_patterns_choose_among_files_in_folders_and_among_those_that_were_given(scans):
    put(scans, "a_mask.png", "b/c_mask.png")
    assert find_slices([scans], exclude=["*_mask.png"]).names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert find_slices([scans], exclude=["b"]).names == ["a.png", "a_mask.png"]
    assert find_slices([scans], include=["*.JPG", "a.*"]).names == ["a.png", "b/a.JPG"]
    inputs = find_slices([scans / "a.png", scans / "a_mask.png"], exclude=["*_mask.png"])
    assert (inputs.names, inputs.problems) == (["a.png"], {})
    assert inputs.left_out == {str(scans / "a_mask.png"): "matches --exclude *_mask.png"}


def test_what_one_folder_leaves_out_another_may_bring(scans):
    inputs = find_slices([scans, scans / "b"], exclude=["b/*"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert not any(path.startswith(str(scans / "b" / "a")) for path in inputs.left_out)


def test_a_folder_that_was_given_too_is_not_left_out(scans):
    inputs = find_slices([scans, scans / "b"], recursive=False)
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert str(scans / "b") not in inputs.left_out


def test_an_error_says_where_patterns_leave_nothing(scans):
    with pytest.raises(CascadeError, match=r"(?s)holds no PNG.*leave out fewer"):
        find_slices([scans], exclude=["*.*"])
    with pytest.raises(CascadeError, match="there is no slice among what was given"):
        find_slices([scans / "a.png"], exclude=["*"])


def test_every_thing_left_out_has_its_reason(scans):
    (scans / "way").symlink_to(scans / "b")
    inputs = find_slices([scans], exclude=["*.mat"])
    assert inputs.left_out == {
        str(scans / "notes.txt"): "is no slice",
        str(scans / ".hidden.png"): "is hidden",
        str(scans / ".trash"): "is hidden",
        str(scans / "way"): "is a link to a folder",
        str(scans / "b" / "1.mat"): "matches --exclude *.mat",
    }


def test_a_folder_called_like_a_picture_is_looked_into(scans):
    put(scans, "folder.png/x.png")
    assert "folder.png/x.png" in find_slices([scans]).names
    assert find_slices([scans / "folder.png"]).names == ["x.png"]


def test_links_in_a_circle_end_nowhere(scans):
    (scans / "b" / "up").symlink_to(scans)
    (scans / "self.png").symlink_to(scans / "self.png")
    (scans / "gone.png").symlink_to(scans / "nowhere.png")
    inputs = find_slices([scans, scans / "self.png"])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.left_out[str(scans / "b" / "up")] == "is a link to a folder"
    assert "leads nowhere" in inputs.problems[str(scans / "gone.png")].problem
    assert str(scans / "self.png") in inputs.problems


@pytest.mark.parametrize("suffix", [".png", ".zip", ".nii.gz", ""])
def test_pipes_and_sockets_are_never_opened(scans, tmp_path, suffix):
    os.mkfifo(scans / f"pipe{suffix}")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(scans / f"end{suffix}"))
    everything = [scans, scans / f"pipe{suffix}", scans / f"end{suffix}"]
    inputs = find_slices(everything, kinds=KINDS, unpack_into=tmp_path / "unpacked")
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    reason = "is no file" if suffix else "is no slice, going by its name"
    assert set(inputs.problems) == {str(path) for path in everything[1:]}
    assert all(reason in error.problem for error in inputs.problems.values())


@pytest.mark.parametrize("name", ["ä 脑\n.png", "x" * 251 + ".png", os.fsdecode(b"\xff\xfe.png"), "-.png", "[a]*?.png"])
def test_any_name_that_a_file_system_takes(scans, name):
    put(scans, name)
    assert name in find_slices([scans]).names
    assert find_slices([scans / name]).names == [name]


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "f/" * 3000 + "a.png"])
def test_a_name_that_no_file_system_takes_is_a_problem(scans, name):
    inputs = find_slices([scans / name, scans / "a.png"])
    assert inputs.names == ["a.png"]
    assert "there is no such file" in inputs.problems[str(scans / name)].problem


def test_single_files_that_a_run_wrote_are_not_read(scans):
    put(scans, "report.png", "masks/v.nii.gz", "masks/s.seg.dcm")
    written = [scans / "report.png", scans / "masks"]
    inputs = find_slices([scans, scans / "report.png", scans / "masks" / "v.nii.gz"], written, kinds=KINDS)
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG"]
    assert inputs.left_out[str(scans / "masks")] == "was written by a run"
    assert len(inputs.problems) == 2


def test_the_pictures_of_earlier_runs_are_not_read_wherever_they_are(scans):
    """A second run with another --out once took the masks of the first for slices."""
    put(scans, "b/old/masks/a.png", "b/old/overlays/a.png", "b/old/own.png", "masks/own.png")
    put(scans, "b/old/results.json", content=b'{\n "schema": "cascade results 7",\n')
    put(scans, "results.json", content=b'{"schema": "another program\'s"}')
    assert find_slices([scans]).names == ["a.png", "b/1.mat", "b/a.JPG", "b/old/own.png", "masks/own.png"]


@pytest.mark.parametrize("marker", ['"schema": "cascade evaluation 2"', '"format": "cascade evaluation 1"'])
def test_the_pictures_of_an_evaluation_are_not_read(scans, marker):
    """`predict` took the charts beside the slices for slices, and saw a glioma in one."""
    put(scans, "b/dice.png", "c/dice.png", "c/own.png", "c/worst_slices.png", "c/detection.png", "c/presence.png")
    put(scans, "c/metrics.json", content=f"{{\n {marker},\n".encode())
    inputs = find_slices([scans])
    assert inputs.names == ["a.png", "b/1.mat", "b/a.JPG", "b/dice.png", "c/own.png"]
    assert inputs.left_out[str(scans / "c/dice.png")] == "was written by a run"


def test_nor_are_they_where_a_pattern_or_a_list_names_them(scans):
    """`**/*.png` took the masks of an earlier run for slices."""
    put(scans, "b/old/masks/c/a.png", "b/old/own.png", "b/benchmark.png")
    put(scans, "b/old/results.json", content=b'{\n "schema": "cascade results 7",\n')
    put(scans, "b/benchmark.json", content=b'{"schema": "cascade benchmark 1"}')
    assert find_slices([scans / "**/*.png"]).names == ["a.png", "b/old/own.png"]
    inputs = find_slices([scans / "a.png", scans / "b/old/masks"])
    assert inputs.names == ["a.png"]
    assert inputs.left_out[str(scans / "b/old/masks")] == "was written by a run"


def test_where_all_was_left_out_the_reasons_are_told(scans):
    with pytest.raises(CascadeError, match="left out: 1, for: matches --exclude scans"):
        find_slices([scans], exclude=["scans"])


def test_an_error_of_many_problems_counts_those_that_it_does_not_show():
    with pytest.raises(CascadeError, match="and 80 more") as raised:
        find_slices([Path(f"missing-{number}.png") for number in range(100)])
    assert len(raised.value.problem.splitlines()) == 21
    assert raised.value.fix == "check the path"


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"", []),
        (b"a.png\n\n  \nb c.png", ["a.png", "b c.png"]),
        (b"a.png\r\nb.png\r\n", ["a.png", "b.png"]),
        (b"# no comment\n", ["# no comment"]),
        (b"a\nb.png\0c.png\0", ["a\nb.png", "c.png"]),
        (b"\xff.png\n", ["\udcff.png"]),
        ("ä.png".encode(), ["ä.png"]),
    ],
)
def test_a_list_holds_a_path_a_line_or_between_nuls(content, paths):
    assert read_list(io.BytesIO(content)) == [Path(path) for path in paths]


def test_finding_takes_less_than_a_kilobyte_a_file(tmp_path):
    """So that 100,000 files, a large study, stay below 100 MB."""
    for number in range(10_000):
        (tmp_path / f"{number:06}.png").touch()
    tracemalloc.start()
    inputs = find_slices([tmp_path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(inputs.names) == 10_000
    assert peak < 10_000_000
