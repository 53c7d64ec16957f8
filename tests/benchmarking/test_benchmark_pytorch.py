"""The comparison with PyTorch: which ratios it gives, and that a script with wrong outputs is noticed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("segmentation_models_pytorch")

from benchmark_pytorch import compare, start_scripts, without_overlays
from pytorch_script import Difference, Script, difference
from tiny_models import write_models
from torch import nn

from cascade.benchmarking.report import Spread
from cascade.benchmarking.simulated import simulate_slices
from cascade.benchmarking.timing import Measurement, Request
from cascade.discovery.inputs import find_slices


def measured(*speeds):
    """One measurement of each round; from files to results takes twice as long."""
    return {8: [Measurement({}, [1], [2], 8, speed, speed / 2, None) for speed in speeds]}


def test_speeds_are_compared_with_plain_pytorch_and_with_the_fastest_script_in_the_same_round():
    """The machine is half as fast in the second round."""
    rows = compare(
        {"pytorch": measured(10, 5), "pytorch-bf16": measured(20, 10), "openvino": measured(40, 30)}, batch_size=8
    )
    assert [row.name for row in rows] == ["pytorch", "pytorch-bf16", "openvino"]
    openvino = rows[-1]
    assert openvino.fastest == {"models": "pytorch-bf16", "end_to_end": "pytorch-bf16"}
    for speed in ("models", "end_to_end"):
        assert openvino.over_plain[speed] == Spread(5, 4, 6)
        assert openvino.over_fastest[speed] == Spread(2.5, 2, 3)
    assert "5.00 (4.00 to 6.00) x pytorch, 2.50 (2.00 to 3.00) x pytorch-bf16" in openvino.line()


def test_differences_of_probabilities_masks_and_classes_are_found():
    """The first mask lacks one of its two pixels; only the expected outputs have a tumor in the third slice."""
    expected = np.zeros((3, 1, 2, 2), np.float32)
    expected[0, 0, 0] = expected[1, 0, 0, 0] = expected[2, 0, 0, 0] = 0.9
    probability = expected.copy()
    probability[0, 0, 0, 1] = probability[2, 0, 0, 0] = 0.4
    expected_classes = np.float32([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [1, 0, 0]])
    found = difference(probability, np.float32([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]]), expected, expected_classes)
    assert found.probability == pytest.approx(0.5)
    assert found.mask_pixels == 1  # of the third slice
    assert found.class_probability == pytest.approx(0.1)
    assert difference(expected, expected_classes, expected, expected_classes) == Difference(0, 0, 0)


class Segmenter(nn.Module):
    """A convolution that finds tumor everywhere."""

    def __init__(self):
        super().__init__()
        self.network = nn.Conv2d(1, 1, 1)
        self.dtype = None

    def forward(self, slices):
        output = self.network(slices)
        self.dtype = output.dtype
        return torch.ones_like(slices)


class Classifier(nn.Module):
    def forward(self, slices, probability):
        return torch.full((len(slices), 3), 1 / 3), torch.zeros(len(slices), 4)


@pytest.fixture
def slices(tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.benchmarking.simulated.SIMULATED_SLICES", 2)
    simulate_slices(tmp_path)
    return find_slices([tmp_path])


def test_a_script_that_does_not_compile_is_listed_with_the_reason(slices, tmp_path, monkeypatch, capsys):
    """The others are measured all the same."""

    def fail(network):
        raise RuntimeError("no C++ compiler\nand many more lines")

    def load(name):
        return Script(Segmenter(), Classifier(), slices, compiled="compiled" in name)

    monkeypatch.setattr(torch, "compile", fail)
    names = ["pytorch", "pytorch-compiled"]
    scripts, differences, failures = start_scripts(names, load, write_models(tmp_path / "models"), [1, 2])
    assert list(scripts) == list(differences) == ["pytorch"]
    assert differences["pytorch"].probability > 0.5  # the tiny models find tumor in some pixels only
    assert failures == {"pytorch-compiled": "RuntimeError: no C++ compiler"}
    assert "pytorch-compiled cannot run: RuntimeError: no C++ compiler\n" in capsys.readouterr().out


@pytest.mark.parametrize(("bf16", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_script_computes_in_its_precision_and_measures_what_was_requested(slices, bf16, dtype):
    segmenter = Segmenter()
    script = Script(segmenter, Classifier(), slices, bf16=bf16)
    measurement = script.measure(Request(batch_size=2, batches=3, warm_up=1))
    assert segmenter.dtype == dtype
    assert len(measurement.models_ms) == len(measurement.total_ms) == 3
    assert measurement.classified == 6


def test_backends_draw_no_overlays_like_the_scripts():
    requests = []
    without_overlays(requests.append)(Request(8, 2))
    assert requests == [Request(8, 2, overlays=False)]
