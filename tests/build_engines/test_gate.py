"""The accuracy gate lets through what finds the same masks and classes, and nothing else."""

import numpy as np
import pytest
from PIL import Image

from build_engines.check_slices import CheckSlices, drawn_check_slices, read_check_slices
from build_engines.gate import find_reference, pass_gate, run_in_batches
from cascade.contract import PROBABILITY, SLICE, SLICE_SIZE, Box
from cascade.errors import CascadeError
from cascade.runtime.engines import Batches

TUMOR = Box(100, 100, 200, 200)  # 10,000 pixels
GLIOMA = (0.2, 0.7, 0.1)


@pytest.fixture
def slices():
    return CheckSlices(np.zeros((3, 1, SLICE_SIZE, SLICE_SIZE), np.float32), "3 empty slices")


@pytest.fixture
def reference(slices, constant_segmenter, constant_classifier):
    return find_reference(slices, constant_segmenter(0.9, TUMOR), constant_classifier(GLIOMA, TUMOR))


def test_the_same_masks_pass(reference, constant_segmenter):
    verified = pass_gate("segmenter", constant_segmenter(0.6, TUMOR), "engine", reference, Batches())
    assert (verified.ran, verified.source, verified.slices) == ("engine", "3 empty slices", 3)
    assert verified.results["min_dice"] == 1
    assert verified.results["probability_difference"] == pytest.approx(0.3)
    assert verified.limits == {"min_dice": 0.95, "min_mean_dice": 0.99}


def test_masks_that_differ_by_a_row_in_fifty_pass_not(reference, constant_segmenter):
    """2 * 9800 / (10000 + 9800) is 0.9899."""
    shorter = constant_segmenter(0.9, TUMOR._replace(bottom=198))
    with pytest.raises(CascadeError, match=r"min_mean_dice is 0\.9899, limit 0\.99"):
        pass_gate("segmenter", shorter, "engine", reference, Batches())


def test_nan_passes_not(reference, constant_segmenter):
    with pytest.raises(CascadeError, match="min_dice is nan"):
        pass_gate("segmenter", constant_segmenter(np.nan), "engine", reference, Batches())


def test_the_same_classes_and_boxes_pass(reference, constant_classifier):
    verified = pass_gate("classifier", constant_classifier((0.21, 0.69, 0.1), TUMOR), "engine", reference, Batches())
    assert verified.results["class_probability_difference"] == pytest.approx(0.01)
    assert verified.results["box_difference_pixels"] == 0


@pytest.mark.parametrize(
    ("probabilities", "box", "problem"),
    [
        ((0.7, 0.2, 0.1), TUMOR, "min_class_agreement is 0, limit 1"),
        ((0.23, 0.67, 0.1), TUMOR, r"class_probability_difference is 0\.03, limit 0\.02"),
        ((np.nan, np.nan, np.nan), TUMOR, "class_probability_difference is nan"),
        (GLIOMA, TUMOR._replace(left=100.5), r"box_difference_pixels is 0\.5, limit 0\.01"),
    ],
)
def test_other_classes_or_boxes_pass_not(reference, constant_classifier, probabilities, box, problem):
    with pytest.raises(CascadeError, match=problem):
        pass_gate("classifier", constant_classifier(probabilities, box), "engine", reference, Batches())


def test_a_tie_may_fall_either_way(slices, constant_segmenter, constant_classifier):
    tie = find_reference(slices, constant_segmenter(0.9, TUMOR), constant_classifier((0.449, 0.451, 0.1), TUMOR))
    other = constant_classifier((0.451, 0.449, 0.1), TUMOR)
    assert pass_gate("classifier", other, "engine", tie, Batches()).results["min_class_agreement"] == 1


def test_slices_without_a_tumor_cannot_check_anything(slices, constant_segmenter, forbidden):
    with pytest.raises(CascadeError, match="find no tumor in the 3 empty slices") as error:
        find_reference(slices, constant_segmenter(0.1), forbidden)
    assert "--verify-slices" in error.value.fix


class Recorder:
    """Gives back its slices, and keeps how many there were in each run."""

    def __init__(self):
        self.sizes = []

    def run(self, **inputs):
        self.sizes.append(len(inputs[SLICE]))
        return {PROBABILITY: inputs[SLICE]}


@pytest.mark.parametrize(
    ("batches", "sizes"),
    [
        (Batches(1, 8, 64), [8, 8]),
        (Batches(4, 4, 4), [4, 4, 4]),
        (Batches(16, 16, 32), [16]),
        (Batches(1, 1, 1), [1] * 9),
    ],
)
def test_runs_keep_to_the_profile_whatever_the_number_of_slices(batches, sizes):
    recorder, slices = Recorder(), np.arange(9, dtype=np.float32)
    assert run_in_batches(recorder, batches, slice=slices)[PROBABILITY].tolist() == slices.tolist()
    assert recorder.sizes == sizes


def test_slices_of_a_folder_are_read_in_the_order_of_their_names(tmp_path):
    for name, grey in (("b", 50), ("a", 20)):
        pixels = np.full((64, 64), grey, np.uint8)
        pixels[0, 0] = 0
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    found = read_check_slices([tmp_path])
    assert found.squares[:, 0, 256, 256].tolist() == [20, 50]
    assert found.source == "2 of 2 slices given by --verify-slices"


def test_one_unreadable_slice_ends_the_check(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(CascadeError, match=r"broken\.png"):
        read_check_slices([tmp_path])


def test_drawn_slices_are_the_same_every_time():
    first, second = drawn_check_slices(), drawn_check_slices()
    assert first.squares.shape == (12, 1, SLICE_SIZE, SLICE_SIZE)
    assert first.sha256 == second.sha256
