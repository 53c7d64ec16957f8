"""What both models were trained on: whoever changes one of these must train and export them again."""

from __future__ import annotations

import pytest

from cascade import contract
from cascade.errors import CascadeError


def test_the_contract_is_the_one_the_shipped_models_were_trained_on():
    assert contract.CLASS_NAMES == ("meningioma", "glioma", "pituitary tumor")
    assert contract.SLICE_SIZE == 512
    assert contract.THRESHOLD == 0.5
    assert (contract.SLICE, contract.PROBABILITY) == ("slice", "probability")
    assert (contract.CLASS_PROBABILITY, contract.BOX) == ("class_probability", "box")
    assert contract.Box._fields == ("left", "top", "right", "bottom")


def test_no_error_leaves_without_a_fix():
    with pytest.raises(TypeError):
        CascadeError("something is wrong")
    error = CascadeError("a.png: is blank", fix="leave it out")
    assert str(error) == "a.png: is blank\n  fix: leave it out"
    assert (error.problem, error.fix) == ("a.png: is blank", "leave it out")
