"""Make one small valid file of each supported kind, and check the results of a run over damaged ones.

As a program, it runs the stub cascade in a process of its own:

python tests/hostile_files.py FOLDER OUT
"""

from __future__ import annotations

import faulthandler
import gzip
import hashlib
import io
import os
import resource
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from dicom_files import image, multi_frame
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from stub_cascade import cascade_of

from cascade.errors import CascadeError
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

GOOD = "good.png"

ROOT = Path(__file__).parent.parent
MAX_MEMORY = 4 * 2**30
MAX_CPU_SECONDS = 300
MAX_SECONDS = 3000  # the machine may be busy

SIDE = 32
RAMP = np.add.outer(np.arange(SIDE), 2 * np.arange(SIDE)).astype(np.uint8)  # 0 .. 93
RAMP[8:16, 10:20] = 250
HEAD = np.stack([RAMP // 2, RAMP, RAMP[::-1]])

KINDS = (
    "gray.png",
    "deep.png",
    "palette.png",
    "marks.png",
    "alpha.png",
    "deep-color.png",
    "gray.jpg",
    "marks.jpg",
    "gray.tif",
    "deep.tif",
    "float.tif",
    "packed.tif",
    "deep-color.tif",
    "gray.bmp",
    "gray.webp",
    "slice.mat",
    "head.nii",
    "head.nii.gz",
    "raw.dcm",
    "rle.dcm",
    "jpeg.dcm",
    "jpeg2000.dcm",
    "frames.dcm",
    "some.zip",
    "turned.png",
    "turned.jpg",
    "turned.webp",
    "turned.tif",
    "double.tif",
    "half.tif",
    "nan.tif",
    "nan.nii",
    "head.mgh",
    "head.mgz",
    "head.npy",
    "pages.tif",
    "imagej.tif",
)


ORIENTATION = 274
"""Number of the EXIF tag."""


def with_nan(pixels: np.ndarray) -> np.ndarray:
    """Replace the outermost pixels of slices (..., H, W) by NaN."""
    framed = np.full(pixels.shape, np.nan, np.float32)
    framed[..., 2:-2, 2:-2] = pixels[..., 2:-2, 2:-2]
    return framed


TIFF_TYPES = {"double": np.float64, "half": np.float16, "nan": with_nan}
"""Types of samples that Pillow does not write."""


STACKS = {"pages": {"photometric": "minisblack", "compression": "zlib"}, "imagej": {"imagej": True, "truncate": True}}
"""Options of tifffile for files of several images."""


def whole_file(kind: str, number: int = 0) -> bytes:
    """Return the content of a file of this kind. DICOM files of different numbers belong to different series."""
    if kind.endswith(".dcm"):
        return _dicom(kind, number)
    if kind == "some.zip":
        return zipped({"a.png": whole_file("gray.png"), "b/raw.dcm": whole_file("raw.dcm", number)})
    return _other(kind)


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            # A ZipInfo has a fixed date. A member given by name would have the current one, and each zip other bytes.
            archive.writestr(zipfile.ZipInfo(name), member, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def encoded(pixels: np.ndarray, form: str, mode: str = "", **options: object) -> bytes:
    content = io.BytesIO()
    image_ = Image.fromarray(pixels)
    (image_.convert(mode) if mode else image_).save(content, form, **options)
    return content.getvalue()


def nifti(array: np.ndarray, **fields: object) -> bytes:
    """Make a NIfTI file; `fields` replace fields of its header."""
    content = bytearray(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])).to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.binaryblock
    return bytes(content)


def mat(**fields: object) -> bytes:
    """Make a .mat file whose struct cjdata has these fields."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, value in fields.items():
            file[f"cjdata/{name}"] = value
    return content.getvalue()


def dicom(pixels: np.ndarray = RAMP, number: int = 0, **changes: object) -> bytes:
    """Make a DICOM file of a series of its own. A change to None removes the element."""
    content = io.BytesIO()
    dataset = _alone(image(pixels, **{"PixelSpacing": [0.98, 0.98], **changes}), number)
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


@cache
def _other(kind: str) -> bytes:
    name, form = kind.split(".", 1)
    marks = np.stack([RAMP] * 3, axis=-1)
    marks[0] = (250, 120, 0)
    deep = RAMP.astype(np.uint16) * 40
    if form == "mat":
        return mat(image=RAMP.astype(np.int16).T)
    if form in ("nii", "nii.gz"):
        content = nifti(with_nan(HEAD).T) if name == "nan" else nifti(HEAD.T.astype(np.int16))
        return gzip.compress(content, mtime=0) if form == "nii.gz" else content
    if form in ("mgh", "mgz"):
        content = nibabel.MGHImage(HEAD.T.astype(np.int16), np.diag([0.98, 0.98, 5.0, 1.0])).to_bytes()
        return gzip.compress(content, mtime=0) if form == "mgz" else content
    if form == "npy":
        content = io.BytesIO()
        np.save(content, HEAD.astype(np.int16))
        return content.getvalue()
    if name in STACKS:
        content = io.BytesIO()
        tifffile.imwrite(content, HEAD, **STACKS[name])
        return content.getvalue()
    if name == "deep-color":
        import png

        content = io.BytesIO()
        colors = np.stack([deep] * 3, axis=-1)
        if form == "png":
            png.Writer(SIDE, SIDE, greyscale=False, bitdepth=16).write(content, colors.reshape(SIDE, -1).tolist())
        else:
            tifffile.imwrite(content, colors, photometric="rgb")
        return content.getvalue()
    if name in TIFF_TYPES:
        content = io.BytesIO()
        tifffile.imwrite(content, TIFF_TYPES[name](RAMP), compression="zlib" if name == "half" else None)
        return content.getvalue()
    pixels = {"deep": deep, "float": RAMP.astype(np.float32), "marks": marks}.get(name, RAMP)
    mode = {"palette": "P", "alpha": "RGBA"}.get(name, "")
    options = {"compression": "tiff_lzw"} if name == "packed" else {"lossless": True} if form == "webp" else {}
    if name == "turned":
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = 6
    return encoded(pixels, {"jpg": "JPEG", "tif": "TIFF"}.get(form, form.upper()), mode, **options)


def _dicom(kind: str, number: int) -> bytes:
    if kind == "frames.dcm":
        frames = HEAD[[0, 1, 2, 0, 1, 2]].astype(np.uint16)
        dataset = multi_frame(frames, frame_groups=_at_a_millimeter)
        content = io.BytesIO()
        _alone(dataset, number).save_as(content, enforce_file_format=True)
        return content.getvalue()
    if kind == "raw.dcm":
        return dicom(RAMP.astype(np.uint16) * 2, number)
    dataset = _alone(image(RAMP, PixelSpacing=[0.98, 0.98]), number)
    if kind == "rle.dcm":
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    else:
        form, syntax = {"jpeg.dcm": ("JPEG", JPEGBaseline8Bit), "jpeg2000.dcm": ("JPEG2000", JPEG2000Lossless)}[kind]
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([encoded(RAMP, form, **({"no_jp2": True} if form == "JPEG2000" else {}))])
        dataset["PixelData"].is_undefined_length = True
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _at_a_millimeter(frame: int) -> dict[str, dict[str, object]]:
    return {"PixelMeasuresSequence": {"PixelSpacing": [0.98, 0.98], "SliceThickness": 2.5}}


def _alone(dataset, number: int):
    """Give a data set UIDs that flipped bits do not turn into those of another number."""
    digits = str(int(hashlib.sha256(str(number).encode()).hexdigest()[:16], 16)).zfill(20)
    dataset.SeriesInstanceUID = f"1.2.3.2{digits}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4{digits}"
    return dataset


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / GOOD).write_bytes(whole_file("gray.png"))
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files_below(folder):
    """Return the relative paths of all files and links."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def check_left(out, rows):
    """Check that the files of inputs are exactly those of the rows, and no partial file is left."""
    keys = ("mask", "probability_map", "overlay", "secondary_capture")
    named = {Path(row[key]) for row in rows for key in keys if row[key]}
    written = files_below(out)
    assert named == {path for path in written if len(path.parts) > 1}
    assert not [path for path in written if path.name.startswith(".writing-")]


def run_alone(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run with limits of memory and time, and with temporary files in `out`.tmp only."""
    temporary = out.with_suffix(".tmp")
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)


def main() -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    try:
        run = predict_paths(cascade_of(), [Path(sys.argv[1])], Path(sys.argv[2]), RunOptions(batch_size=16))
    except CascadeError as error:
        print(error)
        sys.exit(1)
    sys.exit(run.exit_code)


if __name__ == "__main__":
    main()
