"""The two networks of the classifier: start weights and combination. Trainings are in test_training.py."""

from dataclasses import asdict

import onnx
import pytest
from onnx import numpy_helper
from tiny_models import write_models

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from torch.nn import functional as F

from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER, find_model
from train import classifier
from train.classifier import (
    ClassifierNetwork,
    ClassifierSettings,
    ClassifierTraining,
    mean_under,
    start_weights,
    subject_weights,
)

SHIPPED_SEGMENTER = find_model(SEGMENTER, BUNDLED_MODELS).path


@pytest.fixture(scope="module")
def other():
    """A network with weights of another seed."""
    torch.manual_seed(7)
    return ClassifierNetwork()


def test_the_logits_are_the_mean_of_both_networks_with_the_branch_weighted_twice(other):
    network, planes = other.eval(), torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        mean = (network.resnet(planes) + 2 * network.branch(planes)) / 3
        assert torch.allclose(network(planes), mean, atol=1e-6)
        assert not torch.allclose(network.resnet(planes), network.branch(planes), atol=1e-3)


def test_features_are_averaged_where_the_tumor_is():
    features = torch.arange(4.0).reshape(1, 1, 2, 2).repeat(2, 3, 1, 1)
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :4, 4:] = 1  # all of what is 1
    mask[0, :, 4:, 4:6] = 1  # half of what is 3
    found = mean_under(features, mask)
    assert found.shape == (2, 3)
    assert found[0].tolist() == pytest.approx([(1 + 0.5 * 3) / 1.5] * 3, abs=1e-3)
    assert found[1].tolist() == pytest.approx([1.5] * 3)  # no mask: all alike


def test_the_class_of_a_slice_does_not_depend_on_its_batch(other):
    planes = torch.rand(3, 3, 128, 128)
    with torch.inference_mode():
        assert torch.allclose(other.eval()(planes)[2:], other(planes[2:]), atol=1e-4)


def test_the_branch_starts_from_the_encoder_of_the_exported_segmenter():
    network = ClassifierNetwork()
    before = {name: value.clone() for name, value in network.resnet.state_dict().items()}
    start_weights(network, "none", SHIPPED_SEGMENTER)
    exported = {item.name: numpy_helper.to_array(item) for item in onnx.load(SHIPPED_SEGMENTER).graph.initializer}
    own = {name: value for name, value in network.branch.encoder.state_dict().items() if "num_batches" not in name}
    assert len(own) == 240  # BatchNorm's four each, and one of each convolution
    for name, value in own.items():
        stored = exported.get(f"network.encoder.{name}_fp16", exported.get(f"network.encoder.{name}"))
        assert (value.numpy() == stored).all(), name
    assert all(torch.equal(value, before[name]) for name, value in network.resnet.state_dict().items())


def test_a_file_of_a_resnet_leaves_the_branch_with_the_segmenters_encoder(other, tmp_path):
    """Like the files of torchvision, whose last layer has other classes."""
    torch.save(other.resnet.state_dict() | {"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "resnet.pth")
    network = ClassifierNetwork()
    start_weights(network, str(tmp_path / "resnet.pth"), SHIPPED_SEGMENTER)
    assert torch.equal(network.resnet.layer4[0].conv1.weight, other.resnet.layer4[0].conv1.weight)
    assert network.resnet.fc.weight.shape == (3, 2048)
    stem = network.branch.encoder.model.conv_stem.weight
    assert not torch.equal(stem, other.branch.encoder.model.conv_stem.weight)


def test_the_weights_of_a_run_contain_both_networks(other, tmp_path):
    state = {f"network.{name}": value for name, value in other.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    network = ClassifierNetwork()
    start_weights(network, str(tmp_path / "best.ckpt"), SHIPPED_SEGMENTER)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())


def test_an_exported_classifier_contains_both_networks(other):
    graph = find_model(CLASSIFIER, BUNDLED_MODELS).path
    start_weights(other, str(graph), SHIPPED_SEGMENTER)
    exported = {item.name: numpy_helper.to_array(item) for item in onnx.load(graph).graph.initializer}
    for name in ("resnet.layer4.2.conv3.weight", "branch.last.weight", "resnet.bn1.running_mean"):
        stored = exported.get(f"network.{name}_fp16", exported.get(f"network.{name}"))
        assert (other.state_dict()[name].numpy() == stored).all(), name


def test_a_segmenter_of_another_kind_is_refused_by_name(tmp_path):
    path = find_model(SEGMENTER, write_models(tmp_path)).path
    with pytest.raises(CascadeError, match=r"segmenter\.onnx: holds another network's weights"):
        start_weights(ClassifierNetwork(), "none", path)


@pytest.mark.parametrize(("by_subject", "of_each"), [(0.0, [4.0, 1.0]), (0.5, [2.0, 1.0]), (1.0, [1.0, 1.0])])
def test_slices_are_drawn_by_slice_by_subject_or_between(by_subject, of_each):
    subjects = torch.tensor([0, 1, 0, 0, 0])
    weights = subject_weights(subjects, by_subject)
    assert [float(weights[subjects == subject].sum()) for subject in (0, 1)] == of_each


def test_each_network_has_a_loss_of_its_own(monkeypatch):
    """With one loss of the mean, a network would not learn where the other one is right."""
    monkeypatch.setattr(classifier, "ClassifierNetwork", torch.nn.Identity)
    training = ClassifierTraining(asdict(ClassifierSettings(label_smoothing=0)), [1.0, 1.0, 1.0])
    sure, wrong, labels = torch.tensor([[9.0, 0, 0]]), torch.tensor([[0, 9.0, 0]]), torch.tensor([0])
    monkeypatch.setattr(training.network, "each", lambda planes: (sure, wrong), raising=False)
    monkeypatch.setattr(training, "log", lambda *_, **__: None)
    loss = training.training_step((torch.zeros(1, 1, 512, 512), torch.ones(1, 1, 512, 512), labels))
    assert float(loss) == pytest.approx(float(F.cross_entropy(sure, labels) + F.cross_entropy(wrong, labels)) / 2)
