"""The segmenter's network: outlines and detection share three stages, and the detection can learn alone."""

from copy import deepcopy
from dataclasses import asdict

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from segmentation_models_pytorch.base import ClassificationHead

from cascade.errors import CascadeError
from train.segmenter import SegmenterSettings, SegmenterTraining
from train.segmenter_network import SegmenterNetwork, start_weights
from train.weights import SHARED_STAGES, mean_weights

PLANES = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = SegmenterNetwork()
    with torch.no_grad():
        network(PLANES)  # BatchNorm's averages get values of their own
    return network.eval()


def test_the_detection_alone_is_that_of_the_whole_network(network):
    logits, detection = network(PLANES)
    assert logits.shape == PLANES.shape
    assert detection.shape == (2, 1)
    torch.testing.assert_close(network.detect(PLANES), detection)


def test_the_detection_has_last_stages_of_its_own(network):
    network = deepcopy(network)
    logits, detection = network(PLANES)
    with torch.no_grad():
        for parameter in network.encoder.model.blocks[SHARED_STAGES:].parameters():
            parameter.add_(0.1)
    assert torch.equal(network(PLANES)[1], detection)
    assert not torch.allclose(network(PLANES)[0], logits)


def test_a_segmenter_whose_detection_shared_all_stages_answers_as_before(network, tmp_path):
    head = ClassificationHead(320, classes=1, pooling="max").eval()
    tensors = {name: value for name, value in network.state_dict().items() if not name.startswith("detector")}
    tensors |= {f"classification_head.{name}": value for name, value in head.state_dict().items()}
    torch.save(tensors, tmp_path / "earlier.pt")
    loaded = SegmenterNetwork().eval()
    start_weights(loaded, str(tmp_path / "earlier.pt"))
    logits, detection = loaded(PLANES)
    torch.testing.assert_close(logits, network(PLANES)[0])
    torch.testing.assert_close(detection, head(network.encoder(PLANES)[-1]))


def test_a_segmenter_of_before_is_averaged_with_its_detection_too(network, tmp_path):
    network = deepcopy(network)
    with torch.no_grad():
        network.detector[0][3][0].conv_pw.weight.add_(0.1)
    shared = {name: value for name, value in network.state_dict().items() if not name.startswith("detector")}
    shared |= {f"classification_head.{name}": value for name, value in network.detector[1].state_dict().items()}
    torch.save(shared, tmp_path / "earlier.pt")
    torch.save(network.state_dict(), tmp_path / "present.pt")
    mean = mean_weights([tmp_path / "present.pt", tmp_path / "earlier.pt"])
    name = "6.0.conv_pw.weight"
    own, copied = network.state_dict()[f"detector.0.{name}"], shared[f"encoder.model.blocks.{name}"]
    torch.testing.assert_close(mean[f"detector.0.{name}"], (own + copied) / 2)


def test_imagenet_weights_reach_the_stages_of_the_detection():
    network = SegmenterNetwork()
    start_weights(network, "imagenet")
    encoder = network.encoder.model.blocks[SHARED_STAGES:].state_dict()
    assert all(torch.equal(value, encoder[name]) for name, value in network.detector[0].state_dict().items())


@pytest.mark.parametrize("detection_only", [True, False])
def test_only_the_detection_learns_where_that_is_asked_for(detection_only, monkeypatch):
    training = SegmenterTraining(asdict(SegmenterSettings(detection_only=detection_only, weights="start.onnx")))
    monkeypatch.setattr(training, "log", lambda *_, **__: None)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    optimizer = torch.optim.AdamW(training.parameters(), lr=1e-3, weight_decay=0.1)
    targets = torch.zeros(2, 2, 32, 32)
    targets[0, 0, 10:20, 10:20] = 1
    for _ in range(2):
        training.train()
        training.training_step((PLANES, targets)).backward()
        optimizer.step()
    after = training.network.state_dict()
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == ({"detector"} if detection_only else {"detector", "encoder", "decoder", "segmentation_head"})


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_the_detection_alone_needs_outlines_to_keep(weights):
    with pytest.raises(CascadeError, match=f"keeps outlines, and the weights `{weights}` have none"):
        SegmenterSettings(detection_only=True, weights=weights)
