"""The segmenter's network: outlines and detection share three stages, and the detection can learn alone."""

from copy import deepcopy
from dataclasses import asdict

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from segmentation_models_pytorch.base import ClassificationHead

from cascade.errors import CascadeError
from train.segmenter import SegmenterSettings, SegmenterTraining, train_segmenter
from train.segmenter_network import SHARED_STAGES, SegmenterNetwork, start_weights

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


def test_imagenet_weights_reach_the_stages_of_the_detection():
    network = SegmenterNetwork()
    start_weights(network, "imagenet")
    encoder = network.encoder.model.blocks[SHARED_STAGES:].state_dict()
    assert all(torch.equal(value, encoder[name]) for name, value in network.detector[0].state_dict().items())


@pytest.mark.parametrize("detection_only", [True, False])
def test_only_the_detection_learns_where_that_is_asked_for(detection_only, monkeypatch):
    training = SegmenterTraining(asdict(SegmenterSettings(detection_only=detection_only)))
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


def test_the_detection_alone_needs_outlines_to_keep(tmp_path):
    settings = SegmenterSettings(detection_only=True, weights="imagenet")
    with pytest.raises(CascadeError, match="keeps outlines, and the weights `imagenet` have none"):
        train_segmenter(tmp_path, tmp_path / "split.json", tmp_path / "run", settings, resume=False)
