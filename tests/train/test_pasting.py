"""Tumors pasted into drawn heads: bright ellipses on black, with a darker structure inside."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from train.donors import most_similar
from train.heads import LEVELS, find_heads, gray_levels, head_mask
from train.paster import Paster
from train.pasting import onto_head
from train.restyling import match_levels, restyle

SIZE = 256


def head(center=(128, 128), radii=(100, 80), level=0.4, slope=0.1):
    """(SIZE, SIZE) float32: an ellipse, brighter from left to right, in a brighter scalp."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot((rows - center[0]) / radii[0], (columns - center[1]) / radii[1])
    tissue = level + slope * (columns - center[1]) / radii[1]
    return np.where(distance < 0.92, tissue, np.where(distance < 1, 0.8, 0.0)).astype(np.float32)


def disk(center, radius):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (np.hypot(rows - center[0], columns - center[1]) <= radius).astype(np.float32)


def tensor(*planes):
    return torch.from_numpy(np.stack(planes))[:, None].half()


@pytest.fixture
def paster():
    """Donors: class 0 with a bright tumor at the upper left, class 2 with a dark one at the lower right."""
    masks = [disk((90, 100), 12), disk((150, 150), 14)]
    donors = [np.where(masks[0] > 0, 1.0, head()), np.where(masks[1] > 0, 0.0, head())]
    hosts = [head((128, 128), (90, 72), 0.3), head((120, 130), (80, 66), 0.6), head(level=0.5)]
    return Paster(
        tensor(*donors),
        tensor(*masks),
        torch.tensor([0, 2]),
        torch.ones(2),
        tensor(*hosts),
        torch.arange(3),
        torch.ones(3, dtype=torch.float64),
        tensor(*hosts),
        torch.ones(3, dtype=torch.float64),
    )


def test_the_head_includes_its_holes_and_no_specks():
    plane = head()
    plane[120:136, 120:136] = 0
    plane[5:8, 5:8] = 1
    mask = head_mask(plane)
    assert mask[128, 128]
    assert not mask[6, 6]
    assert np.count_nonzero(mask) == pytest.approx(np.pi * 100 * 80, rel=0.05)
    assert find_heads(tensor(plane)).boxes[0] == pytest.approx([48, 28, 208, 228], abs=3)


def test_gray_levels_increase_and_matching_adopts_the_contrast_of_the_target():
    dark, bright = head(level=0.2, slope=0.05), head(level=0.6, slope=0.2)
    assert (np.diff(gray_levels(dark)) > 0).all()
    matched = match_levels(dark, gray_levels(dark), gray_levels(bright))
    inside = disk((128, 128), 50) > 0
    assert matched[inside] == pytest.approx(bright[inside], abs=0.03)
    assert matched[0, 0] == pytest.approx(0, abs=1e-3)
    assert len(gray_levels(dark)) == LEVELS + 1


def test_restyling_moves_towards_the_other_scanner():
    dark, bright = head(level=0.2, slope=0.05), head(level=0.6, slope=0.2)
    for seed in range(5):
        styled = restyle(dark, gray_levels(dark), gray_levels(bright), np.random.default_rng(seed))
        assert dark[128, 128] + 0.1 < styled[128, 128] <= bright[128, 128] + 0.02


def test_one_head_is_resampled_onto_another():
    box, host = np.array([48, 28, 208, 228], np.float32), np.array([68, 58, 148, 158], np.float32)
    moved = onto_head(disk((128, 128), 20), box, host, np.ones(2), np.zeros(2), mirror=False)
    rows, columns = np.nonzero(moved > 0.5)
    assert (rows.mean(), columns.mean()) == pytest.approx((108, 108), abs=0.6)  # centers fall on each other
    assert (np.ptp(rows), np.ptp(columns)) == pytest.approx((20, 20), abs=1.5)  # at half the size
    left = onto_head(disk((128, 68), 10), box, host, np.ones(2), np.zeros(2), mirror=True)
    assert np.nonzero(left > 0.5)[1].mean() == pytest.approx(138, abs=1)  # 60 left of the center: now 30 to its right


def test_similar_heads_rank_first_and_others_are_left_out():
    coarse = find_heads(tensor(head(), head(slope=-0.1), 1 - head()))
    ranked = most_similar(coarse.descriptors[:1], coarse.descriptors)
    assert ranked[0, :2].tolist() == [0, 4]  # itself, then the mirror image of the one with the opposite slope
    allowed = np.array([[False, True, True]])
    assert set(most_similar(coarse.descriptors[:1], coarse.descriptors, allowed)[0].tolist()) <= {1, 4, -1}


def test_a_pasted_tumor_lies_under_its_mask_and_other_pixels_do_not_change(paster):
    random, seen = np.random.default_rng(0), set()
    for _ in range(12):
        plane, mask, label = paster.pasted(random)
        seen.add(label)
        host = min(range(3), key=lambda index: np.abs(paster.negatives[index, 0].numpy() - plane).sum())
        difference = plane - paster.negatives[host, 0].float().numpy()
        core, far = mask >= 0.99, ~(disk((0, 0), 0) > 0) & (mask == 0)
        assert np.count_nonzero(mask >= 0.5) >= 40
        assert np.sign(difference[core].mean()) == (1 if label == 0 else -1)
        assert np.abs(difference[core]).mean() > 10 * np.abs(difference[far]).mean()
    assert seen == {0, 2}


def test_class_odds_choose_the_class(paster):
    random = np.random.default_rng(0)
    assert {paster.pasted(random, class_odds=(0.0, 1.0, 1.0))[2] for _ in range(6)} == {2}


def test_a_class_that_seldom_fits_is_drawn_as_often_as_the_others(paster, monkeypatch):
    """The class was drawn again for each host, so the class that fits easily was pasted more often."""
    monkeypatch.setattr(
        paster,
        "_pasted_into",
        lambda host, label, random, control: (head(), head()) if label == 0 or random.random() < 0.3 else None,
    )
    random = np.random.default_rng(0)
    labels = [paster.pasted(random)[2] for _ in range(300)]
    assert 0.45 < labels.count(0) / 300 < 0.55


def test_a_control_has_no_tumor(paster):
    random = np.random.default_rng(0)
    for _ in range(6):
        plane, mask, label = paster.pasted(random, control=True)
        assert label == -1
        assert mask.max() == 0
        host = min(range(3), key=lambda index: np.abs(paster.negatives[index, 0].numpy() - plane).sum())
        assert np.abs(plane - paster.negatives[host, 0].float().numpy()).max() < 0.35


def test_without_a_possible_host_the_slice_does_not_change():
    """A small head, and one on gray ground."""
    hosts = [head(radii=(40, 30)), np.maximum(head(), 0.2)]
    paster = Paster(
        tensor(head()),
        tensor(disk((90, 100), 12)),
        torch.tensor([1]),
        torch.ones(1),
        tensor(*hosts),
        torch.arange(2),
        torch.ones(2, dtype=torch.float64),
        tensor(*hosts),
        torch.ones(2, dtype=torch.float64),
    )
    assert not paster.hosts.can_host().any()


def test_pasting_works_on_finer_slices(paster):
    """The classifier's slices have twice as many pixels per side; heads are described on the coarse ones."""

    def fine(planes):
        return planes.repeat_interleave(2, 2).repeat_interleave(2, 3)

    twice = Paster(
        fine(paster.slices),
        fine(paster.masks),
        torch.tensor([0, 2]),
        torch.ones(2),
        fine(paster.negatives),
        torch.arange(3),
        torch.ones(3, dtype=torch.float64),
        fine(paster.negatives),
        torch.ones(3, dtype=torch.float64),
    )
    coarse = [paster.pasted(np.random.default_rng(seed)) for seed in range(4)]
    finer = [twice.pasted(np.random.default_rng(seed)) for seed in range(4)]
    for (_, mask, label), (plane, area, same) in zip(coarse, finer, strict=True):
        assert plane.shape == (512, 512)
        assert same == label
        assert area.sum() == pytest.approx(4 * mask.sum(), rel=0.05)
