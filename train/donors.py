"""Search for donors: slices whose heads resemble that of a host, so that their tissue fits into it."""

import numpy as np
from numpy.typing import NDArray

from train.heads import DESCRIPTOR, BoolPlane, FloatPlane

CANDIDATES = 30
"""Donor slices of each class per host slice: those that resemble it most."""

MIN_CORRELATION = 0.58
"""Least correlation of host and donor. Below it they are often of different views."""


def most_similar(hosts: FloatPlane, donors: FloatPlane, allowed: BoolPlane | None = None) -> NDArray[np.int64]:
    """Rank donors by the correlation of their heads with each host's.

    Args:
        hosts: (E, DESCRIPTOR ** 2) descriptors.
        donors: (S, DESCRIPTOR ** 2) descriptors.
        allowed: (E, S) bool, which donors each host may have; None allows all.

    Returns:
        (E, CANDIDATES or fewer) int64: index of the donor, plus S for its mirror image, most similar first;
        -1 where the correlation is below MIN_CORRELATION.
    """
    correlation = np.concatenate([hosts @ donors.T, hosts @ flipped(donors).T], axis=1)
    if allowed is not None:
        correlation[~np.concatenate([allowed, allowed], axis=1)] = -1
    count = min(CANDIDATES, correlation.shape[1])
    best = np.argpartition(-correlation, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(correlation, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
    ranked: NDArray[np.int64] = np.where(values >= MIN_CORRELATION, best, -1).astype(np.int64)
    return ranked


def flipped(descriptors: FloatPlane) -> FloatPlane:
    """The descriptors of the slices mirrored left to right."""
    squares = descriptors.reshape(-1, DESCRIPTOR, DESCRIPTOR)
    return np.ascontiguousarray(squares[:, :, ::-1]).reshape(len(descriptors), -1)
