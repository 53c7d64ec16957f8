"""A file is a copy only if its pixels are equal: some anonymizers write one SOPInstanceUID for several images."""

from __future__ import annotations

import json

import numpy as np
from dicom_files import HEAD, image, multi_frame, series, write
from stub_cascade import cascade_of

from cascade.io.dicom.series import open_dicom
from cascade.prediction.run import predict_paths


def test_images_with_one_uid_and_one_position_are_a_row_each_with_a_note_that_names_the_other(tmp_path):
    """One of them disappeared, without a row or note."""
    paths = [write(tmp_path / name, image(HEAD[index])) for index, name in enumerate(("a/1.dcm", "b/1.dcm"))]
    opened = open_dicom(paths, tmp_path)
    assert [(source.name, source.count) for source in opened.sources] == [("a/1.dcm", 1), ("b/1.dcm", 1)]
    assert (opened.problems, opened.left_out) == ({}, {})
    for source, other, pixels in zip(opened.sources, ("b/1.dcm", "a/1.dcm"), HEAD, strict=False):
        assert source.read(0).pixels.tolist() == pixels.tolist()
        assert any("SOPInstanceUID" in note and other in note for note in source.notes)


def test_two_series_with_the_same_uids_are_two_volumes(tmp_path):
    paths = [*series(tmp_path / "a"), *series(tmp_path / "b", HEAD + 1)]
    opened = open_dicom(paths, tmp_path)
    assert [source.count for source in opened.sources] == [6, 6]
    assert opened.left_out == {}
    for source, head in zip(opened.sources, (HEAD, HEAD + 1), strict=True):
        assert [source.read(index).pixels.tolist() for index in range(6)] == head.tolist()


def test_a_copy_is_read_once_and_left_out(tmp_path):
    paths = series(tmp_path / "scan")
    copy = tmp_path / "again" / "copy.dcm"
    copy.parent.mkdir()
    copy.write_bytes(paths[2].read_bytes())
    opened = open_dicom([*paths, copy], tmp_path)
    (source,) = opened.sources
    assert (source.count, opened.problems) == (6, {})
    ((copy_left_out, reason),) = opened.left_out.items()
    assert {copy_left_out, *source.files} == {copy, *paths}
    assert "is a copy of" in reason
    assert not any("SOPInstanceUID" in note for note in source.notes)


def test_a_copy_in_another_encoding_is_a_copy(tmp_path):
    plain = image(HEAD[4])
    path = write(tmp_path / "a.dcm", plain)
    plain.compress("1.2.840.10008.1.2.5", encoding_plugin="pydicom", generate_instance_uid=False)
    other = write(tmp_path / "b.dcm", plain)
    opened = open_dicom([path, other], tmp_path)
    assert ([source.files for source in opened.sources], list(opened.left_out)) == ([(path,)], [other])


def test_a_damaged_file_is_no_copy(tmp_path):
    paths = [write(tmp_path / f"{name}.dcm", image(HEAD[4], PixelData=b"\0" * 40)) for name in "ab"]
    for path in paths:
        path.write_bytes(path.read_bytes() + bytes(2000))
    opened = open_dicom(paths, tmp_path)
    assert len(opened.sources) == 2
    assert opened.left_out == {}


def test_images_without_position_are_copies_only_if_uid_and_pixels_are_equal(tmp_path):
    nowhere = {"ImagePositionPatient": None}
    write(tmp_path / "a.dcm", image(HEAD[0], **nowhere))
    write(tmp_path / "b.dcm", image(HEAD[0], **nowhere))
    write(tmp_path / "c.dcm", image(HEAD[1], **nowhere))
    write(tmp_path / "d.dcm", image(HEAD[0], **nowhere, SOPInstanceUID="1.2.9"))
    opened = open_dicom(sorted(tmp_path.iterdir()), tmp_path)
    assert [source.name for source in opened.sources] == ["a.dcm", "c.dcm", "d.dcm"]
    assert opened.left_out == {tmp_path / "b.dcm": "is a copy of a.dcm"}


def test_slices_at_different_positions_with_one_uid_stay_one_volume_with_a_note(tmp_path):
    opened = open_dicom(series(tmp_path / "scan", SOPInstanceUID="1.2"), tmp_path)
    ((source),) = opened.sources
    assert source.count == 6
    assert sum("SOPInstanceUID" in note for note in source.notes) == 1


def test_files_of_a_series_that_is_refused_are_listed(tmp_path):
    paths = series(tmp_path / "scan")
    other = write(tmp_path / "scan" / "other", image(HEAD[0] + 1, SOPInstanceUID="1.2.9"))
    opened = open_dicom([*paths, other], tmp_path)
    assert opened.sources == []
    assert {*opened.problems, *opened.left_out} == {other, *paths}
    assert len(opened.problems) == 1


def test_each_of_several_similar_files_that_are_not_mri_is_listed(tmp_path):
    paths = series(tmp_path / "ct", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    opened = open_dicom(paths, tmp_path)
    assert {*opened.problems, *opened.left_out} == set(paths)
    assert set(opened.left_out.values()) == {"its modality is CT, not MR"}


def test_a_multi_frame_file_that_is_given_twice_is_read_once(tmp_path):
    paths = [write(tmp_path / f"{name}.dcm", multi_frame()) for name in "ab"]
    opened = open_dicom(paths, tmp_path)
    assert [source.name for source in opened.sources] == ["a.dcm"]
    assert opened.sources[0].read(0).pixels.dtype == np.float32
    assert list(opened.left_out) == [paths[1]]


def test_run_json_lists_copies_as_left_out(tmp_path):
    paths = series(tmp_path / "scans")
    (tmp_path / "scans" / "copy").write_bytes(paths[0].read_bytes())
    predict_paths(cascade_of(), [tmp_path / "scans"], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(record["left_out"]) == [str(tmp_path / "scans" / "copy")]
    assert sum(record["slices"].values()) == 6
