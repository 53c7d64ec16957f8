"""DICOM files become volumes with slices in their order in space."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pydicom.pixels.decoders
import pytest
import tifffile
from dicom_files import (
    HEAD,
    OBLIQUE,
    SECONDARY_CAPTURE,
    SPACING,
    STEP_MM,
    image,
    opened,
    position,
    series,
    write,
)
from stub_cascade import cascade_of

from cascade.io.dicom.series import open_dicom


def test_slices_are_sorted_by_position_whatever_their_names_and_numbers(tmp_path):
    paths = series(tmp_path / "scan")
    source = opened(paths[::-1], tmp_path)
    assert (source.count, source.files) == (6, tuple(paths))
    for index in range(6):
        slice_ = source.read(index)
        assert slice_.pixels.tolist() == HEAD[index].tolist()
        assert slice_.pixels.dtype == np.float32
        assert slice_.spacing_mm == SPACING
    assert (source.mask_suffix, source.notes) == (".seg.dcm", ())
    assert source.slab_mm == pytest.approx((3.0,) * 6)  # 2.5 mm thick, and a gap of 0.5 mm
    assert opened(paths[:1], tmp_path).slab_mm == (2.5,)
    assert opened([*paths[:3], *paths[4:]], tmp_path).slab_mm == pytest.approx((3.0, 3.0, 4.5, 4.5, 3.0))


def test_names_are_paths_and_series_numbers_and_no_two_are_the_same(tmp_path):
    paths = [
        *series(tmp_path / "one"),
        *series(tmp_path / "two", SeriesInstanceUID="1.2.3.5", SeriesNumber=12),
        *series(tmp_path / "two" / "b", SeriesInstanceUID="1.2.3.6", SeriesNumber=None),
        write(tmp_path / "one" / "alone.dcm", image(HEAD[0], SeriesInstanceUID="1.2.3.7")),
        *series(tmp_path / "one" / "more", SeriesInstanceUID="1.2.3.8", StudyInstanceUID="1.2.3.9"),
    ]
    paths[-6:] = [path.rename(tmp_path / "one" / f"more{path.name}") for path in paths[-6:]]
    sources, problems, _ = open_dicom(paths, tmp_path)
    assert problems == {}
    names = ["one/alone.dcm", "one/series-003", "one/series-003-2", "two/b/series", "two/series-012"]
    assert [source.name for source in sources] == names
    assert opened(paths[:6], tmp_path / "one").name == "series-003"


def test_files_of_two_patients_never_form_one_volume_whatever_their_uids(tmp_path):
    paths = [*series(tmp_path / "one", PatientID="1"), *series(tmp_path / "two", PatientID="2")]
    sources, problems, _ = open_dicom(paths, tmp_path)
    assert problems == {}
    assert [(source.name, source.count) for source in sources] == [("one/series-003", 6), ("two/series-003", 6)]


def test_files_without_patient_id_in_several_folders_have_a_note(tmp_path):
    paths = series(tmp_path / "one", PatientID=None)
    assert not any("several folders" in note for note in opened(paths, tmp_path).notes)
    (tmp_path / "two").mkdir()
    paths[3:] = [path.rename(tmp_path / "two" / path.name) for path in paths[3:]]
    assert any("several folders" in note for note in opened(paths, tmp_path).notes)


@pytest.mark.parametrize("keyword", ["EchoTime", "ImageType", "SamplesPerPixel", "InversionTime"])
def test_an_element_emptied_by_an_anonymizer_counts_as_missing(tmp_path, keyword):
    assert opened([write(tmp_path / "a.dcm", image(HEAD[4], **{keyword: None}))], tmp_path).count == 1


def test_two_orientations_in_one_series_are_two_sources(tmp_path):
    other = series(tmp_path / "scan", HEAD[:3])
    turned = [
        write(
            tmp_path / "scan" / f"turned{n}",
            image(
                HEAD[n],
                SOPInstanceUID=f"1.9.{n}",
                ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
                ImagePositionPatient=[n, 0, 0],
            ),
        )
        for n in range(2)
    ]
    sources, problems, _ = open_dicom([*other, *turned], tmp_path)
    assert ([source.count for source in sources], problems) == ([3, 2], {})


def test_orientations_that_differ_by_rounding_are_equal(tmp_path):
    paths = series(tmp_path / "scan", HEAD[:5])
    nearly = [number + 1e-6 for number in OBLIQUE]
    paths.append(
        write(
            tmp_path / "scan" / "last",
            image(
                HEAD[5], SOPInstanceUID="1.2.3.4.6", ImageOrientationPatient=nearly, ImagePositionPatient=position(5)
            ),
        )
    )
    source = opened(paths, tmp_path)
    assert source.count == 6
    assert len(source.mask_bytes(np.ones((6, 20, 24), bool))) > 1000


def test_copies_of_a_file_are_read_once(tmp_path):
    paths = series(tmp_path / "scan")
    (tmp_path / "scan" / "copy").write_bytes(paths[2].read_bytes())
    assert opened([*paths, tmp_path / "scan" / "copy"], tmp_path).count == 6


@pytest.mark.parametrize(
    ("changes", "keyword"),
    [({"EchoTime": 90}, "EchoTime"), ({"TemporalPositionIdentifier": 2}, "differ in Temp"), ({}, "do not distinguish")],
    ids=str,
)
def test_a_series_with_two_images_at_each_position_is_refused_and_the_difference_named(tmp_path, changes, keyword):
    paths = series(tmp_path / "scan")
    for n, path in enumerate(series(tmp_path / "more", **changes)):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = f"1.2.3.9.{n}"
        paths.append(write(tmp_path / "scan" / f"second{n}", dataset))
    sources, problems, _ = open_dicom(paths, tmp_path)
    assert sources == []
    ((path, error),) = problems.items()
    assert error.problem.startswith(
        f"{path}: the series contains several images at the same position"
    )  # the row has this name too
    assert keyword in error.problem


def test_a_series_without_positions_is_one_source_in_the_order_of_its_numbers(tmp_path):
    """Each slice was an input of its own. The numbers of this series run against its positions."""
    source = opened(series(tmp_path / "scan", ImagePositionPatient=None), tmp_path)
    assert (source.name, source.count, source.mask_suffix) == ("scan/series-003", 6, ".tif")
    assert (source.slab_mm, source.center_mm) == (None, None)
    assert [source.read(index).pixels.tolist() for index in range(6)] == HEAD[::-1].tolist()
    assert any("unknown distances" in note for note in source.notes)


@pytest.mark.parametrize(
    "changes",
    [{"InstanceNumber": 1}, {"InstanceNumber": None}, {"SOPClassUID": SECONDARY_CAPTURE}, {"SeriesInstanceUID": None}],
    ids=str,
)
def test_slices_without_position_that_nothing_orders_become_one_source_each(tmp_path, changes):
    sources, problems, _ = open_dicom(series(tmp_path / "scan", ImagePositionPatient=None, **changes), tmp_path)
    assert [source.name for source in sources] == [f"scan/IM000{n}" for n in range(1, 7)]
    assert problems == {}


def test_slices_without_position_are_no_volume_beside_those_with_one(tmp_path):
    paths = series(tmp_path / "scan")
    for path in paths[:2]:
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        write(path, dataset)
    sources, problems, _ = open_dicom(paths, tmp_path)
    assert [(source.name, source.count) for source in sources] == [
        ("scan/IM0005", 1),
        ("scan/IM0006", 1),
        ("scan/series-003", 4),
    ]
    assert problems == {}


def test_echoes_without_positions_are_one_source_each(tmp_path):
    paths = series(tmp_path / "scan", ImagePositionPatient=None)
    for path in paths[:3]:
        dataset = pydicom.dcmread(path)
        dataset.EchoTime = 90
        write(path, dataset)
    sources, _, _ = open_dicom(paths, tmp_path)
    assert [source.count for source in sources] == [3, 3]
    assert {frozenset(source.files) for source in sources} == {frozenset(paths[:3]), frozenset(paths[3:])}


def test_a_series_without_pixel_spacing_is_one_source_whose_volumes_in_milliliters_are_unknown(tmp_path):
    """Each slice was an input of its own, although all have positions."""
    source = opened(series(tmp_path / "scan", PixelSpacing=None), tmp_path)
    assert (source.count, source.mask_suffix, source.slab_mm) == (6, ".tif", None)
    for index in range(6):
        assert source.read(index).pixels.tolist() == HEAD[index].tolist()
        assert source.read(index).spacing_mm is None
    (note,) = source.notes
    assert "gives no PixelSpacing" in note
    finding = cascade_of().predict_volume(tmp_path / "scan").finding
    assert (finding.slices, finding.volume_ml) == (6, None)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "SOPInstanceUID"])
def test_a_series_to_which_no_segmentation_can_refer_is_one_source_with_a_tiff_mask(tmp_path, keyword):
    """Once, it was as many volumes of one slice, as if it had no positions."""
    source = opened(series(tmp_path / "scan", **{keyword: None}), tmp_path)
    assert (source.name, source.count, source.mask_suffix) == ("scan/series-003", 6, ".tif")
    assert source.slab_mm == pytest.approx((3.0,) * 6)
    (note,) = source.notes
    assert f"gives no {keyword}: its mask is a TIFF" in note


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 1, 0, 0)], ids=str)
def test_each_page_of_a_tiff_mask_is_on_the_stored_grid_of_its_slice(tmp_path, orientation):
    paths = [
        write(
            tmp_path / f"{n}",
            image(
                HEAD[n],
                SOPInstanceUID=f"1.2.3.4.{n}",
                FrameOfReferenceUID=None,
                ImageOrientationPatient=list(orientation),
                ImagePositionPatient=[0, 0, 3 * n],
            ),
        )
        for n in range(6)
    ]
    source = opened(paths, tmp_path)
    slices = np.stack([source.read(index).pixels for index in range(6)])
    mask = tifffile.imread(io.BytesIO(source.mask_bytes(slices > 900)))
    probability = tifffile.imread(io.BytesIO(source.probability_bytes(slices.astype(np.uint16))))
    for page, file in enumerate(source.files):
        stored = pydicom.dcmread(file).pixel_array
        assert np.array_equal(mask[page], 255 * (stored > 900))
        assert np.array_equal(probability[page], stored)


def test_files_without_series_are_not_put_together(tmp_path):
    sources, problems, _ = open_dicom(series(tmp_path / "scan", SeriesInstanceUID=None), tmp_path)
    assert ([source.count for source in sources], problems) == ([1] * 6, {})


def test_a_missing_slice_is_noted(tmp_path):
    paths = series(tmp_path / "scan")
    (note,) = opened(paths[:2] + paths[3:], tmp_path).notes
    assert "3 to 6 mm apart" in note


@pytest.mark.parametrize(("shift_mm", "is_noted"), [(0.05, False), (0.2, True), (-0.2, True), (1.0, True)])
def test_distances_that_vary_by_more_than_5_percent_are_noted(tmp_path, shift_mm, is_noted):
    """The last of slices at a distance of 3 mm is moved by 2%, 7% and 33% of that."""
    paths = series(tmp_path / "scan")
    dataset = pydicom.dcmread(paths[-1])
    dataset.ImagePositionPatient = position(len(HEAD) - 1 + shift_mm / STEP_MM)
    write(paths[-1], dataset)
    assert any("mm apart" in note for note in opened(paths, tmp_path).notes) == is_noted


@pytest.mark.parametrize(("thickness_mm", "is_noted"), [(1.4, True), (1.5, False), (5.0, False), (None, False)])
@pytest.mark.parametrize("count", [2, 6])
def test_gaps_wider_than_the_slices_are_noted(tmp_path, thickness_mm, is_noted, count):
    """Once, three key slices 40 mm apart gave the volume of a slab of 120 mm, without a word."""
    source = opened(series(tmp_path / "scan", HEAD[:count], SliceThickness=thickness_mm), tmp_path)
    assert source.slab_mm == pytest.approx((STEP_MM,) * count)
    assert any("3 mm apart and 1.4 mm thick" in note for note in source.notes) == is_noted
    assert len(source.notes) == is_noted


def test_properties_unlike_the_training_data_are_noted(tmp_path):
    path = write(
        tmp_path / "a.dcm",
        image(
            HEAD[4], ContrastBolusAgent=None, EchoTime="98.0", BurnedInAnnotation="YES", SOPClassUID=SECONDARY_CAPTURE
        ),
    )
    notes = opened([path], tmp_path).notes
    assert len(notes) == 4
    for note, part in zip(
        notes, ("secondary capture", "no contrast agent", "echo time of 98 ms", "burned-in text"), strict=True
    ):
        assert part in note


def test_reading_does_not_import_the_library_for_masks():
    code = "import sys, cascade.io.dicom.series; print('highdicom' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False"]


@pytest.mark.parametrize(
    "changes", [{"StudyInstanceUID": "1.2.3.77"}, {"FrameOfReferenceUID": "1.2.3.77"}, {"PixelSpacing": [1.6, 1.8]}, {}]
)
def test_slices_of_two_grids_form_two_volumes_though_their_positions_interleave(tmp_path, changes):
    """Without other elements, they differ in their width."""
    paths = series(tmp_path / "a", HEAD[:3])
    for number in range(3):
        pixels = HEAD[number + 3] if changes else np.ascontiguousarray(HEAD[number + 3][:, :20])
        new = image(pixels, SOPInstanceUID=f"1.9.{number}", ImagePositionPatient=position(number + 3), **changes)
        paths.append(write(tmp_path / "b" / f"{number}", new))
    sources, problems, _ = open_dicom(paths, tmp_path)
    assert ([source.count for source in sources], problems) == ([3, 3], {})


def test_coronal_slices_stand_for_the_space_between_them(tmp_path):
    """From front to back their distances descend."""
    paths = [
        write(
            tmp_path / f"{number}",
            image(
                HEAD[number],
                SOPInstanceUID=f"1.2.3.4.{number}",
                ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
                ImagePositionPatient=[0, 3 * number, 0],
            ),
        )
        for number in range(6)
    ]
    assert opened(paths, tmp_path).slab_mm == pytest.approx((3.0,) * 6)
