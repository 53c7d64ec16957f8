"""Augmentation transforms slice and mask together."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torchvision import tv_tensors

from train.augment import RandomIntensity, RandomQuarterTurn, augmentation, jitter_mask


def test_slice_and_mask_stay_aligned():
    torch.manual_seed(0)
    mask = torch.zeros(1, 256, 256)
    mask[:, 90:130, 140:200] = 1
    slices = 0.2 + 0.6 * mask
    for _ in range(20):
        augmented, moved = augmentation()(tv_tensors.Image(slices), tv_tensors.Mask(mask))
        inside, outside = augmented[moved > 0.5], augmented[moved < 0.5]
        assert inside.mean() > outside.mean() + 0.2
        bright = augmented > (inside.mean() + outside.mean()) / 2
        overlap = (bright & (moved > 0.5)).sum() / (moved > 0.5).sum()
        assert overlap > 0.85


def test_quarter_turns_come_in_all_four_directions():
    torch.manual_seed(0)
    corner = torch.zeros(1, 8, 8)
    corner[0, 0, 0] = 1
    places = {tuple(torch.nonzero(RandomQuarterTurn()(tv_tensors.Image(corner)))[0].tolist()) for _ in range(40)}
    assert places == {(0, 0, 0), (0, 0, 7), (0, 7, 0), (0, 7, 7)}


def test_intensity_changes_the_slice_and_never_the_mask():
    torch.manual_seed(0)
    slices, mask = torch.rand(1, 32, 32), (torch.rand(1, 32, 32) > 0.5).float()
    changed, same = RandomIntensity()(tv_tensors.Image(slices), tv_tensors.Mask(mask))
    assert not torch.equal(changed, slices)
    assert torch.equal(same, mask)


def test_a_jittered_mask_stays_near_the_tumor_or_is_the_whole_slice():
    torch.manual_seed(0)
    mask = torch.zeros(1, 256, 256)
    mask[:, 100:140, 100:140] = 1
    whole = 0
    for _ in range(100):
        jittered = jitter_mask(mask) >= 0.5
        if jittered.all():
            whole += 1
            continue
        rows, columns = torch.nonzero(jittered[0], as_tuple=True)
        assert abs(float(rows.float().mean()) - 119.5) < 12
        assert abs(float(columns.float().mean()) - 119.5) < 12
    assert 2 <= whole <= 20


def test_an_empty_mask_is_left_empty():
    torch.manual_seed(1)
    assert not jitter_mask(torch.zeros(1, 16, 16)).any()
