"""A data set for the tests of splits."""

import numpy as np
import pytest


@pytest.fixture
def folder(tmp_path, write_mat):
    """Six patients with two slices in each class, 36 slices."""
    for number in range(36):
        pixels = np.arange(600, dtype=np.int16).reshape(20, 30) + number
        write_mat(
            tmp_path / "data" / f"{number + 1}.mat", pixels, label=number % 3 + 1, patient=f"p{number // 6}{number % 3}"
        )
    return tmp_path / "data"
