"""The formulas and the bootstrap against numbers worked out by hand, MONAI and torchmetrics."""

import numpy as np
import pytest

from cascade.evaluation.bootstrap import SubjectBootstrap
from cascade.evaluation.metrics import (
    NONE,
    accuracy,
    auc,
    balanced_accuracy,
    confusion,
    dice,
    f1,
    hausdorff95,
    iou,
    macro_f1,
    precision,
    predicted_classes,
    recall,
    reliability,
)


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((32, 40), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping masks with ragged borders; they touch the edge of the slice."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :80]
    masks = [
        (y - random.uniform(0, 40)) ** 2 + (x - random.uniform(30, 50)) ** 2 < random.uniform(400, 900)
        for _ in range(2)
    ]
    return tuple(mask & (random.random(mask.shape) < 0.97) for mask in masks)


# --- masks


def test_two_squares_that_share_half_have_dice_one_half_and_iou_one_third():
    true, predicted = rectangle(4, 8, 4, 8), rectangle(4, 8, 6, 10)  # 16 pixels each, 8 shared
    assert dice(true, predicted) == 2 * 8 / 32
    assert iou(true, predicted) == 8 / 24


def test_an_empty_prediction_has_dice_and_iou_0_and_no_hausdorff_distance():
    true, empty = rectangle(4, 8, 4, 8), rectangle(0, 0, 0, 0)
    assert dice(true, empty) == iou(true, empty) == 0.0
    assert hausdorff95(true, empty) is None
    assert hausdorff95(empty, true) is None


def test_two_empty_masks_have_no_dice():
    empty = rectangle(0, 0, 0, 0)
    assert np.isnan(dice(empty, empty))
    assert np.isnan(iou(empty, empty))


def test_a_mask_is_at_distance_0_from_itself():
    assert hausdorff95(rectangle(4, 8, 4, 8), rectangle(4, 8, 4, 8)) == 0.0


def test_two_pixels_3_across_and_4_down_are_5_apart():
    assert hausdorff95(rectangle(2, 3, 2, 3), rectangle(6, 7, 5, 6)) == 5.0


def test_the_distance_is_in_the_unit_of_the_spacing_along_each_axis():
    one, other = rectangle(2, 3, 2, 3), rectangle(6, 7, 5, 6)
    assert hausdorff95(one, other, spacing=(0.5, 0.5)) == 2.5
    assert hausdorff95(one, other, spacing=(0.75, 4 / 3)) == pytest.approx(5.0)  # 4 * 0.75 down and 3 * 4 / 3 across


def test_one_far_pixel_of_31_is_forgiven_and_three_of_33_are_not():
    line = rectangle(2, 3, 0, 30)  # a line is all border: 30 pixels
    one_off, three_off = line | rectangle(20, 21, 0, 1), line | rectangle(20, 21, 0, 3)
    assert hausdorff95(line, one_off) == 0.0  # 1 of 31 lies beyond the 95th percentile
    assert hausdorff95(line, three_off) == 18.0  # 3 of 33 reach it; of the two directions the larger counts
    assert hausdorff95(three_off, line) == 18.0


@pytest.mark.parametrize("seed", range(8))
def test_mask_metrics_equal_monais(seed):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    true, predicted = blobs(seed)
    batch = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, true)]
    assert dice(true, predicted) == pytest.approx(monai.compute_dice(*batch).item(), abs=1e-6)
    assert iou(true, predicted) == pytest.approx(monai.compute_iou(*batch).item(), abs=1e-6)
    for spacing in ((1.0, 1.0), (0.49, 0.8)):
        theirs = monai.compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=spacing)
        assert hausdorff95(true, predicted, spacing) == pytest.approx(theirs.item(), abs=1e-5)


# --- classes

TRUE = np.array([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 1, NONE, 1, 1, 0, 2])
MATRIX = confusion(TRUE, PREDICTED).sum(0)


def test_the_confusion_matrix_has_true_classes_as_rows_and_predicted_classes_or_none_as_columns():
    assert MATRIX.tolist() == [[2, 1, 0, 1], [0, 2, 0, 0], [1, 0, 1, 0]]


def test_a_slice_without_a_mask_is_wrong():
    assert accuracy(MATRIX) == 5 / 8
    assert recall(MATRIX).tolist() == [2 / 4, 2 / 2, 1 / 2]
    assert balanced_accuracy(MATRIX) == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)


def test_a_slice_without_a_mask_spoils_the_precision_of_no_class():
    assert precision(MATRIX).tolist() == [2 / 3, 2 / 3, 1 / 1]


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    assert f1(MATRIX).tolist() == pytest.approx([4 / 7, 4 / 5, 2 / 3])
    assert macro_f1(MATRIX) == pytest.approx((4 / 7 + 4 / 5 + 2 / 3) / 3)


def test_a_class_that_does_not_occur_has_no_recall_and_is_left_out_of_the_means():
    matrix = confusion(np.array([0, 0, 1]), np.array([0, 1, 1])).sum(0)
    assert np.isnan(recall(matrix)[2])
    assert np.isnan(precision(matrix)[2])
    assert balanced_accuracy(matrix) == pytest.approx((1 / 2 + 1) / 2)
    assert macro_f1(matrix) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_many_confusion_matrices_are_judged_at_once():
    both = np.stack([MATRIX, 2 * np.eye(3, 4)])
    assert accuracy(both).tolist() == [5 / 8, 1.0]
    assert balanced_accuracy(both).tolist() == pytest.approx([2 / 3, 1.0])


def test_the_most_probable_class_is_predicted_and_none_if_all_are_0():
    assert predicted_classes(np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 0.0]])).tolist() == [1, NONE]


def test_auc_is_the_share_of_pairs_in_the_right_order():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.5, 0.5, 0.0], [0.1, 0.9, 0.0]])
    # Class 0 against 1: 0.9 > 0.5, 0.9 > 0.1, 0.4 > 0.1, but 0.4 < 0.5: 3 of 4 pairs. Class 2 does not occur.
    assert auc(np.array([0, 0, 1, 1]), probabilities) == [0.75, 0.75, None]


def test_in_the_auc_a_slice_without_a_mask_ranks_below_all_others():
    probabilities = np.array([[0.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    # Class 0: of the pairs (empty, 0.2) and (0.9, 0.2) only the second is right. Class 1: 0.8 > 0 and 0.8 > 0.1.
    assert auc(np.array([0, 0, 1]), probabilities) == [0.5, 1.0, None]


def test_class_metrics_equal_torchmetrics():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 200)
    true = random.integers(0, 3, 200)
    ours, theirs = (
        confusion(true, predicted_classes(probabilities)).sum(0),
        (torch.tensor(probabilities), torch.tensor(true)),
    )
    by_class = {"num_classes": 3, "average": "none"}
    assert ours[:, :3].tolist() == functional.multiclass_confusion_matrix(*theirs, num_classes=3).tolist()
    assert accuracy(ours) == pytest.approx(
        functional.multiclass_accuracy(*theirs, num_classes=3, average="micro").item()
    )
    assert balanced_accuracy(ours) == pytest.approx(functional.multiclass_accuracy(*theirs, num_classes=3).item())
    assert precision(ours) == pytest.approx(functional.multiclass_precision(*theirs, **by_class).numpy())
    assert recall(ours) == pytest.approx(functional.multiclass_recall(*theirs, **by_class).numpy())
    assert f1(ours) == pytest.approx(functional.multiclass_f1_score(*theirs, **by_class).numpy())
    assert macro_f1(ours) == pytest.approx(functional.multiclass_f1_score(*theirs, num_classes=3).item())
    assert auc(true, probabilities) == pytest.approx(functional.multiclass_auroc(*theirs, **by_class).numpy())
    error = functional.multiclass_calibration_error(*theirs, num_classes=3, n_bins=15, norm="l1").item()
    assert reliability(true, probabilities).expected_calibration_error == pytest.approx(error, abs=1e-6)


def test_a_slice_without_a_mask_counts_as_a_fourth_class_of_torchmetrics():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    theirs = functional.multiclass_f1_score(torch.tensor(PREDICTED), torch.tensor(TRUE), num_classes=4, average="none")
    assert f1(MATRIX) == pytest.approx(theirs[:3].numpy())


# --- stated probabilities


def test_the_calibration_error_is_the_mean_gap_between_stated_and_true():
    probabilities = np.array([[0.9, 0.1, 0.0]] * 4 + [[0.5, 0.3, 0.2]] * 2)
    true = np.array([0, 0, 0, 1, 1, 1])  # three of four right at 0.9, none of two at 0.5
    curve = reliability(true, probabilities)
    assert curve.counts.nonzero()[0].tolist() == [7, 13]  # 7 / 15 < 0.5 <= 8 / 15 and 13 / 15 < 0.9 <= 14 / 15
    assert curve.accuracy[[7, 13]].tolist() == [0.0, 0.75]
    assert curve.expected_calibration_error == pytest.approx((4 * 0.15 + 2 * 0.5) / 6)


def test_a_probability_on_the_edge_of_a_bin_belongs_to_the_bin_below():
    """No test failed if it was assigned to the bin above."""
    curve = reliability(np.array([0, 0, 0]), np.array([[0.6, 0.4, 0.0], [0.8, 0.2, 0.0], [1.0, 0.0, 0.0]]))
    assert curve.counts.nonzero()[0].tolist() == [8, 11, 14]  # 0.6 = 9 / 15, 0.8 = 12 / 15 and 1 = 15 / 15


def test_a_probability_that_rounding_lifts_above_1_belongs_to_the_last_bin():
    curve = reliability(np.array([0]), np.array([[1.0 + 1e-7, 0.0, 0.0]]))
    assert curve.counts.tolist() == [0] * 14 + [1]


def test_a_slice_without_a_mask_states_no_probability():
    curve = reliability(np.array([0, 1]), np.array([[0.9, 0.1, 0.0], [0.0, 0.0, 0.0]]))
    assert curve.counts.sum() == 1
    assert curve.expected_calibration_error == pytest.approx(0.1)
    assert reliability(np.array([1]), np.zeros((1, 3))).expected_calibration_error is None


# --- intervals


def test_subjects_are_resampled_not_slices():
    """Ten subjects with 100 slices each, all right or all wrong: ten independent values, not a thousand."""
    subjects = [f"p{number // 100}" for number in range(1000)]
    right = np.repeat([1.0, 0.0] * 5, 100)
    low, high = SubjectBootstrap(subjects).mean_interval(right)
    # The share right is Binomial(10, 0.5) / 10: 1 or less has 1.1 %, 2 or less 5.5 %: the 2.5th percentile is 0.2.
    assert (low, high) == (0.2, 0.8)
    slices_low, slices_high = SubjectBootstrap([str(number) for number in range(1000)]).mean_interval(right)
    assert slices_high - slices_low < 0.07  # what resampling slices gives: 4 * sqrt(0.25 / 1000) = 0.063


def test_the_interval_contains_95_percent_of_the_resamples():
    """No test failed for an interval from the 5th to the 95th percentile."""
    assert SubjectBootstrap(["a", "b"]).interval(np.arange(1001.0)) == (25.0, 975.0)
    # Of 16 subjects, half of them right, Binomial(16, 0.5) are right in a resample. 3 or less has 1.1 %, 4 or less
    # 3.8 % and 5 or less 10.5 %: the 2.5th percentile is 4, the 5th would be 5.
    right = np.repeat([0.0, 1.0], 8)
    assert SubjectBootstrap([str(number) for number in range(16)]).mean_interval(right) == (4 / 16, 12 / 16)


def test_every_subject_has_the_same_weight_in_the_mean_over_subjects():
    """Slices: 1 and 0 of the first subject, 0.5 of the second, none selected of the third."""
    bootstrap = SubjectBootstrap(["a", "a", "b", "c"])
    means = bootstrap.subject_means(np.array([1.0, 0.0, 0.5, np.nan]))
    assert means[:2].tolist() == [0.5, 0.5]
    assert np.isnan(means[2])
    assert bootstrap.subject_mean_interval(means) == (0.5, 0.5)


def test_a_subject_is_weighted_by_its_slices_in_the_mean_over_slices():
    bootstrap = SubjectBootstrap(["a", "b", "b", "b"])
    assert bootstrap.mean_interval(np.array([np.nan, 0.0, 0.5, 1.0])) is None  # of b alone
    low, high = bootstrap.mean_interval(np.array([1.0, 0.0, 0.0, 1.0]))
    assert (low, high) == pytest.approx((1 / 3, 1.0))  # b twice, or a twice, in a quarter of the resamples each
    draws = bootstrap.resample(bootstrap.sum_by_subject(np.ones(4)))
    assert set(draws.tolist()) == {2.0, 4.0, 6.0}  # slices in a resample: a a, a b, b b


def test_the_interval_of_a_class_leaves_out_slices_of_others():
    values = np.array([1.0, 1.0, np.nan, np.nan])
    assert SubjectBootstrap(["a", "b", "c", "d"]).mean_interval(values) == (1.0, 1.0)


def test_one_subject_gives_no_interval():
    assert SubjectBootstrap(["a", "a"]).mean_interval(np.array([1.0, 0.0])) is None


def test_the_same_slices_give_the_same_interval_each_time():
    subjects, values = [str(number) for number in range(20)], np.linspace(0, 1, 20)
    assert SubjectBootstrap(subjects).mean_interval(values) == SubjectBootstrap(subjects).mean_interval(values)
