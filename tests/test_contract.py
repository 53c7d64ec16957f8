"""The constants that both models were trained with. After a change, train and export the models again."""

from __future__ import annotations

import pytest

from cascade import contract
from cascade.errors import CascadeError


def test_the_contract_matches_the_bundled_models():
    assert contract.CLASS_NAMES == ("meningioma", "glioma", "pituitary tumor")
    assert contract.SLICE_SIZE == 512
    assert contract.THRESHOLD == 0.5
    assert (contract.SLICE, contract.PROBABILITY) == ("slice", "probability")
    assert (contract.CLASS_PROBABILITY, contract.BOX) == ("class_probability", "box")
    assert contract.Box._fields == ("left", "top", "right", "bottom")


def test_every_error_needs_a_fix():
    with pytest.raises(TypeError):
        CascadeError("something is wrong")
    error = CascadeError("a.png: is blank", fix="leave it out")
    assert str(error) == "a.png: is blank\n  fix: leave it out"
    assert (error.problem, error.fix) == ("a.png: is blank", "leave it out")
