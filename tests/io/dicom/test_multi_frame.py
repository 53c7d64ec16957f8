"""A multi-frame DICOM file is one source, whether its frames have positions or not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from dicom_files import (
    ENHANCED_MR,
    HEAD,
    MR,
    MULTI_FRAME_CAPTURE,
    SPACING,
    image,
    multi_frame,
    opened,
    refusal,
    write,
)
from stub_cascade import cascade_of, rows_of

from cascade.errors import CascadeError
from cascade.io.dicom.series import open_dicom
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions


def test_a_multi_frame_file_is_one_source_sorted_by_position(tmp_path):
    path = write(tmp_path / "a.dcm", multi_frame())
    source = opened([path], tmp_path)
    assert (source.name, source.count, source.files) == ("a.dcm", 6, (path,))
    for index in range(6):
        slice_ = source.read(index)
        assert slice_.pixels.tolist() == (HEAD[index] * 2.0 - 1).tolist()  # its functional group's slope and intercept
        assert slice_.spacing_mm == SPACING


def test_each_of_several_multi_frame_files_of_a_series_is_a_source(tmp_path):
    files = [multi_frame(order=[index, index + 2], SOPInstanceUID=f"1.2.3.4.{index}") for index in range(2)]
    paths = [write(tmp_path / f"{index}.dcm", dataset) for index, dataset in enumerate(files)]
    sources, problems, _ = open_dicom(paths, tmp_path)
    assert ([(source.name, source.count) for source in sources], problems) == ([("0.dcm", 2), ("1.dcm", 2)], {})
    assert len(sources[1].mask_bytes(np.ones((2, 20, 24), bool))) > 1000


@pytest.mark.parametrize("sop_class", [ENHANCED_MR, MULTI_FRAME_CAPTURE])
def test_multi_frame_files_of_one_frame_each_are_one_source(tmp_path, sop_class):
    """Once, a series of enhanced MR with a file for each slice was as many volumes of one slice."""
    paths = [
        write(tmp_path / "scan" / name, multi_frame(order=[n], SOPClassUID=sop_class, SOPInstanceUID=f"1.2.3.4.{n}"))
        for n, name in enumerate("fedcba")
    ]
    source = opened(paths, tmp_path)
    assert (source.name, source.count, source.files) == ("scan/series-003", 6, tuple(paths))
    assert source.slab_mm == pytest.approx((3.0,) * 6)
    for index in range(6):
        assert source.read(index).pixels.tolist() == (HEAD[index] * 2.0 - 1).tolist()


def test_frames_of_two_echoes_in_one_file_are_refused_and_the_difference_named(tmp_path):
    echoes = multi_frame(
        order=(0, 1, 2, 0, 1, 2),
        frame_groups=lambda frame: {"MREchoSequence": {"EffectiveEchoTime": 10.0 + 80 * (frame > 2)}},
    )
    assert "differ in EffectiveEchoTime" in refusal(write(tmp_path / "a.dcm", echoes))


def test_frames_of_several_orientations_in_one_file_are_refused(tmp_path):
    turn = {"PlaneOrientationSequence": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}}
    mixed = multi_frame(frame_groups=lambda frame: turn if frame == 3 else {})
    assert "several orientations" in refusal(write(tmp_path / "a.dcm", mixed))


FRAMES = (3, 0, 5, 1, 4, 2)
"""The slices of HEAD in the order in which `multi_frame` stores them."""


@pytest.mark.parametrize("sop_class", [MR, ENHANCED_MR, MULTI_FRAME_CAPTURE])
def test_a_multi_frame_file_without_positions_is_one_source_in_stored_order(tmp_path, sop_class):
    """Each frame was an input of its own, and a volume had no finding. MR images of several frames were refused."""
    frames = multi_frame(SOPClassUID=sop_class, PerFrameFunctionalGroupsSequence=None)
    source = opened([write(tmp_path / "a.dcm", frames)], tmp_path)
    assert (source.name, source.count, source.mask_suffix) == ("a.dcm", 6, ".tif")
    assert (source.slab_mm, source.center_mm) == (None, None)
    for index, frame in enumerate(FRAMES):
        slice_ = source.read(index)
        assert slice_.pixels.tolist() == (HEAD[frame] * 2.0 - 1).tolist()
        assert slice_.spacing_mm == SPACING
    assert any("gives no ImagePositionPatient: its mask is a TIFF" in note for note in source.notes)
    assert sum("unknown distances" in note for note in source.notes) == 1


def test_a_position_of_a_whole_file_is_not_that_of_each_frame(tmp_path):
    """MR images of several frames have no functional groups: their position is that of the first frame at most."""
    source = opened([write(tmp_path / "a.dcm", image(HEAD, NumberOfFrames=6))], tmp_path)
    assert (source.count, source.slab_mm, source.mask_suffix) == (6, None, ".tif")
    slices = np.stack([source.read(index).pixels for index in range(6)])
    assert slices.tolist() == HEAD.tolist()
    assert source.read(0).spacing_mm == SPACING
    mask = tifffile.imread(io.BytesIO(source.mask_bytes(slices > 900)))
    assert np.array_equal(mask, 255 * (HEAD > 900))


@pytest.mark.parametrize("orientation", [(-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0)], ids=str)
def test_masks_of_frames_without_positions_are_on_their_stored_grid(tmp_path, orientation):
    dataset = image(HEAD, NumberOfFrames=6, ImageOrientationPatient=list(orientation))
    source = opened([write(tmp_path / "a.dcm", dataset)], tmp_path)
    slices = np.stack([source.read(index).pixels for index in range(6)])
    mask = tifffile.imread(io.BytesIO(source.mask_bytes(slices > 900)))
    assert np.array_equal(mask, 255 * (HEAD > 900))


@pytest.mark.parametrize("missing", ["FrameOfReferenceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("sop_class", [ENHANCED_MR, MULTI_FRAME_CAPTURE])
def test_a_multi_frame_file_to_which_no_segmentation_can_refer_is_one_source_with_a_tiff_mask(
    tmp_path, missing, sop_class
):
    path = write(tmp_path / "a.dcm", multi_frame(SOPClassUID=sop_class, **{missing: None}))
    source = opened([path], tmp_path)
    assert (source.name, source.count, source.files, source.mask_suffix) == ("a.dcm", 6, (path,), ".tif")
    assert source.slab_mm == pytest.approx((3.0,) * 6)
    for index in range(6):
        assert source.read(index).pixels.tolist() == (HEAD[index] * 2.0 - 1).tolist()
    assert any(f"gives no {missing}" in note for note in source.notes)


def test_a_run_gives_frames_without_position_one_mask_and_one_finding_and_resumes(tmp_path):
    write(tmp_path / "scans" / "a.dcm", multi_frame(PerFrameFunctionalGroupsSequence=None))
    run = predict_paths(cascade_of(), [tmp_path / "scans"], tmp_path / "out")
    assert [(row.name, row.slices) for row in run.volumes] == [("a.dcm", 6)]
    assert [row["slice"] for row in rows_of(tmp_path / "out")] == [f"a.dcm/{n}" for n in range(6)]
    (mask,) = (path for path in (tmp_path / "out" / "masks").rglob("*") if path.is_file())
    assert tifffile.imread(mask).shape == (6, 20, 24)
    again = predict_paths(cascade_of(), [tmp_path / "scans"], tmp_path / "out", RunOptions(resume=True))
    assert again.resumed_rows == 6


def test_the_frames_of_a_file_without_positions_are_loaded_once_and_freed(tmp_path):
    path = write(tmp_path / "a.dcm", multi_frame(PerFrameFunctionalGroupsSequence=None))
    source = opened([path], tmp_path)
    source.read(0)
    path.unlink()
    assert source.read(1).pixels.shape == (20, 24)
    source.close()
    with pytest.raises(CascadeError):
        source.read(0)


def test_a_file_that_describes_fewer_frames_than_it_declares_is_refused(tmp_path):
    dataset = multi_frame()
    dataset.PerFrameFunctionalGroupsSequence = list(dataset.PerFrameFunctionalGroupsSequence)[:5]
    assert "declares 6 frames, but describes 5" in refusal(write(tmp_path / "a.dcm", dataset))
