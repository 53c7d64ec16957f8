"""The simulated slices that a benchmark measures without a folder."""

from __future__ import annotations

import numpy as np

from cascade.benchmarking.simulated import simulated_slice


def test_the_simulated_slices_are_the_same_each_time():
    first, again = (simulated_slice(np.random.default_rng(0)) for _ in range(2))
    assert first.shape == (512, 512)
    assert first.dtype == np.uint16
    assert (first == again).all()
