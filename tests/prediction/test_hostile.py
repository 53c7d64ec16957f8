"""Files whose headers are false: each gets a row with the reason, and the others are predicted."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest
import tifffile
from hostile_files import (
    GOOD,
    HEAD,
    KINDS,
    RAMP,
    ROOT,
    check_left,
    dicom,
    encoded,
    mat,
    nifti,
    put,
    run_alone,
    whole_file,
    zipped,
)
from hostile_files import out as out
from hostile_files import scans as scans
from stub_cascade import cascade_of, rows_of
from tiny_models import write_models

from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

QUICK = RunOptions(report=False)


def declared_png(width, height):
    """A PNG whose header declares this size, without the pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def float_tiff(value):
    pixels = RAMP.astype(np.float32)
    pixels[3, 4] = value
    return encoded(pixels, "TIFF")


def hole_in(pixels):
    """Make a quarter of the slices (..., H, W) NaN, in their middle."""
    pixels = pixels.astype(np.float32)
    pixels[..., 8:24, 8:24] = np.nan
    return pixels


def tiff(pixels, **options):
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, **options)
    return content.getvalue()


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def mat_file(write):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write(file)
    return content.getvalue()


def of_nowhere(file):
    file.create_dataset("cjdata/image", (10**6, 10**6), np.uint8, chunks=(64, 64))


def of_passwords(file):
    file.create_dataset("cjdata/image", (20, 20), np.uint8, external=[("/etc/passwd", 0, 400)])


def of_another_file(file):
    file["cjdata/image"] = h5py.ExternalLink("/etc/passwd", "image")


def of_a_circle(file):
    file["cjdata/image"] = h5py.SoftLink("/cjdata/image")


def half(content):
    return content[: len(content) // 2]


def photo():
    red, green = np.meshgrid(np.arange(0, 240, 5), np.arange(0, 240, 5))
    return np.stack([red, green, 239 - red], axis=-1).astype(np.uint8)


DAMAGED = "truncated, damaged"
NO_PICTURE = "cannot be read as an image"
NO_MAT = "cannot be read as a MATLAB"
LIES = {
    **{f"empty/{kind}": (lambda: b"", "") for kind in KINDS},
    **{f"half/{kind}": (lambda kind=kind: half(whole_file(kind, 100 + KINDS.index(kind))), "") for kind in KINDS},
    "nan-somewhere.tif": (lambda: float_tiff(np.nan), None),
    "nan-in-head.tif": (lambda: encoded(hole_in(RAMP), "TIFF"), "of the head contains NaN"),
    "infinite.tif": (lambda: float_tiff(np.inf), "NaN or infinite"),
    "nan.mat": (lambda: mat(image=hole_in(RAMP)), "of the head contains NaN"),
    "beyond-float32.mat": (lambda: mat(image=np.where(RAMP == 7, 1e300, RAMP)), "NaN or infinite"),
    "nan-in-head.nii": (lambda: nifti(hole_in(HEAD).T), "of the head contains NaN"),
    "infinite.nii": (lambda: nifti(np.where(HEAD == 7, np.inf, HEAD).T.astype(np.float32)), "NaN or infinite"),
    "beyond-float32.nii": (lambda: nifti(HEAD.T.astype(np.int16), scl_slope=3e38, scl_inter=1), "NaN or infinite"),
    "fill.tif": (lambda: float_tiff(-3e38), "not plausible for MRI"),
    "black.png": (lambda: encoded(0 * RAMP, "PNG"), "every pixel has the same value"),
    "constant.dcm": (lambda: dicom(0 * RAMP + 9, 1), "every pixel has the same value"),
    "dot.png": (lambda: encoded(RAMP[:1, :1], "PNG"), "too small"),
    "thread.png": (lambda: encoded(np.zeros((1, 20_000), np.uint8), "PNG"), "too small"),
    "wire.png": (lambda: encoded(np.zeros((20_000, 1), np.uint8), "PNG"), "too small"),
    "bomb.png": (lambda: declared_png(100_000, 100_000), "larger than an MRI slice"),
    "large.png": (lambda: declared_png(5000, 5000), "too large for an MRI slice"),
    "bomb.nii.gz": (
        lambda: gzip.compress(nifti(HEAD.T, dim=[3, 30_000, 30_000, 30_000, 1, 1, 1, 1])),
        "too large for an MRI",
    ),
    "bomb.dcm": (lambda: dicom(number=2, Rows=65_535, Columns=65_535), "too large for an MRI"),
    "bomb.mat": (lambda: mat_file(of_nowhere), "1,000,000,000,000 elements"),
    "bomb.zip": (lambda: zipped({"zeros.png": bytes(2**24 + 1)}), "unpacks to more than"),
    "slip.zip": (lambda: zipped({"../../slipped.png": whole_file("gray.png")}), "leads out of the archive"),
    "time.tif": (lambda: tiff(HEAD, truncate=True, imagej=True, metadata={"axes": "TYX"}), "time points"),
    "channels.tif": (lambda: tiff(HEAD, photometric="minisblack", metadata={"axes": "CYX"}), "channels"),
    "short-stack.tif": (lambda: tiff(HEAD, truncate=True, imagej=True)[:-2000], DAMAGED),
    "bomb.npy": (lambda: npy(HEAD).replace(b"(3, 32, 32)", b"(9, 9**9)  "), DAMAGED),
    "large.npy": (lambda: npy(HEAD).replace(b"(3, 32, 32), }", b"(99999,99999)}"), "too large for an MRI"),
    "half.npy": (lambda: npy(HEAD).replace(b"(3, 32, 32)", b"(5, 32, 32)"), "shorter"),
    "objects.npy": (lambda: npy(HEAD.astype(object)), "dtype object"),
    "bomb.mgz": (
        lambda: gzip.compress(struct.pack(">7i", 1, 30_000, 30_000, 30_000, 1, 0, 0) + bytes(300)),
        "too large",
    ),
    "version.mgh": (lambda: bytes(3) + b"\2" + whole_file("head.mgh")[4:], DAMAGED),
    "header/alone.hdr": (lambda: nifti(HEAD.T), "lacks alone.img"),
    "voxels/alone.img": (lambda: HEAD.tobytes(), "lacks alone.hdr"),
    "complex.tif": (lambda: tiff(RAMP.astype(np.complex64)), "COMPLEXIEEEFP"),
    "annex.png": (lambda: b"/annex/objects/SHA256E-s9--ab.png\n", "datalad get"),
    "lfs.nii.gz": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git lfs pull"),
    "lfs.dcm": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git lfs pull"),
    "object.mat": (lambda: mat(image=np.array([[0xDD000000, 2, 1]], np.uint32)), "MATLAB object"),
    "photo.png": (lambda: encoded(photo(), "PNG"), "in color"),
    "no-field.mat": (lambda: mat(label=1.0), "has no field"),
    "text.mat": (lambda: mat(image="a text"), NO_MAT),
    "group.mat": (lambda: mat(**{"image/image": RAMP}), NO_MAT),
    "pairs.mat": (lambda: mat(image=np.zeros((20, 20), dtype=[("a", "u1"), ("b", "f4")])), NO_MAT),
    "struct.mat": (lambda: mat_file(lambda file: file.create_dataset("cjdata", data=RAMP)), NO_MAT),
    "shuffled.mat": (lambda: mat(image=[[1.0]], label=RAMP), "too small"),
    "flat.mat": (lambda: mat(image=np.arange(400)), "is not 2-D"),
    "volume.mat": (lambda: mat(image=HEAD), "is not 2-D"),
    "passwords.mat": (lambda: mat_file(of_passwords), "stored in another file"),
    "another-file.mat": (lambda: mat_file(of_another_file), "stored in another file"),
    "circle.mat": (lambda: mat_file(of_a_circle), NO_MAT),
    "old.mat": (lambda: b"MATLAB 5.0 MAT-file".ljust(600), "before v7.3"),
    "frames.dcm": (lambda: dicom(number=3, NumberOfFrames="1000000000"), "too large for an MRI"),
    "bits.dcm": (lambda: dicom(number=4, BitsAllocated=7), "does not describe its pixels"),
    "stored.dcm": (lambda: dicom(number=5, BitsStored=40), "pixels cannot be read"),
    "slope.dcm": (lambda: dicom(number=6, RescaleSlope="1e300", RescaleIntercept="0"), None),
    "no-slope.dcm": (lambda: dicom(number=7, RescaleSlope="0", RescaleIntercept="0"), None),
    "far.dcm": (lambda: dicom(number=8, ImagePositionPatient=["1e308"] * 3), None),
    "flat.dcm": (lambda: dicom(number=9, ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), None),
    "metres.dcm": (lambda: dicom(number=10, PixelSpacing=["0.00098"] * 2), None),
    "wide.dcm": (lambda: dicom(number=11, PixelSpacing=["1e10", "1e-10"]), None),
    "color.dcm": (lambda: dicom(number=12, PhotometricInterpretation="PALETTE COLOR"), "contains color"),
    "other.dcm": (lambda: dicom(number=13, Modality="CT"), "not MR"),
    "series/number": (lambda: dicom(number=14, InstanceNumber="99999999999"), None),
    "metres.nii": (
        lambda: nifti(HEAD.T, pixdim=[1, 0.00098, 0.00098, 0.005, 1, 1, 1, 1], sform_code=0),
        "size of a head",
    ),
    "no-axes.nii": (lambda: nifti(HEAD.T, dim=[9, 32, 32, 3, 1, 1, 1, 1]), "9 axes"),
    "negative.nii": (lambda: nifti(HEAD.T, dim=[3, -32, 32, 3, 1, 1, 1, 1]), "without voxels"),
    "type.nii": (lambda: nifti(HEAD.T, datatype=1234), DAMAGED),
    "place.nii": (lambda: nifti(HEAD.T, srow_x=[np.nan] * 4), None),
    "renamed.nii": (lambda: whole_file("gray.png"), None),
    "text.nii": (lambda: b"no volume", "does not begin like a NIfTI"),
    "renamed.png": (lambda: whole_file("raw.dcm"), None),
    "renamed.dcm": (lambda: whole_file("gray.png"), None),
    "text.dcm": (lambda: b"no image", "does not begin like a DICOM"),
}
"""By name, a file's content and what is said of it; None where it is done after all."""


@pytest.fixture(scope="module")
def lies(tmp_path_factory):
    """A folder with all hostile files, and an image in a folder named like an image."""
    folder = tmp_path_factory.mktemp("lies") / "scans"
    for name, (content, _) in LIES.items():
        put(folder / name, content())
    for name in (GOOD, "folder.png/good.nii.gz"):
        put(folder / name, whole_file("head.nii.gz" if name.endswith("gz") else "gray.png"))
    for name in ("loop.png", "loop"):
        (folder / name).symlink_to(folder / name)
    return folder


@pytest.fixture(scope="module")
def rows_of_lies(lies):
    ended = run_alone(lies, lies.parent / "out")
    assert (ended.returncode, ended.stderr) == (2, "")
    return rows_of(lies.parent / "out")


@pytest.mark.parametrize("name", [name for name, (_, problem) in LIES.items() if problem is not None])
def test_a_hostile_file_has_a_row_with_problem_and_fix(rows_of_lies, name):
    problem = LIES[name][1]
    rows = [row for row in rows_of_lies if row["slice"].startswith(name)]
    failed = [row for row in rows if row["status"] == "error"]
    assert failed
    for row in failed:
        assert problem in f"{row['problem']} {row['fix']}"
        assert name in row["problem"]
        assert row["fix"]
        assert row["mask"] is row["overlay"] is row["class"] is row["mask_pixels"] is None


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("slope.dcm", "RescaleSlope"),
        ("no-slope.dcm", "RescaleSlope"),
        ("far.dcm", "ImagePositionPatient"),
        ("flat.dcm", "ImageOrientationPatient"),
        ("metres.dcm", "PixelSpacing"),
        ("wide.dcm", "PixelSpacing"),
    ],
)
def test_an_impossible_value_in_a_dicom_header_is_noted_and_the_slice_is_done(rows_of_lies, name, keyword):
    (row,) = [row for row in rows_of_lies if row["slice"] == name]
    assert row["status"] != "error"
    assert f"invalid {keyword}" in row["notes"]


def test_a_dicom_file_with_the_name_of_a_picture_is_done(rows_of_lies):
    (row,) = [row for row in rows_of_lies if row["slice"] == "renamed.png"]
    assert row["status"] != "error"


def test_hostile_files_do_not_stop_the_others_and_leave_no_other_files(rows_of_lies, lies):
    done = {row["slice"]: row["status"] for row in rows_of_lies if row["status"] != "error"}
    assert done[GOOD] == done["folder.png/good.nii.gz/1"] == done["series/number"] == "tumor"
    assert done["nan-somewhere.tif"] == done["place.nii/1"] == done["renamed.nii"] == done["renamed.dcm"] == "tumor"
    check_left(lies.parent / "out", rows_of_lies)
    assert sorted(path.name for path in lies.parent.iterdir()) == ["out", "out.tmp", "scans"]
    assert not list((lies.parent / "out.tmp").iterdir())
    assert not [path for path in lies.parent.parent.rglob("slipped.png")]


def test_circular_links_are_reported_by_name(rows_of_lies):
    (row,) = [row for row in rows_of_lies if row["slice"] == "loop.png"]
    assert "broken link" in row["problem"]


def test_the_command_reports_hostile_files_without_tracebacks_or_control_characters(scans, tmp_path, out):
    """The user sees neither tracebacks nor warnings of libraries, and no name contains control characters."""
    for kind in KINDS:
        put(scans / kind, half(whole_file(kind)))
    put(scans / "!\x1b[2J\u202e.png", b"")
    models = write_models(tmp_path / "models")
    command = [sys.executable, "-m", "cascade", "predict", str(scans), "--out", str(out), "--models", str(models)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([*command, "--backend", "onnxruntime"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "failed: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr
    assert "\x1b" not in ended.stderr
    assert "!\\x1b[2J\\u202e.png" in ended.stderr


def test_a_volume_is_never_decompressed_beyond_its_declared_size(scans, out):
    bomb = gzip.compress(nifti(HEAD.T.astype(np.int16)), 1) + gzip.compress(bytes(2**28), 1)
    put(scans / "bomb.nii.gz", bomb)
    assert predict_paths(cascade_of(), [scans], out, QUICK).exit_code == 0
    assert len(rows_of(out)) == 4


@pytest.mark.usefixtures("permissions")
@pytest.mark.parametrize("name", ["a.png", "a.nii", "a.mat", "a.dcm", "a.zip"])
def test_a_file_without_read_permission_is_reported_by_name(scans, out, name):
    path = put(scans / name, whole_file("gray.png"))
    path.chmod(0)
    assert predict_paths(cascade_of(), [scans], out, QUICK).exit_code == 2
    (row,) = [row for row in rows_of(out) if row["status"] == "error"]
    assert "permission" in f"{row['problem']} {row['fix']}"


def test_colored_marks_and_gray_stored_as_color_are_accepted(scans, out):
    for kind in ("marks.png", "marks.jpg", "alpha.png", "palette.png", "deep-color.tif"):
        put(scans / kind, whole_file(kind))
    assert predict_paths(cascade_of(), [scans], out, QUICK).exit_code == 0
