"""Tumors are removed from drawn heads with equal halves on a black background."""

import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from train.dataset import SegmenterData, inpainted_copies
from train.inpainting import TumorInpainter, dilate, gaussian_blur, mirror, mirror_axis, similar_slices

SIZE = 96


def head(angle=0.0, offset=0.0, seed=0):
    """(1, SIZE, SIZE): an ellipse of tissue that is the same left and right of an axis."""
    line = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    down, across = torch.meshgrid(line, line, indexing="ij")
    aside = across * math.cos(angle) + down * math.sin(angle) - offset
    along = down * math.cos(angle) - across * math.sin(angle)
    waves = torch.rand(3, generator=torch.Generator().manual_seed(seed)) * 4 + 3
    tissue = 0.5 + 0.1 * sum((wave * aside.abs()).sin() * (wave * along).cos() for wave in waves)
    return (tissue * ((aside / 0.6) ** 2 + (along / 0.8) ** 2 < 1))[None]


def square(top, left, side=14):
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, top : top + side, left : left + side] = 1
    return mask


def with_tumors(heads, masks, subjects=None):
    """The heads with brightness 1 under the masks."""
    slices = torch.stack([torch.where(mask > 0, 1.0, plane) for plane, mask in zip(heads, masks, strict=True)])
    subjects = torch.arange(len(heads)) if subjects is None else torch.tensor(subjects)
    return TumorInpainter(slices.half(), torch.stack(masks).half(), subjects)


@pytest.mark.parametrize(("angle", "offset"), [(0.0, 0.0), (0.15, 0.0), (-0.2, 0.1)])
def test_the_axis_of_a_symmetric_head_is_found_despite_a_tumor(angle, offset):
    mask = square(30, 25)
    found = mirror_axis(torch.where(mask > 0, 1.0, head(angle, offset)), mask > 0)
    assert found[0] == pytest.approx(angle, abs=0.05)
    assert found[1] == pytest.approx(offset, abs=0.03)
    assert found[2] > 0.9


def test_mirroring_moves_left_to_right():
    assert torch.allclose(mirror(square(30, 20)[None], 0.0, 0.0)[0], square(30, SIZE - 34), atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_the_tumor_is_removed_and_distant_pixels_do_not_change(seed):
    """Some seeds mirror and some use a donor. All heads are equal, so both restore the original tissue."""
    torch.manual_seed(seed)
    heads, masks = (
        [head(seed=0) for _ in range(4)],
        [square(*place) for place in ((30, 25), (60, 50), (20, 55), (65, 30))],
    )
    found = with_tumors(heads, masks).inpaint(0)
    assert (found - heads[0]).abs()[masks[0] > 0].mean() < 0.03
    apart = ~dilate(masks[0] > 0, 16)
    assert torch.allclose(found[apart], heads[0][apart], atol=1e-3)
    assert found.dtype == torch.float32


def test_a_donor_with_a_tumor_in_the_same_place_gives_nothing():
    heads, masks = [head(seed=seed) * torch.linspace(0.3, 1, SIZE) for seed in range(4)], [square(40, 30)] * 4
    for seed in range(4):
        torch.manual_seed(seed)
        assert with_tumors(heads, masks).inpaint(0)[masks[0] > 0].max() < 0.8


def test_a_control_never_changes_the_tumor():
    heads, masks = (
        [head(seed=seed) for seed in range(4)],
        [square(*place) for place in ((30, 25), (60, 50), (20, 55), (65, 30))],
    )
    made = with_tumors(heads, masks)
    changed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        found = made.control(0)
        assert torch.allclose(found[masks[0] > 0], torch.ones(1))
        changed += int((found - made.slices[0].float()).abs().max() > 0.05)
    assert changed > 0


@pytest.mark.parametrize("left", [SIZE - 39, SIZE - 45, SIZE - 30])
def test_mirrored_tissue_is_never_a_tumor_of_the_other_side(left):
    """A tumor was mirrored into the area inpainted on the other side, and the slice was called tumor-free."""
    heads = [head(seed=0) for _ in range(4)]
    made = with_tumors(heads, [square(40, 25), *[square(40, left)] * 3])
    for seed in range(8):
        torch.manual_seed(seed)
        hole = square(40, left) > 0
        found = made._filled(0, hole, keep=dilate(square(40, 25) > 0, 6))
        assert found[hole].max() < 0.9, seed


def test_similar_slices_are_of_other_subjects_flipped_or_not():
    left, right = head() + square(40, 25) / 2, head() + square(40, SIZE - 39) / 2
    slices = torch.stack([left, left, right, head(0.2, seed=3)])
    alike = similar_slices(slices, torch.tensor([0, 0, 1, 2]))
    assert alike[0, 0] == 4 + 2  # the third, flipped
    assert not set(alike[0, :2].tolist()) & {0, 1, 4, 5}


def test_blurring_keeps_the_sum_and_spreads_it():
    plane = torch.zeros(1, 41, 41)
    plane[0, 20, 20] = 1
    found = gaussian_blur(plane, 2.0)
    assert float(found.sum()) == pytest.approx(1, abs=1e-4)
    assert float(found.max()) == pytest.approx(1 / (2 * math.pi * 4), rel=0.02)


@pytest.fixture
def data():
    """Three heads of 512 x 512 with a bright square each, as the segmenter's training data."""
    enlarged = [torch.nn.functional.interpolate(head(seed=seed)[None], size=(512, 512))[0] for seed in range(3)]
    masks = torch.zeros(3, 1, 512, 512)
    masks[:, :, 200:260, 150:210] = 1
    slices = torch.where(masks > 0, 1.0, torch.stack(enlarged))
    return SimpleNamespace(slices=slices.half(), masks=masks > 0, subjects=torch.arange(3))


def test_the_inpainted_copies_are_the_same_each_time_and_draw_no_random_number(data):
    torch.manual_seed(5)
    first, second = (inpainted_copies(SegmenterData(data), data.subjects) for _ in range(2))
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert torch.rand(()) == drawn
    assert torch.equal(first.tensors[0], second.tensors[0])
    assert len(first) == 3
    assert float(first.tensors[1].max()) == 0


def test_a_subject_is_never_its_own_donor():
    """With fewer than SIMILAR slices of other subjects, the list was filled with slices of the same subject."""
    slices = torch.stack([head(seed=seed) for seed in range(3)])
    assert similar_slices(slices, torch.tensor([0, 0, 1])).tolist()[2] != [-1] * 6
    for index, ranked in enumerate(similar_slices(slices, torch.tensor([0, 0, 1])).tolist()):
        donors = {place % 3 for place in ranked if place >= 0}
        assert donors == ({2} if index < 2 else {0, 1})
    assert (similar_slices(slices, torch.zeros(3, dtype=torch.int64)) == -1).all()
