"""Errors of .mat files, and their file handles."""

from __future__ import annotations

import gc
import warnings

import h5py
import numpy as np
import pytest

from cascade.datasets.figshare import read_mat
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
    left_open = [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)]
    assert [message for message in left_open if str(path) in message] == []


def replace_field(path, name, value, **attributes):
    with h5py.File(path, "r+") as file:
        del file["cjdata"][name]
        file["cjdata"][name] = value
        file["cjdata"][name].attrs.update(attributes)
    return path


REFERENCE = np.array([[0xDD000000, 2, 1, 1, 1, 1]], np.uint32)
"""What MATLAB stores in place of an object."""


@pytest.mark.parametrize("attributes", [{}, {"MATLAB_class": np.bytes_("string"), "MATLAB_object_decode": np.int32(3)}])
def test_a_string_object_is_named_and_char_recommended(tmp_path, write_mat, attributes):
    """Once, the error was "Python int too large to convert to C int"."""
    path = replace_field(write_mat(tmp_path / "1.mat"), "PID", REFERENCE, **attributes)
    with pytest.raises(CascadeError, match=r"1\.mat: PID is a MATLAB string object") as raised:
        read_mat(path)
    assert "char" in raised.value.fix
    assert read_image(path)[0].shape == (20, 30)  # needs no patient


@pytest.mark.parametrize(
    ("value", "matlab_class", "kind"),
    [
        (REFERENCE, "datetime", "datetime object"),
        (REFERENCE, "", "object"),
        (np.array([[49]], np.uint16), "char", "char"),
        (np.array([[1 + 2j]]), "double", "complex array"),
    ],
)
@pytest.mark.parametrize("name", ["image", "label", "tumorMask"])
def test_what_is_no_array_of_numbers_is_named_as_matlab_names_it(tmp_path, write_mat, name, value, matlab_class, kind):
    attributes = {"MATLAB_class": np.bytes_(matlab_class)} if matlab_class else {}
    path = replace_field(write_mat(tmp_path / "1.mat"), name, value, **attributes)
    with h5py.File(path, "r+") as file:
        if kind == "complex array":
            del file["cjdata"][name]
            file["cjdata"][name] = np.zeros((20, 30), [("real", "f8"), ("imag", "f8")])
    with pytest.raises(CascadeError, match=rf"1\.mat: {name} is a MATLAB {kind}") as raised:
        read_mat(path)
    assert "real numbers" in raised.value.fix


def test_cells_structs_sparse_and_empty_arrays_are_named(tmp_path, write_mat):
    cases = {
        "cell": (np.zeros((1, 1), np.uint64), {"MATLAB_class": np.bytes_("cell")}),
        "sparse matrix": (np.zeros(3), {"MATLAB_class": np.bytes_("double"), "MATLAB_sparse": np.uint64(20)}),
        "double without elements": (
            np.zeros(2, np.uint64),
            {"MATLAB_class": np.bytes_("double"), "MATLAB_empty": np.uint8(1)},
        ),
    }
    for kind, (value, attributes) in cases.items():
        path = replace_field(write_mat(tmp_path / "1.mat"), "image", value, **attributes)
        with pytest.raises(CascadeError, match=f"image is a MATLAB {kind}"):
            read_image(path)
    with h5py.File(path, "r+") as file:
        del file["cjdata/image"]
        file.create_group("cjdata/image").attrs["MATLAB_class"] = np.bytes_("struct")
    with pytest.raises(CascadeError, match="image is a MATLAB struct"):
        read_image(path)


@pytest.mark.parametrize("codes", [[-1.0, 5.0], [1e9, 2e9], [np.nan, 49.0]])
def test_numbers_that_are_no_characters_are_not_a_patient_id(tmp_path, write_mat, codes):
    path = replace_field(write_mat(tmp_path / "1.mat"), "PID", np.array([codes]))
    with pytest.raises(CascadeError, match=r"1\.mat: PID"):
        read_mat(path)


def test_several_labels_are_counted(tmp_path, write_mat):
    path = replace_field(write_mat(tmp_path / "1.mat"), "label", np.ones((1, 3)))
    with pytest.raises(CascadeError, match=r"1\.mat: label has 3 values"):
        read_mat(path)
