"""What the tests share: small real files in figshare's layout, and backends that compute nothing."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE, SLICE_SIZE, Box

HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b" " * 8 + b"\x00\x02IM"

WriteMat = Callable[..., Path]

WHOLE = Box(0, 0, SLICE_SIZE, SLICE_SIZE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutations", type=int, default=2000, help="damaged files that test_fuzz.py makes")


def pytest_collection_finish() -> None:
    """Exclude all modules imported so far from garbage collection, which would search them again in every test."""
    gc.collect()
    gc.freeze()


def _write_mat(
    path: Path,
    pixels: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    label: float = 1.0,
    patient: str = "100360",
) -> Path:
    """A MATLAB v7.3 file as figshare's; by default a 20 x 30 slice of 0 to 599, its tumor in rows 2-4, columns 5-11."""
    if pixels is None:
        pixels = np.arange(600, dtype=np.int16).reshape(20, 30)
    if mask is None:
        mask = np.zeros(np.shape(pixels)[:2], np.uint8)
        mask[2:5, 5:12] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        fields = file.create_group("cjdata")
        fields.attrs["MATLAB_class"] = np.bytes_("struct")
        fields["PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
        fields["label"] = np.array([[float(label)]])
        fields["image"] = np.asarray(pixels).T  # MATLAB stores columns first
        fields["tumorMask"] = np.asarray(mask).T
        fields["tumorBorder"] = np.array([[5.0, 2.0, 11.0, 2.0, 11.0, 4.0, 5.0, 4.0]])
    with path.open("r+b") as file:
        file.write(HEADER)
    return path


@pytest.fixture(scope="session")
def write_mat() -> WriteMat:
    """write_mat(path, pixels, mask, label, patient) → path; all but the path have defaults."""
    return _write_mat


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """Folder with two small graphs: pixels much brighter than the others are tumor, and every tumor is a glioma."""
    from tiny_models import classifier_of_glioma, segmenter_of_brightness, write_models

    folder = tmp_path_factory.mktemp("models")
    return write_models(folder, segmenter=segmenter_of_brightness(), classifier=classifier_of_glioma())


class ConstantSegmenter:
    """Gives every pixel one probability, or only those of `box`, edges in pixels of the square; counts the slices."""

    def __init__(self, probability: float, box: Box = WHOLE) -> None:
        self.probability, self.box, self.slices_seen = probability, box, 0

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        assert set(inputs) == {SLICE}
        squares = inputs[SLICE]
        assert squares.dtype == np.float32
        assert squares.shape[1:] == (1, SLICE_SIZE, SLICE_SIZE)
        self.slices_seen += len(squares)
        probability = np.zeros_like(squares)
        left, top, right, bottom = (int(edge) for edge in self.box)
        probability[:, :, top:bottom, left:right] = self.probability
        return {PROBABILITY: probability}


class ConstantClassifier:
    """Gives every slice the same probabilities and box; counts the slices."""

    def __init__(self, probabilities: tuple[float, float, float], box: Box) -> None:
        self.probabilities, self.box, self.slices_seen = probabilities, box, 0

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        assert set(inputs) == {SLICE, PROBABILITY}
        count = len(inputs[SLICE])
        assert len(inputs[PROBABILITY]) == count
        self.slices_seen += count
        return {
            CLASS_PROBABILITY: np.tile(np.float32(self.probabilities), (count, 1)),
            BOX: np.tile(np.float32(self.box), (count, 1)),
        }


class ForbiddenBackend:
    """Fails the test that runs it."""

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        pytest.fail("this backend must not be run")


@pytest.fixture
def permissions(tmp_path_factory):
    """For tests of files that may not be read or written: skips where permissions have no effect."""
    closed = tmp_path_factory.mktemp("closed") / "file"
    closed.touch(mode=0)
    if os.access(closed, os.R_OK):
        pytest.skip("root may read and write everything, and Windows knows no such permissions")


@pytest.fixture(scope="session")
def tensorrt():
    """The module of TensorRT-RTX, which builds engines on machines without a GPU."""
    return pytest.importorskip("tensorrt_rtx", reason="pip install 'cascade-mri[build]'")


@pytest.fixture
def constant_segmenter() -> type[ConstantSegmenter]:
    return ConstantSegmenter


@pytest.fixture
def constant_classifier() -> type[ConstantClassifier]:
    return ConstantClassifier


@pytest.fixture
def forbidden() -> ForbiddenBackend:
    return ForbiddenBackend()
