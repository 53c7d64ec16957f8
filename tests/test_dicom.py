"""DICOM files become series in the order in which they lie in the patient; what is no MRI is refused by its kind."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom.pixels.decoders
import pytest
from dicom_files import (
    HEAD,
    OBLIQUE,
    PLANTED,
    SECONDARY_CAPTURE,
    SPACING,
    TEXTS,
    compressed,
    groups,
    image,
    multi_frame,
    position,
    series,
    write,
)
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from cascade.errors import CascadeError
from cascade.slices import BlankSlice
from cascade.sources.dicom import open_dicom


def opened(paths, root):
    """The one source of files without problems."""
    (source,), problems = open_dicom(paths, root)
    assert problems == {}
    return source


def refusal(path):
    """The problem of opening one file, or of reading it."""
    sources, problems = open_dicom([path], path.parent)
    if sources:
        with pytest.raises(CascadeError) as raised:
            sources[0].read(0)
        error = raised.value
    else:
        error = problems[path]
    assert str(path) in error.problem
    assert PLANTED not in error.problem
    assert error.fix
    return error.problem


def test_slices_follow_each_other_as_they_lie_in_space_whatever_their_names_and_numbers(tmp_path):
    paths = series(tmp_path / "scan")
    source = opened(paths[::-1], tmp_path)
    assert (source.count, source.files) == (6, tuple(paths))
    for index in range(6):
        found = source.read(index)
        assert found.pixels.tolist() == HEAD[index].tolist()
        assert found.pixels.dtype == np.float32
        assert found.spacing_mm == SPACING
    assert (source.mask_suffix, source.notes) == (".seg.dcm", ())


def test_a_multi_frame_file_is_one_source_in_the_order_of_space(tmp_path):
    path = write(tmp_path / "a.dcm", multi_frame())
    source = opened([path], tmp_path)
    assert (source.name, source.count, source.files) == ("a.dcm", 6, (path,))
    for index in range(6):
        found = source.read(index)
        assert found.pixels.tolist() == (HEAD[index] * 2.0 - 1).tolist()  # its functional group's slope and intercept
        assert found.spacing_mm == SPACING


def test_each_of_several_multi_frame_files_of_a_series_is_a_source(tmp_path):
    files = [multi_frame(order=[index], SOPInstanceUID=f"1.2.3.4.{index}") for index in range(2)]
    paths = [write(tmp_path / f"{index}.dcm", dataset) for index, dataset in enumerate(files)]
    sources, problems = open_dicom(paths, tmp_path)
    assert ([(source.name, source.count) for source in sources], problems) == ([("0.dcm", 1), ("1.dcm", 1)], {})
    assert len(sources[1].mask_bytes(np.ones((1, 20, 24), bool))) > 1000


def test_a_multi_frame_file_is_loaded_once_and_let_go_by_close(tmp_path):
    path = write(tmp_path / "a.dcm", multi_frame())
    source = opened([path], tmp_path)
    first = source.read(0).pixels.tolist()
    path.unlink()
    assert source.read(0).pixels.tolist() == first
    source.close()
    with pytest.raises(CascadeError, match="pixels cannot be read"):
        source.read(0)


def test_many_threads_read_the_same_slices(tmp_path):
    source = opened([write(tmp_path / "a.dcm", multi_frame())], tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: source.read(index % 6).pixels.sum(), range(96)))
    assert found == [source.read(index % 6).pixels.sum() for index in range(96)]


def test_names_are_paths_and_series_numbers_and_no_two_are_the_same(tmp_path):
    paths = [
        *series(tmp_path / "one"),
        *series(tmp_path / "two", SeriesInstanceUID="1.2.3.5", SeriesNumber=12),
        *series(tmp_path / "two" / "b", SeriesInstanceUID="1.2.3.6", SeriesNumber=None),
        write(tmp_path / "one" / "alone.dcm", image(HEAD[0], SeriesInstanceUID="1.2.3.7")),
        *series(tmp_path / "one" / "more", SeriesInstanceUID="1.2.3.8", StudyInstanceUID="1.2.3.9"),
    ]
    paths[-6:] = [path.rename(tmp_path / "one" / f"more{path.name}") for path in paths[-6:]]
    sources, problems = open_dicom(paths, tmp_path)
    assert problems == {}
    names = ["one/alone.dcm", "one/series-003", "one/series-003-2", "two/b/series", "two/series-012"]
    assert [source.name for source in sources] == names
    assert opened(paths[:6], tmp_path / "one").name == "series-003"


def test_files_of_two_people_are_never_one_series_whatever_their_uids(tmp_path):
    paths = [*series(tmp_path / "one", PatientID="1"), *series(tmp_path / "two", PatientID="2")]
    sources, problems = open_dicom(paths, tmp_path)
    assert problems == {}
    assert [(source.name, source.count) for source in sources] == [("one/series-003", 6), ("two/series-003", 6)]


def test_files_of_nobody_in_several_folders_are_mentioned(tmp_path):
    paths = series(tmp_path / "one", PatientID=None)
    assert not any("several folders" in note for note in opened(paths, tmp_path).notes)
    (tmp_path / "two").mkdir()
    paths[3:] = [path.rename(tmp_path / "two" / path.name) for path in paths[3:]]
    assert any("several folders" in note for note in opened(paths, tmp_path).notes)


@pytest.mark.parametrize("keyword", ["EchoTime", "ImageType", "SamplesPerPixel", "InversionTime"])
def test_what_an_anonymiser_left_empty_is_as_if_it_were_not_told(tmp_path, keyword):
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
    sources, problems = open_dicom([*other, *turned], tmp_path)
    assert ([source.count for source in sources], problems) == ([3, 2], {})


def test_orientations_that_differ_by_rounding_are_one(tmp_path):
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
    [({"EchoTime": 90}, "EchoTime"), ({"TemporalPositionIdentifier": 2}, "differing in Temp"), ({}, "no header tells")],
    ids=str,
)
def test_a_series_that_shows_each_place_twice_is_refused_with_what_differs(tmp_path, changes, keyword):
    paths = series(tmp_path / "scan")
    for n, path in enumerate(series(tmp_path / "more", **changes)):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = f"1.2.3.9.{n}"
        paths.append(write(tmp_path / "scan" / f"second{n}", dataset))
    sources, problems = open_dicom(paths, tmp_path)
    assert sources == []
    (error,) = problems.values()
    assert "shows places more than once" in error.problem
    assert keyword in error.problem


def test_frames_of_two_echoes_in_one_file_are_refused_with_what_differs(tmp_path):
    echoes = multi_frame(
        order=(0, 1, 2, 0, 1, 2),
        frame_groups=lambda frame: {"MREchoSequence": {"EffectiveEchoTime": 10.0 + 80 * (frame > 2)}},
    )
    assert "differing in EffectiveEchoTime" in refusal(write(tmp_path / "a.dcm", echoes))


def test_frames_of_several_orientations_in_one_file_are_refused(tmp_path):
    turn = {"PlaneOrientationSequence": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}}
    mixed = multi_frame(frame_groups=lambda frame: turn if frame == 3 else {})
    assert "several orientations" in refusal(write(tmp_path / "a.dcm", mixed))


def test_frames_that_the_header_does_not_place_are_refused(tmp_path):
    assert "does not place its frames" in refusal(write(tmp_path / "a.dcm", multi_frame(FrameOfReferenceUID=None)))
    bare = multi_frame(SharedFunctionalGroupsSequence=None, PerFrameFunctionalGroupsSequence=None)
    assert "does not place its frames" in refusal(write(tmp_path / "a.dcm", bare))


def test_slices_that_are_not_placed_become_a_source_each(tmp_path):
    sources, problems = open_dicom(series(tmp_path / "scan", ImagePositionPatient=None), tmp_path)
    assert [source.name for source in sources] == [f"scan/IM000{n}" for n in range(1, 7)]
    assert problems == {}


def test_a_missing_slice_is_mentioned(tmp_path):
    paths = series(tmp_path / "scan")
    (note,) = opened(paths[:2] + paths[3:], tmp_path).notes
    assert note == "its slices lie 3 to 6 mm apart: some may be missing"


def test_the_scanners_slope_and_intercept_are_applied_and_its_window_is_not(tmp_path):
    dataset = image(HEAD[4], RescaleSlope=0.5, RescaleIntercept=-10, WindowCenter=40, WindowWidth=2)
    assert (
        opened([write(tmp_path / "a.dcm", dataset)], tmp_path).read(0).pixels.tolist() == (HEAD[4] * 0.5 - 10).tolist()
    )


def test_where_high_values_are_dark_they_are_turned_over(tmp_path):
    dataset = image(HEAD[4], PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    assert (
        opened([write(tmp_path / "a.dcm", dataset)], tmp_path).read(0).pixels.tolist()
        == (4095 - HEAD[4].astype(int)).tolist()
    )
    signed = image(HEAD[4].astype(np.int16) - 500, PhotometricInterpretation="MONOCHROME1")
    found = opened([write(tmp_path / "b.dcm", signed)], tmp_path).read(0).pixels
    assert found.tolist() == (499 - HEAD[4].astype(int)).tolist()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_byte_orders_are_read(tmp_path, syntax):
    dataset = image(HEAD[4])
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = HEAD[4].astype(">u2").tobytes()
    path = tmp_path / "a.dcm"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    assert opened([path], tmp_path).read(0).pixels.tolist() == HEAD[4].tolist()


@pytest.mark.parametrize("implicit", [True, False])
def test_a_bare_data_set_as_old_archives_hold_is_read(tmp_path, implicit):
    content = io.BytesIO()
    dataset = image(HEAD[4])
    bare = pydicom.Dataset(dataset)
    pydicom.dcmwrite(content, bare, implicit_vr=implicit, little_endian=True)
    (tmp_path / "a.dcm").write_bytes(content.getvalue())
    assert opened([tmp_path / "a.dcm"], tmp_path).read(0).pixels.tolist() == HEAD[4].tolist()


def jpeg_2000(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG2000", irreversible=False, no_jp2=True)
    return content.getvalue()


@pytest.mark.parametrize("frames", [1, 6])
def test_compressed_files_are_read(tmp_path, frames):
    whole = HEAD[:frames]
    plain = image(whole[0]) if frames == 1 else multi_frame(order=range(6), SharedFunctionalGroupsSequence=None)
    if frames == 6:
        plain.SharedFunctionalGroupsSequence = [
            groups(
                PixelMeasuresSequence={"PixelSpacing": list(SPACING)},
                PlaneOrientationSequence={"ImageOrientationPatient": list(OBLIQUE)},
            )
        ]
    rle = write(tmp_path / "rle.dcm", plain)
    dataset = pydicom.dcmread(rle)
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    write(rle, dataset)
    j2k = write(tmp_path / "j2k.dcm", compressed(plain, JPEG2000Lossless, [jpeg_2000(pixels) for pixels in whole]))
    for path in (rle, j2k):
        source = opened([path], tmp_path)
        assert [source.read(index).pixels.tolist() for index in range(frames)] == whole.tolist()


def test_jpeg_is_read(tmp_path):
    pixels = (np.add.outer(np.arange(32), np.arange(40)) * 3).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=95)
    path = write(tmp_path / "a.dcm", compressed(image(pixels), JPEGBaseline8Bit, [content.getvalue()]))
    assert np.abs(opened([path], tmp_path).read(0).pixels - pixels).max() <= 4


def test_without_a_decoder_the_fix_is_the_extra_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", compressed(image(HEAD[4]), JPEGLSLossless, [b"\xff\xd8"]))
    monkeypatch.setattr(pydicom.pixels.decoders.JPEGLSLosslessDecoder, "_available", {})
    _, problems = open_dicom([path], tmp_path)
    assert problems[path].fix == "pip install 'cascade[compressed]'"


@pytest.mark.parametrize("kind", ["jpeg 2000", "jpeg"])
def test_a_frame_that_would_unpack_to_gigabytes_is_refused_undecoded(tmp_path, kind):
    if kind == "jpeg 2000":
        frame = bytearray(jpeg_2000(HEAD[4]))
        struct.pack_into(">2I", frame, 8, 60_000, 60_000)
        path = write(tmp_path / "a.dcm", compressed(image(HEAD[4]), JPEG2000Lossless, [bytes(frame)]))
    else:
        content = io.BytesIO()
        Image.fromarray(HEAD[4].astype(np.uint8)).save(content, "JPEG")
        frame = content.getvalue().replace(struct.pack(">HH", 20, 24), b"\xff\xff\xff\xff")
        path = write(tmp_path / "a.dcm", compressed(image(HEAD[4].astype(np.uint8)), JPEGBaseline8Bit, [frame]))
    assert "compressed in another size" in refusal(path)


def test_a_run_length_code_longer_than_what_it_could_stand_for_is_refused_undecoded(tmp_path):
    """Each two bytes of it may unpack to 128."""
    frame = struct.pack("<16I", 2, 64, 2**19, *[0] * 13) + b"\x81\x07" * 2**19
    path = write(tmp_path / "a.dcm", compressed(image(HEAD[4]), RLELossless, [frame]))
    assert "compressed to more than they were" in refusal(path)


@pytest.mark.filterwarnings("ignore")  # pytest undoes the filters that the module sets
def test_damaged_run_lengths_do_not_end_the_run(tmp_path):
    """pylibjpeg's decoder panicked on a run beyond the segment's end, which passes by all handlers of exceptions."""
    dataset = image(HEAD[4])
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    path = write(tmp_path / "a.dcm", dataset)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<2I", 2, 64)) + 64] = 127  # at the first segment's begin: copy 128 bytes
    path.write_bytes(content)
    assert opened([path], tmp_path).read(0).pixels.shape == (20, 24)


def test_a_blank_slice_is_told_apart_from_a_damaged_one(tmp_path):
    blank = HEAD.copy()
    blank[0] = 7
    source = opened(series(tmp_path / "scan", blank), tmp_path)
    with pytest.raises(BlankSlice, match="IM0006: every pixel"):
        source.read(0)
    assert source.read(1).pixels.max() > 7


def test_what_the_models_may_not_know_is_mentioned(tmp_path):
    path = write(
        tmp_path / "a.dcm",
        image(
            HEAD[4], ContrastBolusAgent=None, EchoTime="98.0", BurnedInAnnotation="YES", SOPClassUID=SECONDARY_CAPTURE
        ),
    )
    notes = opened([path], tmp_path).notes
    assert len(notes) == 4
    for note, part in zip(
        notes, ("secondary capture", "no contrast agent", "echo time of 98 ms", "drawn into"), strict=True
    ):
        assert part in note


def test_what_is_no_mri_is_refused_once_a_folder_by_its_kind(tmp_path):
    mri = series(tmp_path / "mri")
    tomography = series(
        tmp_path / "ct", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", SeriesInstanceUID="1.5"
    )
    sources, problems = open_dicom([*mri, *tomography], tmp_path)
    assert [source.name for source in sources] == ["mri/series-003"]
    (error,) = problems.values()
    assert error.problem == f"{min(tomography)}: its modality is CT, not MR (and 5 more like it in its folder)"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Modality": PLANTED}, "its modality is another, not MR"),
        ({"Modality": "SEG"}, "its modality is SEG, not MR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.2"}, "no MRI image"),  # spectroscopy
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "holds colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "holds colour"),
        ({"Rows": 65535, "Columns": 65535, "PixelData": b""}, "no MRI volume"),
        ({"Rows": 65535, "Columns": 64, "PixelData": b""}, "shorter than its header tells"),
        ({"Rows": None}, "does not tell what its pixels are"),
        ({"PhotometricInterpretation": ""}, "does not tell what its pixels are"),
        ({"SOPClassUID": None}, "does not tell what it is"),
        ({"Columns": 0}, "does not tell what its pixels are"),
        ({"Rows": 8}, "too small"),
        ({"BitsAllocated": 1}, "does not tell what its pixels are"),
        ({"NumberOfFrames": 1_000_000}, "no MRI volume"),
        ({"NumberOfFrames": 2}, "holds 2 frames"),
        ({"NumberOfFrames": -1}, "does not tell what its pixels are"),
        ({"PixelData": b"\0" * 400}, "cannot be read"),
        ({"PixelData": None}, "cannot be read"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is not positive"),
        ({"PixelSpacing": [-1, 1]}, "PixelSpacing is not positive"),
        ({"PixelSpacing": [1]}, "PixelSpacing is not 2 finite numbers"),
        ({"ImagePositionPatient": ["nan", 0, 0]}, "ImagePositionPatient is not 3 finite numbers"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "ImageOrientationPatient is no pair"),
        ({"ImageOrientationPatient": [0] * 6}, "ImageOrientationPatient is no pair"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope is 0"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_done_is_refused_at_once_and_names_nobody(tmp_path, changes, problem):
    dataset = image(HEAD[4], **changes)
    path = write(tmp_path / "a.dcm", dataset)
    began = time.monotonic()
    assert problem in refusal(path)
    assert time.monotonic() - began < 5


def test_a_deflated_file_is_refused_unopened(tmp_path):
    dataset = image(np.zeros((4000, 4000), np.uint16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = write(tmp_path / "a.dcm", dataset)
    assert path.stat().st_size < 100_000
    assert "deflated as a whole" in refusal(path)


def test_what_is_no_dicom_is_refused_by_name(tmp_path):
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("no image" * 100)
    (tmp_path / "folder.dcm").mkdir()
    for name in ("empty.dcm", "text.dcm", "folder.dcm", "missing.dcm"):
        assert refusal(tmp_path / name)


def test_a_file_that_changed_since_it_was_opened_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", image(HEAD[4]))
    source = opened([path], tmp_path)
    write(path, image(HEAD[4].T.copy()))
    with pytest.raises(CascadeError, match="was changed"):
        source.read(0)


@pytest.mark.filterwarnings("ignore")  # pytest undoes the filters that the module sets
@pytest.mark.parametrize("kind", ["single", "multi-frame", "jpeg 2000"])
def test_a_damaged_file_is_read_or_refused_by_name_and_never_crashes(tmp_path, kind):
    path = tmp_path / "a.dcm"
    if kind == "single":
        write(path, image(HEAD[4]))
    elif kind == "multi-frame":
        write(path, multi_frame())
    else:
        write(path, compressed(image(HEAD[4]), JPEG2000Lossless, [jpeg_2000(HEAD[4])]))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    problems = []
    for trial in range(100):
        damaged = bytearray(whole)
        if trial % 4 == 0:
            del damaged[random.integers(len(whole)) :]
        else:
            for at in random.integers(132, min(len(whole), 5000), size=8):
                damaged[at] = random.integers(256)
        path.write_bytes(damaged)
        sources, refused = open_dicom([path], tmp_path)
        problems += [error.problem for error in refused.values()]
        for source in sources:
            try:
                source.read(0)
                source.mask_bytes(np.zeros((source.count, *source.read(0).pixels.shape), bool))
            except CascadeError as error:
                problems.append(error.problem)
    assert len(problems) >= 30
    assert all(problem.startswith(str(path)) and PLANTED not in problem for problem in problems)


def test_nothing_is_printed_of_a_headers_faults(tmp_path):
    """pydicom warns of them and quotes them."""
    path = write(tmp_path / "a.dcm", image(HEAD[4], PixelData=HEAD[4].tobytes() + b"more"))
    content = path.read_bytes().replace(b"19410203", b"PLANTED?").replace(b"1.2.3.3\0", b"PLANTED\0")
    path.write_bytes(content.replace(TEXTS["StudyTime"].encode(), b"PLANTE"))
    code = (
        "import sys, numpy, pathlib; from cascade.sources.dicom import open_dicom;"
        "path = pathlib.Path(sys.argv[1]);"
        "(source,), _ = open_dicom([path], path.parent, keep_identifiers=True);"
        "source.read(0); source.mask_bytes(numpy.zeros((1, 20, 24), bool)); print(source.mask_suffix)"
    )
    found = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (found.stdout.split(), found.stderr) == ([".png"], "")


def test_reading_needs_no_library_that_only_masks_need():
    code = "import sys, cascade.sources.dicom; print('highdicom' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"]
