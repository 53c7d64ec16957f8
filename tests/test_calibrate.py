"""Probabilities of which it is known how true they are."""

import pytest

torch = pytest.importorskip("torch")

from train.calibrate import calibrate, fit_temperature, uncertain_below


def drawn(temperature, count=20_000):
    """Logits that are `temperature` times as large as the labels drawn by them warrant."""
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(count, 3, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_a_network_too_sure_of_itself_is_found(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.03)


def test_calibrating_lowers_the_error_and_changes_no_class():
    temperature, told = calibrate(*drawn(3.0))
    assert told["temperature"] == temperature
    assert told["expected_calibration_error"]["before"] > 0.1
    assert told["expected_calibration_error"]["after"] < 0.02
    assert told["accuracy_of_the_rest"] >= 0.98
    assert 0.01 < told["coverage"] < 0.9


def test_as_many_are_trusted_as_98_percent_of_are_right():
    confidence = torch.linspace(1, 0.4, 61)  # 1.00, 0.99, ... 0.40
    right = torch.ones(61, dtype=torch.bool)
    right[[49, 55]] = False  # one in 50, then two in 56
    assert uncertain_below(confidence, right) == pytest.approx(0.46)  # 54 of 55


def test_where_no_class_can_be_trusted_none_is():
    assert uncertain_below(torch.tensor([0.9, 0.8]), torch.tensor([False, True])) == 1.0
