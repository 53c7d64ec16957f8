"""Boxes and crops, with numbers that can be checked by hand."""

import pytest

torch = pytest.importorskip("torch")

from train.preprocessing import (
    CROP_SIZE,
    MIN_SIDE,
    ClassifierGraph,
    SegmenterGraph,
    classifier_planes,
    crop,
    mask_to_box,
    normalize,
    upsample2x,
)


def mask_of(left, top, right, bottom):
    mask = torch.zeros(1, 1, 512, 512)
    mask[..., top:bottom, left:right] = 1
    return mask


def test_the_box_is_a_square_wider_than_the_tumor_by_the_margin():
    # 100 x 60 pixels around (250, 230): 1.6 x 100 = 160 on each side
    assert mask_to_box(mask_of(200, 200, 300, 260)).tolist() == [[170.0, 150.0, 330.0, 310.0]]


def test_a_box_at_the_border_is_moved_into_the_slice_and_keeps_its_size():
    (left, top, right, bottom) = mask_to_box(mask_of(412, 0, 512, 100))[0].tolist()
    assert (left, top, right, bottom) == (352.0, 0.0, 512.0, 160.0)


def test_a_mask_over_the_whole_slice_gives_the_whole_slice():
    assert mask_to_box(torch.ones(1, 1, 512, 512)).tolist() == [[0.0, 0.0, 512.0, 512.0]]


def test_one_pixel_gets_the_smallest_box():
    (left, top, right, bottom) = mask_to_box(mask_of(100, 300, 101, 301))[0].tolist()
    assert right - left == bottom - top == MIN_SIDE
    assert (left + right) / 2 == 100.5
    assert (top + bottom) / 2 == 300.5


def test_an_empty_mask_gives_no_box_and_leaves_the_rest_of_the_batch_alone():
    boxes = mask_to_box(torch.cat([torch.zeros(1, 1, 512, 512), mask_of(200, 200, 300, 300)]))
    assert boxes[0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert boxes[1].tolist() == [170.0, 170.0, 330.0, 330.0]


def test_an_empty_mask_still_gives_finite_planes():
    planes, _ = classifier_planes(torch.rand(1, 1, 512, 512), torch.zeros(1, 1, 512, 512))
    assert torch.isfinite(planes).all()


def test_a_crop_holds_the_intensities_of_its_pixels():
    ramp = torch.arange(512.0).expand(1, 1, 512, 512)  # column x holds x, so the place between 10 and 11 holds 10.5
    planes = crop(ramp, torch.tensor([[128.0, 64.0, 256.0, 192.0]]))
    expected = 128 + torch.arange(CROP_SIZE) * 128 / CROP_SIZE  # a pixel's center lies half a pixel right of its edge
    assert torch.allclose(planes[0, 0, 5], expected, atol=1e-3)


def test_a_crop_keeps_left_and_right_and_up_and_down():
    picture = torch.zeros(1, 1, 512, 512)
    picture[..., 200:225, 275:300] = 1  # the box's upper right corner
    cropped = crop(picture, torch.tensor([[200.0, 200.0, 300.0, 300.0]]))[0, 0]
    quarter = CROP_SIZE // 4
    assert cropped[1 : quarter - 1, 1 - quarter : -1].min() > 0.99  # its own border is mixed with what lies outside
    assert cropped[quarter + 1 :].max() == cropped[:, : -quarter - 1].max() == 0


def test_normalizing_cancels_any_gain_and_offset():
    slices = torch.rand(2, 1, 64, 64)
    assert torch.allclose(normalize(slices), normalize(slices * 4000 - 700), atol=1e-3)


def test_normalizing_gives_the_tissue_mean_0_and_deviation_1():
    slices = torch.zeros(1, 1, 4, 4)
    slices[0, 0, :2] = torch.tensor([[10.0, 12.0, 10.0, 12.0], [10.0, 12.0, 10.0, 12.0]])  # mean of all is 5.5
    assert normalize(slices)[0, 0, 0].tolist() == [-1.0, 1.0, -1.0, 1.0]
    assert normalize(slices)[0, 0, 3].tolist() == [-5.0] * 4  # air: 11 below the mean, cut


def test_two_values_and_a_blank_slice_are_normalized_without_nan():
    two_values = mask_of(0, 0, 100, 100)
    for slices in (two_values, torch.full((1, 1, 8, 8), 7.0)):
        assert torch.isfinite(normalize(slices)).all()


def test_enlarging_is_bilinear_up_to_the_border():
    planes = torch.randn(2, 1, 5, 7)
    expected = torch.nn.functional.interpolate(planes, scale_factor=2, mode="bilinear")
    assert torch.allclose(upsample2x(planes), expected, atol=1e-6)


class OneTumor(torch.nn.Module):
    """A network that segments a tumor in a corner with certainty, and whose detection has the given logit."""

    def __init__(self, detection):
        super().__init__()
        self.detection = torch.logit(torch.tensor(detection))

    def forward(self, planes):
        logits = torch.full_like(planes, -9.0)
        logits[..., :64, :64] = 9.0
        return logits, self.detection.expand(len(planes), 1)


@pytest.mark.parametrize(("detection", "threshold", "highest"), [(0.3, 0.5, 0.3), (0.3, 0.3, 0.5), (0.3, 0.1, 27 / 34)])
def test_detection_caps_the_pixels_and_its_threshold_maps_to_one_half(detection, threshold, highest):
    probability = SegmenterGraph(OneTumor(detection), threshold)(torch.rand(2, 1, 512, 512))
    assert probability.amax((1, 2, 3)).tolist() == pytest.approx([highest] * 2, rel=1e-5)
    assert probability[..., 256:, 256:].max() < 1e-3


def test_the_logits_are_divided_by_the_temperature():
    class Sure(torch.nn.Module):
        def forward(self, planes):
            return torch.tensor([[2.0, 0.0, 4.0]]).expand(len(planes), 3)

    class_probability, _ = ClassifierGraph(Sure(), temperature=2.0)(*torch.rand(2, 1, 1, 512, 512))
    assert torch.allclose(class_probability[0], torch.tensor([1.0, 0.0, 2.0]).softmax(0))
