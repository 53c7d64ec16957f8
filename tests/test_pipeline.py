"""From slices to predictions, with backends whose answers are known."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext

import nibabel
import numpy as np
import pytest
from PIL import Image

from cascade.contract import CLASS_NAMES, Box
from cascade.errors import CascadeError
from cascade.io.open import open_source
from cascade.io.slices import Slice
from cascade.io.volume import AffineVolume
from cascade.pipeline import Cascade
from cascade.runtime.cpu import CpuBackend
from cascade.runtime.protocol import Future, Outputs


def slice_of(height, width):
    return Slice(np.arange(height * width, dtype=np.float32).reshape(height, width))


def test_an_empty_mask_means_no_tumor_and_no_class(constant_segmenter, forbidden):
    found = Cascade(CpuBackend(segmenter=constant_segmenter(0.0), classifier=forbidden)).predict(slice_of(512, 512))
    assert not found.mask.any()
    assert found.box is None
    assert found.probabilities == {}
    assert found.label is None


def test_a_probability_just_below_the_threshold_is_no_tumor_and_one_at_it_is(
    constant_segmenter, constant_classifier, forbidden
):
    below = Cascade(CpuBackend(constant_segmenter(0.4999), forbidden)).predict(slice_of(512, 512))
    classifier = constant_classifier((1, 0, 0), Box(0, 0, 512, 512))
    at = Cascade(CpuBackend(constant_segmenter(0.5), classifier)).predict(slice_of(512, 512))
    assert not below.mask.any()
    assert at.mask.all()


def test_mask_and_box_come_back_on_the_slices_own_grid(constant_segmenter, constant_classifier):
    segmenter = constant_segmenter(1.0, Box(left=100, top=200, right=140, bottom=260))
    classifier = constant_classifier((0.2, 0.7, 0.1), Box(left=90, top=190, right=170, bottom=270))
    found = Cascade(CpuBackend(segmenter, classifier)).predict(slice_of(256, 256))  # half the square's size
    rows, columns = np.nonzero(found.mask)
    assert found.mask.shape == (256, 256)
    assert found.mask.dtype == bool
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (100, 130, 50, 70)
    assert found.box == Box(left=45, top=95, right=85, bottom=135)
    assert list(found.probabilities) == list(CLASS_NAMES)
    assert list(found.probabilities.values()) == pytest.approx([0.2, 0.7, 0.1])
    assert found.label == "glioma"


@pytest.mark.parametrize(("height", "width"), [(20, 2000), (2000, 20), (300, 400), (16, 16)])
def test_any_shape_gets_a_mask_of_its_own_shape_and_a_box_inside_it(
    constant_segmenter, constant_classifier, height, width
):
    classifier = constant_classifier((0, 0, 1), Box(0, 0, 512, 512))
    cascade = Cascade(CpuBackend(constant_segmenter(1.0), classifier))
    found = cascade.predict(slice_of(height, width))
    assert found.mask.shape == (height, width)
    assert found.mask.all()
    assert found.box == Box(0, 0, width, height)
    assert found.label == "pituitary tumor"


class TumorInBrightSlices:
    """A segmenter that finds tumor all over a slice whose brightest pixel is above 1000, and none elsewhere."""

    def run(self, **inputs):
        bright = inputs["slice"].max((1, 2, 3), keepdims=True) > 1000
        return {"probability": np.ones_like(inputs["slice"]) * bright}


def test_slices_of_mixed_sizes_keep_their_order_and_only_those_with_a_tumor_are_classified(constant_classifier):
    classifier = constant_classifier((0.5, 0.3, 0.2), Box(0, 0, 512, 512))
    slices = [
        slice_of(20, 30),
        slice_of(512, 512),
        slice_of(16, 16),
        slice_of(40, 60),
    ]  # up to 599, 262,143, 255 and 2,399
    found = Cascade(CpuBackend(TumorInBrightSlices(), classifier)).predict_batch(slices)
    assert [item.label for item in found] == [None, "meningioma", None, "meningioma"]
    assert [item.mask.shape for item in found] == [(20, 30), (512, 512), (16, 16), (40, 60)]
    assert [item.box for item in found] == [None, Box(0, 0, 512, 512), None, Box(0, 0, 60, 40)]
    assert classifier.slices_seen == 2


def test_an_empty_batch_gives_an_empty_list(forbidden):
    assert Cascade(CpuBackend(forbidden, forbidden)).predict_batch([]) == []


def test_nan_from_a_segmenter_is_an_error_and_not_no_tumor(constant_segmenter, forbidden):
    """NaN >= 0.5 is False: an engine that overflows in FP16 would find every slice healthy."""
    with pytest.raises(CascadeError, match="the segmenter computed NaN"):
        Cascade(CpuBackend(constant_segmenter(float("nan")), forbidden)).predict(slice_of(64, 64))


def test_nan_from_a_classifier_is_an_error_and_not_the_first_class(constant_segmenter, constant_classifier):
    """max() of NaNs is the first, and NaN < 0.84 is False: a meningioma, and certain."""
    for probabilities, box in (((float("nan"),) * 3, (0, 0, 9, 9)), ((0, 0, 1), (0, 0, 9, float("nan")))):
        cascade = Cascade(CpuBackend(constant_segmenter(1.0), constant_classifier(probabilities, Box(*box))))
        with pytest.raises(CascadeError, match="the classifier computed NaN"):
            cascade.predict(slice_of(64, 64))


def test_models_that_cannot_be_loaded_are_refused_before_any_slice_is_read(tmp_path):
    record = {"sha256": hashlib.sha256(b"no graph").hexdigest()}
    for name in ("segmenter", "classifier"):
        (tmp_path / f"{name}.onnx").write_bytes(b"no graph")
    (tmp_path / "models.json").write_text(json.dumps({"segmenter": record, "classifier": record}))
    with pytest.raises(CascadeError, match=r"segmenter\.onnx: ONNX Runtime cannot load it"):
        Cascade.open(tmp_path, "onnxruntime")


def test_a_path_an_array_and_a_slice_give_the_same_prediction(constant_segmenter, constant_classifier, tmp_path):
    classifier = constant_classifier((0.1, 0.2, 0.7), Box(0, 0, 512, 512))
    cascade = Cascade(CpuBackend(constant_segmenter(1.0), classifier), uncertain_below=0.75)
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for given in (pixels, tmp_path / "a.png", str(tmp_path / "a.png"), Slice(pixels.astype(np.float32))):
        found = cascade.predict(given)
        assert (found.label, found.uncertain, found.mask.shape) == ("pituitary tumor", True, (20, 20))


@pytest.fixture
def everywhere(constant_segmenter, constant_classifier):
    """A cascade that finds a meningioma on every pixel."""
    classifier = constant_classifier((1, 0, 0), Box(0, 0, 512, 512))
    return Cascade(CpuBackend(constant_segmenter(1.0), classifier))


def test_a_batch_may_hold_slices_of_every_kind(everywhere, tmp_path):
    """Once, everything but a `Slice` ended in an AttributeError."""
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    batch = [
        pixels,
        pixels[None],
        pixels[..., None],
        Image.fromarray(pixels),
        str(tmp_path / "a.png"),
        slice_of(20, 30),
    ]
    for slices in (batch, tuple(batch), iter(batch), np.stack([pixels] * 6)):
        predictions = everywhere.predict_batch(slices)
        assert [(found.label, found.mask.shape) for found in predictions] == 6 * [("meningioma", (20, 30))]


@pytest.mark.parametrize("slices", ["a.png", None, 3, slice_of(20, 30), [None], ["nowhere.png"], np.zeros((20, 30))])
def test_what_is_no_list_of_slices_is_refused(everywhere, slices):
    with pytest.raises(CascadeError):
        everywhere.predict_batch(slices)


def test_the_failing_slice_of_a_batch_is_named(everywhere):
    with pytest.raises(CascadeError, match="slice 1: "):
        everywhere.predict_batch([slice_of(20, 30), np.zeros((20, 30))])


def test_predict_returns_the_notes_on_a_picture_from_a_file_and_from_memory(everywhere, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        found = [everywhere.predict(image), everywhere.predict(tmp_path / "a.png")]
        found += [*everywhere.predict_batch([image]), *everywhere.predict_volume(tmp_path / "a.png").slices]
    for prediction in found:
        assert prediction.mask.shape == (30, 20)
        (note,) = prediction.notes
        assert "orientation 6" in note


def test_a_volume_in_memory_is_done_slice_by_slice(everywhere):
    """Once, an array ended in a TypeError."""
    array = np.zeros((11, 20, 30), dtype=np.int16)
    array[:10] = np.arange(30)
    for volume, axis in ((array, None), (np.moveaxis(array, 0, 2), 2), (list(array), None)):
        found = everywhere.predict_volume(volume, axis, spacing_mm=(0.5, 0.7)).slices
        assert [prediction.label for prediction in found] == 10 * ["meningioma"] + [None]
        assert [prediction.notes for prediction in found] == 10 * [()] + [("blank",)]
        assert {prediction.mask.shape for prediction in found} == {(20, 30)}
    with pytest.raises(CascadeError, match="predict_volume"):
        everywhere.predict(array)
    with pytest.raises(CascadeError, match="every pixel has the same value"):
        everywhere.predict_volume(np.zeros((3, 20, 30)))
    with pytest.raises(CascadeError, match="slice 1: "):
        everywhere.predict_volume(np.where(np.arange(3)[:, None, None] == 1, np.inf, array[:3]))


def test_the_spacing_of_a_volume_in_memory_reaches_the_models(constant_segmenter, forbidden):
    """0.98 mm is twice the spacing of the training data: a pixel becomes 2 x 2 in the square."""
    seen = []

    class Watch:
        def run(self, **inputs):
            seen.append(inputs["slice"])
            return {"probability": np.zeros_like(inputs["slice"])}

    volume = np.zeros((1, 20, 30), np.float32)
    volume[0, 5:15, 5:15] = 9
    Cascade(CpuBackend(Watch(), forbidden)).predict_volume(volume, spacing_mm=(0.98, 0.98))
    assert np.count_nonzero(seen[0] > 4.5) == 20 * 20


def test_the_spacing_of_a_file_cannot_be_given(everywhere, tmp_path):
    with pytest.raises(CascadeError, match="spacing"):
        everywhere.predict_volume(tmp_path / "a.nii", spacing_mm=(1, 1))


def test_a_volume_is_predicted_slice_by_slice_and_its_blank_slices_show_no_tumor(
    constant_segmenter, constant_classifier, tmp_path
):
    array = np.zeros((20, 30, 11), dtype=np.float32)
    array[..., :10] = np.arange(30)[:, None]
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "head.nii.gz")
    classifier = constant_classifier((1, 0, 0), Box(0, 0, 512, 512))
    cascade = Cascade(CpuBackend(constant_segmenter(1.0), classifier))
    found = cascade.predict_volume(tmp_path / "head.nii.gz")
    assert [prediction.label for prediction in found.slices] == 10 * ["meningioma"] + [None]
    assert [prediction.evidence for prediction in found.slices] == 10 * [1.0] + [0.0]
    assert found.mask.shape == (11, *found.slices[0].mask.shape)
    assert found.mask[:10].all()
    assert (found.finding.label, found.finding.tumor_slices) == ("meningioma", 10)
    assert found.finding.volume_ml == pytest.approx(20 * 30 * 10 * 5 / 1000)  # slices 5 mm apart
    with pytest.raises(CascadeError, match="11 slices"):
        cascade.predict(tmp_path / "head.nii.gz")


def test_a_volume_in_memory_has_milliliters_where_the_distance_of_its_slices_is_given(everywhere):
    """13 slices of 20 x 30 pixels of 2 x 1 mm, 5 mm apart."""
    array = np.zeros((13, 20, 30)) + np.arange(30)
    for volume, axis, spacing_mm in (
        (array, None, (5.0, 2.0, 1.0)),
        (array, 0, np.array([5.0, 2.0, 1.0])),
        (np.moveaxis(array, 0, 2), 2, (2.0, 1.0, 5.0)),
    ):
        found = everywhere.predict_volume(volume, axis, spacing_mm)
        assert (found.mask.shape, found.mask.all()) == ((13, 20, 30), True)
        assert found.finding.volume_ml == pytest.approx(13 * 20 * 30 * 5 * 2 * 1 / 1000)
        assert found.finding.diameters
    found = everywhere.predict_volume(array, spacing_mm=(2.0, 1.0))
    assert (found.finding.volume_ml, found.finding.diameters is None) == (None, False)
    assert everywhere.predict_volume(array).finding.diameters is None
    for spacing_mm in ((-5.0, 2.0, 1.0), (np.inf, 2.0, 1.0), ("thick", 2.0, 1.0)):
        with pytest.raises(CascadeError, match="distance of slices"):
            everywhere.predict_volume(array, spacing_mm=spacing_mm)


def test_slices_of_several_sizes_are_not_one_volume(everywhere):
    with pytest.raises(CascadeError, match="sizes"):
        everywhere.predict_volume([slice_of(20, 30), slice_of(30, 20)])


def test_slices_of_several_spacings_are_not_one_volume(everywhere):
    """The spacing of the last slice counted for all: 150 ml instead of 37.5."""
    pixels = slice_of(20, 30).pixels
    for first, second in (((0.5, 0.5), (1.0, 1.0)), ((0.5, 0.5), None)):
        with pytest.raises(CascadeError, match="spacings"):
            everywhere.predict_volume([Slice(pixels, first), Slice(pixels, second)])
    found = everywhere.predict_volume([Slice(pixels, (0.488281, 0.488281)), Slice(pixels, (0.4883, 0.4883))])
    assert found.finding.diameters


def test_the_spacing_of_a_volume_must_agree_with_that_of_its_slices(everywhere):
    """It was ignored for the area of a pixel, but not for the distance of slices."""
    pixels = slice_of(20, 30).pixels
    with pytest.raises(CascadeError, match="slice 0: "):
        everywhere.predict_volume([Slice(pixels, (0.5, 0.5))] * 2, spacing_mm=(5.0, 1.0, 1.0))
    for slices in ([Slice(pixels, (2.0, 1.0))] * 2, [Slice(pixels), Slice(pixels, (2.0, 1.0))]):
        found = everywhere.predict_volume(slices, spacing_mm=(5.0, 2.0, 1.0))
        assert found.finding.volume_ml == pytest.approx(2 * 20 * 30 * 5 * 2 * 1 / 1000)


def test_a_slice_axis_and_the_number_of_a_volume_are_integers(everywhere, tmp_path):
    """1.0 equals 1, passed the check and ended in a TypeError."""
    array = np.zeros((16, 20, 30), np.float32) + np.arange(30)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "head.nii")
    for volume in (array, tmp_path / "head.nii"):
        with pytest.raises(CascadeError, match=r"1\.0"):
            everywhere.predict_volume(volume, axis=1.0)
        assert everywhere.predict_volume(volume, axis=np.int64(1)).finding.slices == 20
    with pytest.raises(CascadeError, match=r"1\.0"):
        everywhere.predict_volume(tmp_path / "head.nii", volume_number=1.0)
    with pytest.raises(CascadeError, match="volume_number"):
        everywhere.predict_volume(array, volume_number=0)


def test_one_volume_of_a_file_of_several_is_predicted_by_its_number(constant_segmenter, forbidden, tmp_path):
    """The error named the option of the command line, for which there was no argument."""
    array = np.zeros((20, 30, 4, 3), np.float32)
    array[..., 2] = np.arange(30)[:, None]  # the others are blank
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "head.nii.gz")
    cascade = Cascade(CpuBackend(constant_segmenter(0.0), forbidden))
    found = cascade.predict_volume(tmp_path / "head.nii.gz", volume_number=2)
    assert [prediction.notes for prediction in found.slices] == 4 * [("volume 2 of 3, counted from 0",)]
    with pytest.raises(CascadeError) as raised:
        cascade.predict_volume(tmp_path / "head.nii.gz")
    assert "volume_number" in raised.value.fix
    for number in (3, -1):
        with pytest.raises(CascadeError, match=f"none of number {number}"):
            cascade.predict_volume(tmp_path / "head.nii.gz", volume_number=number)


class TumorInOneSlice:
    """A segmenter that finds a tumor in the slice whose brightest pixel is above 1000, and weak evidence elsewhere."""

    def run(self, **inputs):
        bright = inputs["slice"].max((1, 2, 3), keepdims=True) > 1000
        return {"probability": np.where(bright, np.ones_like(inputs["slice"]), np.float32(0.25))}


def test_a_tumor_in_a_single_slice_of_a_volume_is_reported_for_the_slice_but_not_for_the_volume(constant_classifier):
    volume = np.zeros((20, 20, 30)) + np.arange(30)
    volume[7, 0, 0] = 2000
    cascade = Cascade(CpuBackend(TumorInOneSlice(), constant_classifier((1, 0, 0), Box(0, 0, 512, 512))))
    found = cascade.predict_volume(volume)
    assert [index for index, prediction in enumerate(found.slices) if prediction.label] == [7]
    assert found.slices[0].evidence == 0.25
    assert (found.finding.status, found.mask.any()) == ("no_tumor", False)


class SpeckBesideTumor:
    """A segmenter that finds a tumor in every slice, and beside it a less probable speck of 20 x 20 pixels."""

    def run(self, **inputs):
        probability = np.zeros_like(inputs["slice"])
        probability[..., 200:300, 200:300] = np.linspace(0.5, 0.999, 100)
        probability[..., 400:420, 400:420] = 0.51
        return {"probability": probability}


def test_a_speck_beside_a_tumor_is_in_the_masks_of_the_slices_but_not_in_that_of_the_volume(constant_classifier):
    volume = np.zeros((20, 512, 512)) + np.arange(512)
    cascade = Cascade(CpuBackend(SpeckBesideTumor(), constant_classifier((1, 0, 0), Box(0, 0, 512, 512))))
    found = cascade.predict_volume(volume)
    assert [prediction.mask.sum() for prediction in found.slices] == 20 * [100 * 100 + 20 * 20]
    assert (found.mask.sum(), found.mask[:, 400:, 400:].any()) == (20 * 100 * 100, False)
    assert found.slices[0].mask_probability.shape == (100 * 100 + 20 * 20,)
    assert (found.slices[0].mask_probability[0], found.slices[0].mask_probability[-1]) == pytest.approx((0.5, 0.51))


class FixedTimes:
    """A backend without tumors, whose two stages take 30 and 10 ms for every batch."""

    description = "stub"

    def submit(self, slices):
        nothing = np.zeros((len(slices), 3), np.float32), np.zeros((len(slices), 4), np.float32)
        stages_ms = {"segmenter": 30.0, "classifier": 10.0}
        return Future(lambda: Outputs(np.zeros_like(slices), *nothing, stages_ms))


def test_the_latency_of_a_batch_is_divided_by_its_number_of_slices():
    cascade = Cascade(FixedTimes())
    assert cascade.description == "stub"
    for count, latency_ms in ((1, 40.0), (4, 10.0)):
        predictions = cascade.predict_batch([slice_of(20, 30)] * count)
        assert [prediction.latency_ms for prediction in predictions] == [latency_ms] * count


def test_a_probability_map_is_returned_only_on_request(everywhere):
    """It takes 4 bytes per pixel, and a run keeps many predictions in memory."""
    items = [slice_of(20, 30)]
    assert [found.probability_map for found in everywhere.submit(items).result()] == [None]
    (found,) = everywhere.submit(items, probability_map=True).result()
    assert found.probability_map.shape == (20, 30)


def test_submitted_batches_return_their_own_results():
    cascade = Cascade(FixedTimes())
    first, second = cascade.submit([slice_of(20, 30)]), cascade.submit([slice_of(16, 16), slice_of(40, 60)])
    assert [prediction.mask.shape for prediction in second.result()] == [(16, 16), (40, 60)]
    assert [prediction.mask.shape for prediction in first.result()] == [(20, 30)]
    assert cascade.submit([]).result() == []


def test_predict_volume_returns_the_notes_of_the_volume(constant_segmenter, forbidden, tmp_path):
    """Only the command line reported them, for instance that the orientation is unknown."""
    array = np.zeros((20, 30, 3), dtype=np.float32)
    array[..., :2] = np.arange(30)[:, None]
    image = nibabel.Nifti1Image(array, None)  # without qform and sform
    nibabel.save(image, tmp_path / "head.nii")
    notes = open_source(tmp_path / "head.nii").notes
    assert notes
    cascade = Cascade(CpuBackend(constant_segmenter(0.0), forbidden))
    predictions = cascade.predict_volume(tmp_path / "head.nii", axis=2).slices
    assert [prediction.notes for prediction in predictions] == [notes, notes, (*notes, "blank")]


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_predict_volume_closes_the_volume_even_after_an_error(
    constant_segmenter, forbidden, tmp_path, monkeypatch, value
):
    """The voxels remained in memory."""
    array = np.zeros((20, 30, 3), dtype=np.float32) + np.arange(30)[:, None]
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "head.nii")
    closed = []
    monkeypatch.setattr(AffineVolume, "close", lambda self: closed.append(self))
    cascade = Cascade(CpuBackend(constant_segmenter(value), forbidden))
    with pytest.raises(CascadeError) if np.isnan(value) else nullcontext():
        cascade.predict_volume(tmp_path / "head.nii")
    assert [source.name for source in closed] == ["head.nii"]


def test_a_blank_slice_is_an_error_as_a_path_an_array_and_a_slice(forbidden, tmp_path):
    blank = np.full((20, 30), 7, dtype=np.float32)
    Image.fromarray(blank.astype(np.uint8)).save(tmp_path / "a.png")
    volume = np.repeat(blank[..., None], 9, axis=2)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "a.nii")
    cascade = Cascade(CpuBackend(forbidden, forbidden))
    for given in (blank, Slice(blank), tmp_path / "a.png"):
        with pytest.raises(CascadeError, match="every pixel has the same value"):
            cascade.predict(given)
    with pytest.raises(CascadeError, match="every pixel has the same value"):
        cascade.predict_volume(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("pixels", "spacing_mm"),
    [(np.ones((20, 20), int), None), (np.ones(20, np.float32), None), (np.ones((20, 20), np.float32), (-1.0, 1.0))],
)
def test_a_slice_is_float32_in_two_dimensions_of_positive_spacing(pixels, spacing_mm):
    with pytest.raises(CascadeError):
        Slice(pixels, spacing_mm)


def test_the_public_names_can_be_imported():
    import cascade

    assert cascade.Cascade is Cascade
    assert all(hasattr(cascade, name) for name in cascade.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Cascad'"):
        _ = cascade.Cascad
