"""Pixels of DICOM files in all encodings, valid and damaged."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom.pixels.decoders
import pytest
from dicom_files import (
    HEAD,
    OBLIQUE,
    PLANTED,
    SPACING,
    compressed,
    groups,
    image,
    multi_frame,
    opened,
    refusal,
    series,
    write,
)
from PIL import Image
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from cascade.errors import CascadeError
from cascade.io.dicom.series import open_dicom
from cascade.io.slices import BlankSlice


def test_a_multi_frame_file_is_loaded_once_and_freed_by_close(tmp_path):
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
        sums = list(pool.map(lambda index: source.read(index % 6).pixels.sum(), range(96)))
    assert sums == [source.read(index % 6).pixels.sum() for index in range(96)]


def test_slope_and_intercept_are_applied_and_the_display_window_is_not(tmp_path):
    dataset = image(HEAD[4], RescaleSlope=0.5, RescaleIntercept=-10, WindowCenter=40, WindowWidth=2)
    assert (
        opened([write(tmp_path / "a.dcm", dataset)], tmp_path).read(0).pixels.tolist() == (HEAD[4] * 0.5 - 10).tolist()
    )


def test_images_whose_high_values_are_dark_are_inverted(tmp_path):
    dataset = image(HEAD[4], PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    assert (
        opened([write(tmp_path / "a.dcm", dataset)], tmp_path).read(0).pixels.tolist()
        == (4095 - HEAD[4].astype(int)).tolist()
    )
    signed = image(HEAD[4].astype(np.int16) - 500, PhotometricInterpretation="MONOCHROME1")
    pixels = opened([write(tmp_path / "b.dcm", signed)], tmp_path).read(0).pixels
    assert pixels.tolist() == (499 - HEAD[4].astype(int)).tolist()


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
def test_a_data_set_without_preamble_is_read(tmp_path, implicit):
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
    _, problems, _ = open_dicom([path], tmp_path)
    assert problems[path].fix == "pip install 'cascade-mri[compressed]'"


@pytest.mark.parametrize("kind", ["jpeg 2000", "jpeg"])
def test_a_frame_that_decodes_to_gigabytes_is_refused_before_it_is_decoded(tmp_path, kind):
    if kind == "jpeg 2000":
        frame = bytearray(jpeg_2000(HEAD[4]))
        struct.pack_into(">2I", frame, 8, 60_000, 60_000)
        path = write(tmp_path / "a.dcm", compressed(image(HEAD[4]), JPEG2000Lossless, [bytes(frame)]))
    else:
        content = io.BytesIO()
        Image.fromarray(HEAD[4].astype(np.uint8)).save(content, "JPEG")
        frame = content.getvalue().replace(struct.pack(">HH", 20, 24), b"\xff\xff\xff\xff")
        path = write(tmp_path / "a.dcm", compressed(image(HEAD[4].astype(np.uint8)), JPEGBaseline8Bit, [frame]))
    assert "another size" in refusal(path)


def test_run_lengths_longer_than_the_pixels_are_refused_before_they_are_decoded(tmp_path):
    """Two bytes may decode to 128."""
    frame = struct.pack("<16I", 2, 64, 2**19, *[0] * 13) + b"\x81\x07" * 2**19
    path = write(tmp_path / "a.dcm", compressed(image(HEAD[4]), RLELossless, [frame]))
    assert "more space than uncompressed" in refusal(path)


@pytest.mark.filterwarnings("error")
def test_damaged_run_lengths_do_not_end_the_run(tmp_path):
    """The decoder of pylibjpeg panics on a run beyond the end of its segment, which no handler can catch."""
    dataset = image(HEAD[4])
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    path = write(tmp_path / "a.dcm", dataset)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<2I", 2, 64)) + 64] = (
        127  # at the beginning of the first segment: copy 128 bytes
    )
    path.write_bytes(content)
    assert opened([path], tmp_path).read(0).pixels.shape == (20, 24)


def test_a_blank_slice_raises_another_error_than_a_damaged_one(tmp_path):
    blank = HEAD.copy()
    blank[0] = 7
    source = opened(series(tmp_path / "scan", blank), tmp_path)
    with pytest.raises(BlankSlice, match="IM0006: every pixel"):
        source.read(0)
    assert source.read(1).pixels.max() > 7


def test_a_file_that_changed_since_it_was_opened_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", image(HEAD[4]))
    source = opened([path], tmp_path)
    write(path, image(HEAD[4].T.copy()))
    with pytest.raises(CascadeError, match="has changed"):
        source.read(0)


@pytest.mark.filterwarnings("error")
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
        sources, refused, _ = open_dicom([path], tmp_path)
        problems += [error.problem for error in refused.values()]
        for source in sources:
            try:
                source.read(0)
                source.mask_bytes(np.zeros((source.count, *source.read(0).pixels.shape), bool))
            except CascadeError as error:
                problems.append(error.problem)
    assert len(problems) >= 30
    assert all(problem.startswith(str(path)) and PLANTED not in problem for problem in problems)


def test_padding_of_12_signed_bits_is_recognized_though_the_bits_above_are_0(tmp_path):
    values = np.clip(HEAD[4].astype(int), 0, 2000)
    values[:3, :5] = -2000
    dataset = image((values & 0xFFF).astype(np.uint16), BitsStored=12, HighBit=11, PixelRepresentation=1)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    expected = values.astype(np.float32)
    expected[:3, :5] = values[values > -2000].min()
    assert opened([write(tmp_path / "a.dcm", dataset)], tmp_path).read(0).pixels.tolist() == expected.tolist()


def test_float_pixels_are_rescaled(tmp_path):
    values = (HEAD[4] / np.float32(8)).astype("<f4")
    absent = dict.fromkeys(("PixelData", "BitsStored", "HighBit", "PixelRepresentation"))
    present = {"FloatPixelData": values.tobytes(), "BitsAllocated": 32, "RescaleSlope": 0.5, "RescaleIntercept": -10}
    path = write(tmp_path / "a.dcm", image(HEAD[4], **absent, **present))
    assert opened([path], tmp_path).read(0).pixels.tolist() == (values * 0.5 - 10).tolist()


@pytest.mark.parametrize("high_bit", [0, 10, 16, None])
def test_an_impossible_high_bit_is_ignored(tmp_path, high_bit):
    values = np.clip(HEAD[4], 0, 4095).astype(np.uint16)
    path = write(tmp_path / "a.dcm", image(values, BitsStored=12, HighBit=high_bit))
    assert opened([path], tmp_path).read(0).pixels.tolist() == values.tolist()


def test_a_truncated_slice_stays_in_its_series_and_fails_alone(tmp_path):
    """The series had a finding without it, as if it were complete."""
    paths = series(tmp_path / "scan")
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[: len(content) - 500])
    source = opened(paths, tmp_path)
    assert source.count == 6
    with pytest.raises(CascadeError, match=f"{paths[2].name}: .*(shorter than its header declares|cannot be read)"):
        source.read(2)
    assert source.read(3).pixels.tolist() == HEAD[3].tolist()
