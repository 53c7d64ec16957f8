"""From the predictions of the slices of a volume to one finding."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cascade.contract import CLASS_NAMES
from cascade.volume.components import find_components
from cascade.volume.finding import VolumeRule, find_tumor
from cascade.volume.stack import Stack

GLIOMA = (0.1, 0.8, 0.1)
RULE = VolumeRule(min_support=6.0)


def stack_of(shape, *blocks, evidence=1.0, probabilities=GLIOMA, spacing_mm=None, slab_mm=None):
    """A stack with tumor in blocks (slices, rows, columns), each a pair of start and end."""
    stack = Stack.empty(shape, spacing_mm, slab_mm)
    masks = np.zeros(shape, dtype=bool)
    for block in blocks:
        masks[tuple(slice(*edges) for edges in block)] = True
    for index in np.flatnonzero(masks.any(axis=(1, 2))):
        put(stack, index, masks[index], evidence, probabilities)
    return stack


def put(stack, index, mask, probability, class_probability):
    """Set a slice: the tumor probability of all pixels of its mask, or of each pixel (H, W)."""
    stack.put(index, mask, np.broadcast_to(np.float32(probability), mask.shape)[mask], class_probability)


def test_a_component_of_one_slice_is_no_finding_and_one_of_two_slices_is():
    """A volume has up to 200 slices: a false positive on any of them made every head a tumor."""
    stray = stack_of((20, 40, 40), ((7, 8), (10, 20), (10, 20)))
    pair = stack_of((20, 40, 40), ((7, 9), (10, 20), (10, 20)))
    finding, mask = find_tumor(stray, RULE)
    assert (finding.status, finding.label, finding.key_slice, finding.tumor_slices) == ("no_tumor", None, None, 0)
    assert finding.support == pytest.approx(4.0)
    assert not mask.any()
    finding, mask = find_tumor(pair, RULE)
    assert (finding.status, finding.label, finding.tumor_slices, finding.slices) == ("tumor", "glioma", 2, 20)
    assert finding.support == pytest.approx(8.0)
    assert (mask == pair.masks).all()


def test_stray_slices_do_not_support_each_other():
    stack = stack_of((20, 40, 40), *(((index, index + 1), (10, 20), (10, 20)) for index in range(0, 20, 2)))
    assert find_tumor(stack, RULE)[0].status == "no_tumor"


def test_neighbors_with_a_tumor_elsewhere_do_not_support_a_component():
    stack = stack_of((20, 40, 40), ((7, 8), (0, 10), (0, 10)), ((8, 9), (20, 30), (20, 30)))
    assert find_tumor(stack, RULE)[0].status == "no_tumor"


def test_a_speck_beside_a_tumor_does_not_inherit_its_support():
    """Each component of a slice had the highest probability of the slice: specks of 0.6 counted like the tumor."""
    stack = stack_of((20, 40, 40), ((5, 8), (5, 15), (5, 15)))
    mask = stack.masks[6].copy()
    mask[30:32, 30:32] = True
    probability = np.where(np.arange(40) < 20, 0.99, 0.6)
    for index in (6, 7):
        put(stack, index, mask, probability, GLIOMA)
    finding, mask = find_tumor(stack, RULE)
    assert (finding.tumor_slices, mask[5:8, 5:15, 5:15].all(), mask.sum()) == (3, True, 3 * 10 * 10)
    assert finding.support == pytest.approx(4.0 + 2 * 4.0)  # the log-odds of 0.99 are 4.6, and limited to 4


def test_the_most_probable_pixel_of_a_component_is_its_evidence_also_if_it_has_several_parts_in_a_slice():
    """exp(2) to 1 is a probability of 0.881. The parts join in the slice above, where all pixels have 0.5."""
    stack = stack_of((20, 40, 40), ((6, 7), (10, 11), (10, 21)), evidence=0.5)
    mask, probability = np.zeros((40, 40), dtype=bool), np.full((40, 40), 0.5)
    mask[10, [10, 20]] = True
    probability[10, 20] = np.exp(2) / (1 + np.exp(2))
    put(stack, 5, mask, probability, GLIOMA)
    assert find_components(stack.masks).areas.shape == (20, 1)
    assert find_tumor(stack, RULE)[0].support == pytest.approx(2.0)


def test_the_mask_holds_the_accepted_components_only():
    stack = stack_of((20, 40, 40), ((5, 8), (5, 15), (5, 15)), ((6, 7), (30, 35), (30, 35)))
    mask = find_tumor(stack, RULE)[1]
    assert mask[5:8, 5:15, 5:15].all()
    assert mask.sum() == 3 * 10 * 10


def test_components_touch_across_slices_at_a_corner():
    """The outline of a thin tumor moves from slice to slice, the more the wider the gap between them."""
    stack = stack_of((20, 40, 40), ((2, 3), (5, 10), (5, 10)), ((3, 4), (10, 15), (10, 15)))
    assert find_components(stack.masks).areas.shape == (20, 1)
    assert find_tumor(stack, RULE)[0].status == "tumor"


def test_the_log_odds_of_the_slices_add_up():
    """exp(1) to 1 is a probability of 0.731, and log-odds of 1; those of 0.5 are 0."""
    block = (7, 10), (10, 20), (10, 20)
    for evidence, support in ((np.e / (1 + np.e), 3.0), (0.5, 0.0)):
        assert find_tumor(stack_of((20, 40, 40), block, evidence=evidence), RULE)[0].support == pytest.approx(support)


def test_thin_slices_count_less_than_those_of_full_thickness_or_with_a_gap():
    """Neighbors 1 mm apart show the same tissue, and so the same false positive: five of them count as one of 5 mm."""
    block = (5, 10), (10, 20), (10, 20)
    support = {
        distance: find_tumor(stack_of((60, 40, 40), block, slab_mm=(distance,) * 60), RULE)[0].support
        for distance in (1.0, 2.5, 5.0, 7.0)
    }
    assert support == pytest.approx({1.0: 4.0, 2.5: 10.0, 5.0: 20.0, 7.0: 20.0})


def test_many_slices_without_spacing_must_be_thin_and_count_so():
    """200 slices of 5 mm would be a meter. They count as 40 slices of a head of 200 mm."""
    block = (5, 10), (10, 20), (10, 20)
    support = {count: find_tumor(stack_of((count, 40, 40), block), RULE)[0].support for count in (20, 40, 200)}
    assert support == pytest.approx({20: 20.0, 40: 20.0, 200: 4.0})


def test_in_a_stack_of_few_slices_one_slice_is_enough():
    """With three slices 20 mm apart, a tumor of 15 mm shows in one of them. Up to 12 slices, the limit rises to 6."""
    block = ((1, 2), (10, 20), (10, 20))
    assert find_tumor(stack_of((3, 40, 40), block, evidence=0.9), RULE)[0].status == "tumor"
    assert find_tumor(stack_of((12, 40, 40), block), RULE)[0].status == "no_tumor"


def test_a_single_slice_is_decided_as_by_itself():
    block = ((0, 1), (10, 20), (10, 20))
    for slab_mm in (None, (1.0,)):
        stack = stack_of((1, 40, 40), block, evidence=0.5, slab_mm=slab_mm)
        assert find_tumor(stack, RULE)[0].status == "tumor"


def test_in_a_slab_of_many_thin_slices_one_slice_is_not_enough():
    """20 slices of 1 mm are 4 full ones, so 3/11 of the limit are enough, 1.6. One slice gives 0.8, and three 2.4."""
    one, three = (stack_of((20, 40, 40), ((1, end), (10, 20), (10, 20)), slab_mm=(1.0,) * 20) for end in (2, 4))
    assert find_tumor(one, RULE)[0].support == pytest.approx(0.8)
    assert [find_tumor(stack, RULE)[0].status for stack in (one, three)] == ["no_tumor", "tumor"]


def test_the_volume_counts_spacing_and_gaps():
    """2 slices of 100 pixels of 0.5 x 2 mm: 100 mm2 each, one for 3 mm and one for 5 mm: 800 mm3."""
    slab_mm = (3.0, 3.0, 5.0, 7.0)
    stack = stack_of((4, 40, 40), ((1, 3), (10, 20), (10, 20)), spacing_mm=(0.5, 2.0), slab_mm=slab_mm)
    finding, _ = find_tumor(stack, RULE)
    assert finding.volume_ml == pytest.approx(0.8)


def test_without_spacing_there_is_no_volume_and_no_diameter_but_a_key_slice():
    stack = stack_of((6, 40, 40), ((2, 4), (10, 20), (10, 20)), ((3, 4), (10, 20), (20, 25)))
    finding, _ = find_tumor(stack, RULE)
    assert (finding.volume_ml, finding.diameters, finding.key_slice) == (None, None, 3)


def test_the_diameters_are_those_of_the_slice_where_their_product_is_largest():
    stack = stack_of(
        (6, 40, 40),
        ((2, 3), (10, 15), (10, 15)),
        ((3, 4), (12, 13), (12, 33)),
        spacing_mm=(1.0, 1.0),
        slab_mm=(5.0,) * 6,
    )
    finding, _ = find_tumor(stack, RULE)
    assert finding.key_slice == 2  # 21 mm x 1 mm in the other
    assert finding.diameters
    assert finding.diameters.longest_mm == pytest.approx(np.hypot(5, 4))


def test_the_class_is_the_mean_over_the_slices_weighted_by_the_area_of_the_tumor():
    """300 pixels of a meningioma in one slice and 100 of a pituitary tumor in another: 0.75 to 0.25."""
    stack = Stack.empty((8, 40, 40))
    masks = np.zeros((2, 40, 40), dtype=bool)
    masks[0, :15, :20] = masks[1, :5, :20] = True
    put(stack, 3, masks[0], 1.0, (1, 0, 0))
    put(stack, 4, masks[1], 1.0, (0, 0, 1))
    finding, _ = find_tumor(stack, RULE, uncertain_below=0.8)
    assert finding.probabilities == pytest.approx(dict(zip(CLASS_NAMES, (0.75, 0, 0.25), strict=True)))
    assert (finding.label, finding.uncertain) == ("meningioma", True)
    assert not find_tumor(stack, RULE, uncertain_below=0.7)[0].uncertain


def test_a_rejected_component_has_no_say_in_the_class():
    stack = stack_of((20, 40, 40), ((5, 8), (5, 15), (5, 15)))
    stray = np.zeros((40, 40), dtype=bool)
    stray[:30, :30] = True
    put(stack, 15, stray, 1.0, (1, 0, 0))
    assert find_tumor(stack, RULE)[0].label == "glioma"


def test_a_volume_without_tumor_pixels_has_no_support():
    finding, mask = find_tumor(stack_of((5, 40, 40), spacing_mm=(1.0, 1.0), slab_mm=(5.0,) * 5), RULE)
    assert (finding.status, finding.support, finding.volume_ml) == ("no_tumor", 0.0, 0.0)
    assert mask.shape == (5, 40, 40)


def test_a_probability_at_the_threshold_is_certain_and_one_below_is_not():
    for highest, uncertain in ((0.5, False), (0.4375, True)):
        rest = (1 - highest) / 2
        stack = stack_of((20, 40, 40), ((7, 10), (10, 20), (10, 20)), probabilities=(rest, highest, rest))
        assert find_tumor(stack, RULE, uncertain_below=0.5)[0].uncertain == uncertain


def test_with_pixel_spacing_alone_a_volume_without_a_tumor_has_no_milliliters():
    assert find_tumor(Stack.empty((5, 40, 40), spacing_mm=(1.0, 1.0)), RULE)[0].volume_ml is None


def test_the_first_of_equal_slices_is_the_key_slice():
    stack = stack_of((20, 40, 40), ((7, 10), (10, 20), (10, 20)), spacing_mm=(1.0, 1.0), slab_mm=(5.0,) * 20)
    assert find_tumor(stack, RULE)[0].key_slice == 7


def test_each_slice_counts_by_its_own_thickness():
    slab_mm = (1.0,) * 10 + (5.0,) * 12
    blocks = (((2, 6), (10, 20), (10, 20)), ((14, 18), (10, 20), (10, 20)))
    stacks = [stack_of((22, 40, 40), block, spacing_mm=(1.0, 1.0), slab_mm=slab_mm) for block in blocks]
    assert [find_tumor(stack, RULE)[0].support for stack in stacks] == pytest.approx([4 * 4 / 5, 4 * 4])


def test_a_rule_is_read_from_its_record_and_other_entries_of_the_record_are_ignored():
    assert VolumeRule.from_record({"min_support": 2.5, "stacks": 24}) == VolumeRule(min_support=2.5)
    assert VolumeRule.from_record({}) == VolumeRule()


def test_it_takes_less_than_8_bytes_for_each_voxel():
    """420 MB for 200 slices of 512 x 512 pixels, if all of them were tumor."""
    stack = stack_of((25, 256, 256), ((0, 25), (0, 256), (0, 256)))
    tracemalloc.start()
    find_tumor(stack, RULE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * stack.masks.size
