"""Errors of .mat files, and their file handles."""

from __future__ import annotations

import gc
import warnings

import pytest

from cascade.errors import CascadeError
from cascade.io.mat import OLD_FORMAT, read_image


def test_a_file_of_the_old_matlab_format_is_refused_and_closed(tmp_path):
    path = tmp_path / "1.mat"
    path.write_bytes(OLD_FORMAT + b" MAT-file")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(CascadeError, match=r"1\.mat: .*v7\.3") as raised:
            read_image(path)
        gc.collect()
    assert "-v7.3" in raised.value.fix
    assert [warning for warning in caught if issubclass(warning.category, ResourceWarning)] == []
