"""Temperature and thresholds of simulated probabilities whose calibration is known."""

import pytest

torch = pytest.importorskip("torch")

from train.calibrate import calibrate, detection_threshold, fit_temperature, uncertain_below


def drawn(temperature, count=20_000):
    """Return logits that are too large by the factor `temperature`, and labels drawn from the correct ones."""
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(count, 3, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_an_overconfident_network_is_found(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.03)


def test_a_few_slices_that_are_all_right_do_not_make_the_classifier_certain_of_everything():
    """The temperature was 0.05, and wrong classes of further slices had probabilities near 1."""
    labels = torch.arange(40) % 3
    logits = 1.5 * torch.nn.functional.one_hot(labels, 3).float()  # each is right with a probability of 0.69
    temperature = fit_temperature(logits, labels)
    assert 0.2 < temperature < 0.6
    assert fit_temperature(logits.repeat(10, 1), labels.repeat(10)) < temperature  # more slices weigh more


def test_calibrating_lowers_the_error_and_changes_no_class():
    temperature, told = calibrate(*drawn(3.0))
    assert told["temperature"] == temperature
    assert told["expected_calibration_error"]["before"] > 0.1
    assert told["expected_calibration_error"]["after"] < 0.02
    assert told["accuracy_of_the_rest"] >= 0.98
    assert 0.01 < told["coverage"] < 0.9


def test_the_threshold_of_certainty_accepts_classes_of_98_percent_accuracy():
    confidence = torch.linspace(1, 0.4, 61)  # 1.00, 0.99, ... 0.40
    right = torch.ones(61, dtype=torch.bool)
    right[[49, 55]] = False  # one in 50, then two in 56
    assert uncertain_below(confidence, right) == pytest.approx(0.46)  # 54 of 55


def test_if_no_class_is_reliable_none_is_certain():
    assert uncertain_below(torch.tensor([0.9, 0.8]), torch.tensor([False, True])) > 1.0
    assert uncertain_below(torch.tensor([1.0, 0.9]), torch.tensor([False, True])) > 1.0


def test_197_of_200_tumors_reach_the_detection_threshold():
    tumor = torch.linspace(-2.0, 17.9, 200)  # 200 of them: the least likely three are given up
    threshold, entry = detection_threshold(tumor.flip(0), torch.tensor([-5.0, -2.1, -1.9, 3.0]))
    assert threshold == pytest.approx(torch.tensor(-1.75).sigmoid().item(), rel=1e-4)
    assert entry["sensitivity"] == pytest.approx(0.985)
    assert entry["false_positive_rate"] == 0.25
    assert entry["false_positive_rate_at_half"] == 0.25


def test_the_detection_threshold_lies_between_two_tumors_not_on_one():
    """On a tumor, rounding in the exported graph lost that tumor; far below it, every slice would pass."""
    assert detection_threshold(torch.full((5,), 2.0), torch.zeros(1))[0] == pytest.approx(torch.tensor(1.5).sigmoid())
    assert detection_threshold(torch.tensor([-torch.inf, *[2.0] * 399]), torch.zeros(1))[0] == pytest.approx(
        torch.tensor(1.5).sigmoid()
    )


def test_the_detection_threshold_is_never_0_or_1():
    assert detection_threshold(torch.full((5,), -500.0), torch.zeros(1))[0] > 0
    assert detection_threshold(torch.full((5,), 500.0), torch.zeros(1))[0] < 1


def test_classes_of_equal_probability_are_certain_together_or_not_at_all():
    """At 0.9 three of four are right, and sorting may put the wrong one last."""
    confidence = torch.tensor([0.95, 0.9, 0.9, 0.9, 0.9])
    for wrong in range(1, 5):
        right = torch.ones(5, dtype=torch.bool)
        right[wrong] = False
        assert uncertain_below(confidence, right) == pytest.approx(0.95)


def test_without_certain_classes_there_is_no_accuracy():
    """The mean of an empty list was NaN, which JSON does not have."""
    _, told = calibrate(torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]), torch.tensor([1, 0]))
    assert told["coverage"] == 0
    assert told["accuracy_of_the_rest"] is None


def test_slices_without_a_tumor_pixel_count_as_missed_whatever_the_threshold():
    """With more of them than the target sensitivity allows, the record had a sensitivity of 1 and a threshold of 0."""
    threshold, entry = detection_threshold(torch.tensor([-torch.inf] * 10 + [2.0, 3.0] * 5), torch.tensor([1.0, 2.5]))
    assert threshold == pytest.approx(torch.tensor(1.5).sigmoid().item())
    assert entry["sensitivity"] == 0.5
    assert entry["false_positive_rate"] == 0.5
    assert detection_threshold(torch.full((3,), -torch.inf), torch.zeros(0))[1]["sensitivity"] == 0
