"""Every kind of training slice is drawn with its share, and has its own target."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import train.mixture
from train.classifier import default_mixture
from train.mixture import ClassifierMixture, External, MixedCrops, MixedData, Mixture, class_shares, usable_tumors

PLAIN = Mixture(inpainted=0, inpainted_controls=0)


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    """No augmentation, and no jitter of masks."""
    monkeypatch.setattr(train.mixture, "augmentation", lambda: lambda *pair: pair)
    monkeypatch.setattr(train.mixture, "jitter_mask", lambda mask: mask)


@pytest.fixture
def store():
    """Two slices of level 0.5 and a bright square each."""
    masks = torch.zeros(2, 1, 512, 512, dtype=torch.bool)
    masks[:, :, 200:260, 150:210] = True
    slices = torch.where(masks, 1.0, torch.rand(2, 1, 512, 512) * 0.1 + 0.45)
    return SimpleNamespace(slices=slices.half(), masks=masks, labels=torch.tensor([0, 2]), subjects=torch.arange(2))


@pytest.fixture
def external():
    """A glioma whose whole slice is uncertain, level 0.2, and a tumor-free slice, level 0.8."""
    targets = torch.zeros(2, 2, 512, 512, dtype=torch.bool)
    targets[0, 1] = True
    return SimpleNamespace(
        items=[SimpleNamespace(subject=name, set_name="A", set_weight=None) for name in "ab"],
        slices=torch.stack([torch.full((1, 512, 512), level) for level in (0.2, 0.8)]).half(),
        targets=targets,
        labels=torch.tensor([1, -1]),
        subjects=torch.arange(2),
        weights=torch.ones(2, dtype=torch.float64),
    )


def test_without_shares_the_slices_of_the_data_set_are_unchanged(store):
    data = MixedData(store, PLAIN, torch.ones(2))
    slice_, target = data[1]
    assert torch.equal(slice_, data.data[1][0])
    assert torch.equal(target, data.data[1][1])


def test_among_the_tumors_every_subject_is_drawn_equally_often():
    """`a` has one slice with a tumor and three without: its tumor was drawn a quarter as often as that of `b`."""
    store = SimpleNamespace(
        items=[SimpleNamespace(subject=name, set_name="A", set_weight=None) for name in "aaaabb"],
        labels=torch.tensor([1, -1, -1, -1, 1, 1]),
    )
    assert External(store, tumors=True).weights.tolist() == pytest.approx([2**-0.5, 2**-0.5 / 2, 2**-0.5 / 2])
    assert External(store, tumors=False).weights.tolist() == pytest.approx([1 / 3] * 3)


def test_the_shares_of_the_classes_include_pasted_and_external_tumors(external):
    """Two meningiomas and a glioma of weight 2; no pituitary tumor, so none can be pasted; one external glioma."""
    labels, drawn = torch.tensor([0, 0, 1]), torch.tensor([1.0, 1.0, 2.0])
    assert class_shares(labels, drawn, ClassifierMixture()).tolist() == pytest.approx([0.5, 0.5, 0])
    mixture = ClassifierMixture(pasted=0.3, external_tumors=0.1, pasted_odds=(2.0, 1.0, 2.0))
    tumors = External(external, tumors=True)
    assert class_shares(labels, drawn, mixture, tumors).tolist() == pytest.approx([0.3 + 0.2, 0.3 + 0.1 + 0.1, 0])


def test_external_tumors_that_show_nothing_have_no_share_and_are_not_drawn(store, external):
    """A slice with a class alone, in which the segmenter finds nothing: the classes were weighted as if it counted."""
    nothing = torch.zeros(2, 1, 512, 512, dtype=torch.bool)
    tumors = usable_tumors(external, nothing)
    mixture = ClassifierMixture(external_tumors=1)
    assert class_shares(torch.tensor([0, 1]), torch.ones(2), mixture, tumors).tolist() == [0.5, 0.5, 0]
    _, _, label = MixedCrops(store, store.masks, mixture, torch.ones(2), external, nothing)[1]
    assert int(label) == 2


@pytest.mark.slow
def test_external_slices_come_in_their_shares_with_their_targets(store, external):
    torch.manual_seed(0)
    mixture = Mixture(inpainted=0, inpainted_controls=0, external_tumors=0.25, external_negatives=0.5)
    items = [MixedData(store, mixture, torch.ones(2), external)[0] for _ in range(400)]
    levels = [round(float(slice_[0, 0, 0]), 1) for slice_, _ in items]
    assert 70 < levels.count(0.2) < 130
    assert 160 < levels.count(0.8) < 240
    for level, (_, target) in zip(levels, items, strict=True):
        tumor, uncertain = target.amax((1, 2)).tolist()
        assert (tumor, uncertain) == {0.2: (0, 1), 0.8: (0, 0)}.get(level, (1, 0))


def test_an_inpainted_slice_has_an_empty_target_and_a_control_keeps_its_tumor(store):
    torch.manual_seed(0)
    plain = MixedData(store, PLAIN, torch.ones(2)).data[0]
    slice_, target = MixedData(store, Mixture(inpainted=1), torch.ones(2))[0]
    assert target.max() == 0
    assert not torch.equal(slice_, plain[0])
    slice_, target = MixedData(store, Mixture(inpainted=0, inpainted_controls=1), torch.ones(2))[0]
    assert torch.equal(target, plain[1])
    assert torch.allclose(slice_[target[:1] > 0], torch.ones(1))


def test_the_classifier_learns_from_true_and_predicted_masks_alike(store):
    torch.manual_seed(0)
    predicted = store.masks.flip(2)
    data = MixedCrops(store, predicted, ClassifierMixture(), torch.ones(2))
    masks = [data[0][1] for _ in range(100)]
    assert all(torch.equal(mask, store.masks[0]) or torch.equal(mask, predicted[0]) for mask in masks)
    assert 30 < sum(torch.equal(mask, predicted[0]) for mask in masks) < 70
    slice_, mask, label = data[1]
    assert (slice_.dtype, mask.dtype, int(label)) == (torch.float16, torch.bool, 2)


def test_the_true_mask_replaces_an_empty_predicted_mask(store):
    data = MixedCrops(store, torch.zeros_like(store.masks), ClassifierMixture(), torch.ones(2))
    assert all(torch.equal(data[0][1], store.masks[0]) for _ in range(10))


def test_an_external_tumor_keeps_its_own_class(store, external):
    predicted = torch.zeros(2, 1, 512, 512, dtype=torch.bool)
    predicted[0, :, 300:350, 300:350] = True
    data = MixedCrops(store, store.masks, ClassifierMixture(external_tumors=1), torch.ones(2), external, predicted)
    slice_, _, label = data[0]
    assert float(slice_[0, 0, 0]) == pytest.approx(0.2, abs=0.01)
    assert int(label) == 1


def test_the_certain_part_of_an_external_tumor_is_its_true_mask(store, external):
    """The uncertain ring around it belonged to it, and the crop was four times as wide."""
    external.targets[0] = False
    external.targets[0, 0, 300:350, 300:350] = True
    external.targets[0, 1, 250:400, 250:400] = True
    nothing = torch.zeros(2, 1, 512, 512, dtype=torch.bool)
    data = MixedCrops(store, store.masks, ClassifierMixture(external_tumors=1), torch.ones(2), external, nothing)
    _, mask, _ = data[0]
    assert torch.equal(mask[0], external.targets[0, 0])


@pytest.mark.parametrize(
    ("labels", "pasted", "tumors"),
    [((), False, False), (("none",), True, False), (("glioma",), False, True), (("none", "glioma"), True, True)],
)
def test_the_classifier_uses_every_kind_of_external_slice_that_there_is(labels, pasted, tumors):
    """External tumors were silently ignored if there were no tumor-free slices."""
    mixture = default_mixture([SimpleNamespace(label=label) for label in labels])
    assert bool(mixture.pasted) == bool(mixture.restyled) == pasted
    assert bool(mixture.external_tumors) == tumors


class StubPaster:
    """Styles have level 0.3; pasted tumors are gliomas with their corner at (300, 300), on a level of 0.6."""

    def __init__(self, *arguments):
        pass

    def restyled(self, index, random):
        return np.full((512, 512), 0.3, np.float32)

    def pasted(self, random, *, control=False, class_odds=()):
        mask = np.zeros((512, 512), np.float32)
        mask[300:350, 300:350] = not control
        return np.full((512, 512), 0.6, np.float32), mask, -1 if control else 1


@pytest.mark.parametrize(
    ("kind", "level", "corner"),
    [
        ("restyled", 0.3, (100, 75)),  # the segmenter sees half of the resolution
        ("pasted", 0.6, (300, 300)),
        ("pasted_controls", 0.6, None),
    ],
)
def test_a_restyled_slice_keeps_its_target_and_a_pasted_tumor_brings_its_own(
    store, external, monkeypatch, kind, level, corner
):
    monkeypatch.setattr(train.mixture, "Paster", StubPaster)
    mixture = Mixture(inpainted=0, inpainted_controls=0, **{kind: 1.0})
    slice_, target = MixedData(store, mixture, torch.ones(2), external)[0]
    assert float(slice_[0, 0, 0]) == pytest.approx(level, abs=1e-3)
    tumor = [tuple(pixel) for pixel in torch.nonzero(target[0]).tolist()]
    assert (tumor[0] if tumor else None) == corner
    assert target[1].max() == 0


def test_a_pasted_tumor_has_its_own_mask_and_class(store, external, monkeypatch):
    monkeypatch.setattr(train.mixture, "Paster", StubPaster)
    predicted = torch.ones(2, 1, 512, 512, dtype=torch.bool)
    mixture = ClassifierMixture(pasted=1.0)
    _, mask, label = MixedCrops(store, store.masks, mixture, torch.ones(2), external, predicted)[0]
    assert (int(label), bool(mask[0, 320, 320]), bool(mask[0, 220, 180])) == (1, True, False)


def test_every_class_of_external_tumors_counts_as_a_tumor(external):
    """Meningiomas have the number 0."""
    external.labels = torch.tensor([0, -1, 2])
    external.items = external.items[:1] * 3
    assert External(external, tumors=True).places.tolist() == [0, 2]
    assert External(external, tumors=False).places.tolist() == [1]
