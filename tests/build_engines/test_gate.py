"""The accuracy gate accepts engines that produce the same masks and classes, and rejects all others."""

import numpy as np
import onnx
import pytest
from PIL import Image

from build_engines.check_slices import SIMULATED, CheckSlices, read_check_slices, simulated_check_slices
from build_engines.gate import check_accuracy, compute_reference, run_in_batches
from cascade.contract import PROBABILITY, SLICE, SLICE_SIZE, Box
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER, find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from cascade.runtime.sidecar import BatchProfile

TUMOR = Box(100, 100, 200, 200)  # 10,000 pixels
GLIOMA = (0.2, 0.7, 0.1)


@pytest.fixture
def slices():
    return CheckSlices(np.zeros((3, 1, SLICE_SIZE, SLICE_SIZE), np.float32), "3 empty slices")


@pytest.fixture
def reference(slices, constant_segmenter, constant_classifier):
    return compute_reference(slices, constant_segmenter(0.9, TUMOR), constant_classifier(GLIOMA, TUMOR))


def test_the_same_masks_pass(reference, constant_segmenter):
    verified = check_accuracy("segmenter", constant_segmenter(0.88, TUMOR), "engine", reference, BatchProfile())
    assert (verified.ran, verified.source, verified.slices) == ("engine", "3 empty slices", 3)
    assert verified.results["min_dice"] == 1
    assert verified.results["detection_difference"] == pytest.approx(0.02)
    assert verified.limits == {"min_dice": 0.95, "min_mean_dice": 0.99, "detection_difference": 0.05}


def test_masks_that_differ_by_one_row_in_fifty_are_rejected(reference, constant_segmenter):
    """2 * 9800 / (10000 + 9800) is 0.9899."""
    shorter = constant_segmenter(0.9, TUMOR._replace(bottom=198))
    with pytest.raises(CascadeError, match=r"min_mean_dice is 0\.9899, limit 0\.99"):
        check_accuracy("segmenter", shorter, "engine", reference, BatchProfile())


class OneShorter:
    """The mask of the first slice has 90 of its 100 rows; all others are whole."""

    def __init__(self, segmenter):
        self.segmenter = segmenter

    def run(self, **inputs):
        output = self.segmenter.run(**inputs)[PROBABILITY]
        if self.segmenter.slices_seen <= len(output):
            output[0, :, TUMOR.bottom - 10 :] = 0
        return {PROBABILITY: output}


def test_one_bad_mask_among_many_is_rejected(constant_segmenter, constant_classifier):
    """2 * 9000 / (10000 + 9000) is 0.9474, and the mean over 16 slices 0.9967."""
    many = CheckSlices(np.zeros((16, 1, SLICE_SIZE, SLICE_SIZE), np.float32), "16 empty slices")
    reference = compute_reference(many, constant_segmenter(0.9, TUMOR), constant_classifier(GLIOMA, TUMOR))
    with pytest.raises(CascadeError, match=r"min_dice is 0\.9474, limit 0\.95"):
        check_accuracy("segmenter", OneShorter(constant_segmenter(0.9, TUMOR)), "engine", reference, BatchProfile())


class OneEmpty:
    """The first slice of three has an empty mask."""

    def __init__(self, segmenter):
        self.segmenter = segmenter

    def run(self, **inputs):
        output = self.segmenter.run(**inputs)[PROBABILITY]
        output[::3] = 0  # slices 3 to 5 of a batch repeat them
        return {PROBABILITY: output}


def test_two_empty_masks_are_the_same(slices, constant_segmenter, constant_classifier):
    segmenter = OneEmpty(constant_segmenter(0.9, TUMOR))
    reference = compute_reference(slices, segmenter, constant_classifier(GLIOMA, TUMOR))
    assert check_accuracy("segmenter", segmenter, "engine", reference, BatchProfile()).results["min_dice"] == 1


def test_nan_is_rejected(reference, constant_segmenter):
    with pytest.raises(CascadeError, match="min_dice is nan"):
        check_accuracy("segmenter", constant_segmenter(np.nan), "engine", reference, BatchProfile())


def test_the_same_classes_and_boxes_pass(reference, constant_classifier):
    verified = check_accuracy(
        "classifier", constant_classifier((0.21, 0.69, 0.1), TUMOR), "engine", reference, BatchProfile()
    )
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
def test_other_classes_or_boxes_are_rejected(reference, constant_classifier, probabilities, box, problem):
    with pytest.raises(CascadeError, match=problem):
        check_accuracy("classifier", constant_classifier(probabilities, box), "engine", reference, BatchProfile())


def test_either_class_is_accepted_in_a_tie(slices, constant_segmenter, constant_classifier):
    tie = compute_reference(slices, constant_segmenter(0.9, TUMOR), constant_classifier((0.449, 0.451, 0.1), TUMOR))
    other = constant_classifier((0.451, 0.449, 0.1), TUMOR)
    assert check_accuracy("classifier", other, "engine", tie, BatchProfile()).results["min_class_agreement"] == 1


def test_no_other_class_is_accepted_where_the_highest_differ_by_more(slices, constant_segmenter, constant_classifier):
    clear = compute_reference(slices, constant_segmenter(0.9, TUMOR), constant_classifier((0.44, 0.46, 0.1), TUMOR))
    other = constant_classifier((0.451, 0.449, 0.1), TUMOR)
    with pytest.raises(CascadeError, match="min_class_agreement is 0,"):
        check_accuracy("classifier", other, "engine", clear, BatchProfile())


def test_a_mask_may_be_empty_or_not_where_the_detection_is_close_to_the_threshold(
    slices, constant_segmenter, constant_classifier
):
    class Faded:
        """The first slice of three has less probability."""

        def __init__(self, probability):
            self.probability = probability

        def run(self, **inputs):
            output = constant_segmenter(0.9, TUMOR).run(**inputs)[PROBABILITY]
            output[::3] = np.minimum(output[::3], self.probability)  # slices 3 to 5 of a batch repeat them
            return {PROBABILITY: output}

    reference = compute_reference(slices, Faded(0.49), constant_classifier(GLIOMA, TUMOR))
    verified = check_accuracy("segmenter", Faded(0.51), "engine", reference, BatchProfile())
    assert verified.results["min_dice"] == 1
    with pytest.raises(CascadeError, match=r"detection_difference is 0\.11, limit 0\.05"):
        check_accuracy("segmenter", Faded(0.6), "engine", reference, BatchProfile())
    distant = compute_reference(slices, Faded(0.44), constant_classifier(GLIOMA, TUMOR))
    with pytest.raises(CascadeError, match="min_dice is 0"):
        check_accuracy("segmenter", Faded(0.51), "engine", distant, BatchProfile())


@pytest.mark.slow
def test_a_segmenter_that_lost_its_detection_is_rejected(tmp_path):
    """Its pixels are those of the tumor in every slice with one, so the simulated slices once accepted it."""
    graph = onnx.load(find_model(SEGMENTER, BUNDLED_MODELS).path)
    cap = [node for node in graph.graph.node if node.op_type == "Min"][-1]
    cap.op_type = "Identity"
    del cap.input[1:]
    onnx.save(graph, tmp_path / "uncapped.onnx")
    segmenter, classifier = (
        OnnxRuntimeGraph(find_model(name, BUNDLED_MODELS).path) for name in (SEGMENTER, CLASSIFIER)
    )
    reference = compute_reference(simulated_check_slices(), segmenter, classifier)
    assert reference.positive.sum() >= SIMULATED
    with pytest.raises(CascadeError, match=r"detection_difference is 0\.[2-9]"):
        check_accuracy("segmenter", OnnxRuntimeGraph(tmp_path / "uncapped.onnx"), "engine", reference, BatchProfile())


def test_slices_without_a_tumor_are_an_error(slices, constant_segmenter, forbidden):
    with pytest.raises(CascadeError, match="find no tumor in the 3 empty slices") as error:
        compute_reference(slices, constant_segmenter(0.1), forbidden)
    assert "--verify-slices" in error.value.fix


class Recorder:
    """Returns its slices, and records the size of each batch."""

    def __init__(self):
        self.sizes = []

    def run(self, **inputs):
        self.sizes.append(len(inputs[SLICE]))
        return {PROBABILITY: inputs[SLICE]}


@pytest.mark.parametrize(
    ("batches", "sizes"),
    [
        (BatchProfile(1, 8, 64), [8, 8]),
        (BatchProfile(4, 4, 4), [4, 4, 4]),
        (BatchProfile(16, 16, 32), [16]),
        (BatchProfile(1, 1, 1), [1] * 9),
    ],
)
def test_batches_stay_within_the_profile_for_any_number_of_slices(batches, sizes):
    recorder, slices = Recorder(), np.arange(9, dtype=np.float32)
    assert run_in_batches(recorder, batches, slice=slices)[PROBABILITY].tolist() == slices.tolist()
    assert recorder.sizes == sizes


def test_slices_of_a_folder_are_read_in_the_order_of_their_names(tmp_path):
    for name, gray in (("b", 50), ("a", 20)):
        pixels = np.full((64, 64), gray, np.uint8)
        pixels[0, 0] = 0
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    slices = read_check_slices([tmp_path])
    assert slices.squares[:, 0, 256, 256].tolist() == [20, 50]
    assert slices.source == "2 of 2 slices given by --verify-slices"


def test_an_unreadable_slice_is_an_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(CascadeError, match=r"broken\.png"):
        read_check_slices([tmp_path])


def test_simulated_slices_are_the_same_every_time():
    first, second = simulated_check_slices(), simulated_check_slices()
    assert first.squares.shape == (18, 1, SLICE_SIZE, SLICE_SIZE)
    assert first.sha256 == second.sha256
