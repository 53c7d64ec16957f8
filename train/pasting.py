"""Paste the tissue of one slice into another, head onto head."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from train.heads import LEVELS, BoolPlane, FloatPlane, Head
from train.restyling import match_levels, match_quartiles

MIN_TUMOR = 40
"""Least area in pixels of a pasted tumor."""

INSIDE_HEAD = 0.9
"""Least fraction of a pasted tumor that lies in the head, away from its border."""

MAX_SHARE = 0.3
"""Largest area of a pasted tumor over that of the head."""

BRAIN_LIKE = 0.8
"""Least fraction of the host's pixels under a pasted tumor that are BRAIN_LEVELS: not air, bone or fat."""

BRAIN_LEVELS = (0.45, 1.6)
"""Gray values of brain over the median of the slice's tissue."""

EDGE_SIGMA = (0.5, 2.0)
"""Standard deviation in pixels of the Gaussian that softens the edge of a pasted area."""

MAX_GRADIENT = 0.11
"""Largest mean gradient of the host under a pasted tumor, per pixel and over the median of the slice's tissue: brain is
smooth, while jaw, teeth and sinuses are not."""


def paste(
    host: Head,
    donor: Head,
    shape: FloatPlane,
    shape_box: FloatPlane,
    *,
    mirror_donor: bool,
    mirror_shape: bool,
    random: np.random.Generator,
) -> tuple[FloatPlane, FloatPlane] | None:
    """Paste the part of `donor` under `shape` into `host`, head onto head.

    Args:
        host: The slice to paste into.
        donor: The slice to take the tissue from; its plane is as large as that of the host.
        shape: The area to paste, as large as the planes, in 0 to 1.
        shape_box: (4,) box around the head that it comes from, as in `Heads`.
        mirror_donor: Mirror the donor left to right first.
        mirror_shape: Mirror the shape left to right first.
        random: Draws stretch, shift, the way to match gray values, and the softness of the edge.

    Returns:
        The new slice and the pasted area, as large as the planes, float32 in 0 to 1; None where the area does not
        lie in the brain or is too small.
    """
    scale, host_box = host.scale, host.box * host.scale
    stretch, shift = random.uniform(0.9, 1.1, 2), random.uniform(-0.04, 0.04, 2)
    area = onto_head(shape, shape_box * scale, host_box, stretch, shift, mirror=mirror_shape)
    if not _lies_in_brain(area[::scale, ::scale] >= 0.5, host):
        return None
    tissue = onto_head(donor.plane, donor.box * scale, host_box, stretch, shift, mirror=mirror_donor)
    match = match_levels if random.random() < 0.5 else match_quartiles
    tissue = match(tissue, donor.levels, host.levels)
    tumor = area >= 0.5
    edge = ndimage.binary_dilation(tumor, iterations=scale)
    rim = ndimage.binary_dilation(edge, iterations=4 * scale) & ~edge
    rim &= np.kron(host.interior, np.ones((scale, scale), bool))
    if rim.any():
        tissue = tissue + (np.median(host.plane[rim]) - np.median(tissue[rim]))
    opacity = ndimage.gaussian_filter(edge.astype(np.float32), scale * random.uniform(*EDGE_SIGMA))
    blended: FloatPlane = (host.plane * (1 - opacity) + np.clip(tissue, 0, 1.2) * opacity).astype(np.float32)
    return blended, area


def _lies_in_brain(tumor: BoolPlane, host: Head) -> bool:
    """True if a tumor (H, W) is large enough, inside the head, and on smooth tissue with gray values of brain."""
    count, middle = np.count_nonzero(tumor), host.levels[1 + LEVELS // 2]
    if count < MIN_TUMOR or count > MAX_SHARE * np.count_nonzero(host.interior):
        return False
    under = host.plane[:: host.scale, :: host.scale][tumor]
    brain = (under > BRAIN_LEVELS[0] * middle) & (under < BRAIN_LEVELS[1] * middle)
    return bool(
        np.count_nonzero(tumor & host.interior) >= INSIDE_HEAD * count
        and np.mean(brain) >= BRAIN_LIKE
        and host.gradient[tumor].mean(dtype=np.float32) <= MAX_GRADIENT
    )


def onto_head(
    plane: FloatPlane,
    box: FloatPlane,
    host_box: FloatPlane,
    stretch: NDArray[np.float64],
    shift: NDArray[np.float64],
    *,
    mirror: bool,
) -> FloatPlane:
    """Resample a slice so that the box around its head fills that of the host, stretched and shifted a little.

    Args:
        plane: (H, W) float32.
        box: (4,) left, top, right, bottom of the head in pixels.
        host_box: (4,) the same of the host.
        stretch: Height and width over those of the host's box.
        shift: Down and right, in heights and widths of the host's box.
        mirror: Mirror the slice left to right.
    """
    left, top, right, bottom = (float(value) for value in box)
    host_left, host_top, host_right, host_bottom = (float(value) for value in host_box)
    scale_y = (bottom - top) / (host_bottom - host_top) / stretch[0]
    scale_x = (right - left) / (host_right - host_left) / stretch[1]
    center_y = (host_top + host_bottom) / 2 + shift[0] * (host_bottom - host_top)
    center_x = (host_left + host_right) / 2 + shift[1] * (host_right - host_left)
    if mirror:
        scale_x = -scale_x
    matrix = np.array([scale_y, scale_x])
    offset = np.array([(top + bottom) / 2 - 0.5, (left + right) / 2 - 0.5]) - matrix * (
        np.array([center_y, center_x]) - 0.5
    )
    moved: FloatPlane = ndimage.affine_transform(plane, np.diag(matrix), offset, order=1, output=np.float32)
    return moved
