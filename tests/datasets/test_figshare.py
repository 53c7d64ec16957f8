"""N.mat files as published by figshare, and as users may write them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cascade.datasets.figshare import read_mat, subject_id
from cascade.errors import CascadeError
from cascade.io.mat import read_image


def change(path, name, value):
    """Replace a field by another array."""
    with h5py.File(path, "r+") as file:
        del file["cjdata"][name]
        if value is not None:
            file["cjdata"][name] = value
    return path


def test_arrays_are_read_as_matlab_shows_them_not_transposed(tmp_path, write_mat):
    labeled = read_mat(write_mat(tmp_path / "1.mat", label=3, patient="MR040240B"))
    assert labeled.pixels.shape == (20, 30)
    assert labeled.pixels[0].tolist() == list(range(30))  # the first row, not the first column
    rows, columns = np.nonzero(labeled.mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 5, 11)
    assert labeled.mask.dtype == bool
    assert (labeled.label, labeled.patient) == ("pituitary tumor", "MR040240B")


@pytest.mark.parametrize("kind", ["<i2", ">i2", "u1", "u2", "i4", "f4", ">f8"])
def test_any_type_of_number_and_either_byte_order_reads_the_same(tmp_path, write_mat, kind):
    pixels = (np.arange(400) % 128).reshape(20, 20)
    labeled = read_mat(write_mat(tmp_path / "1.mat", pixels.astype(kind)))
    assert labeled.pixels.dtype == np.float32
    assert labeled.pixels.tolist() == pixels.tolist()


def test_negative_and_large_intensities_stay_as_they_are(tmp_path, write_mat):
    labeled = read_mat(write_mat(tmp_path / "1.mat", np.linspace(-5000, 70000, 400).reshape(20, 20)))
    assert (labeled.pixels.min(), labeled.pixels.max()) == (-5000, 70000)


def test_the_spacing_is_known_for_512_x_512_slices_only(tmp_path, write_mat):
    large = write_mat(tmp_path / "1.mat", np.zeros((512, 512), np.int16))
    small = write_mat(tmp_path / "2.mat", np.zeros((256, 256), np.int16))
    assert read_mat(large).spacing_mm == (0.49, 0.49)
    assert read_mat(small).spacing_mm is None


@pytest.mark.parametrize("tumor", [1, 255, 0.5])
def test_every_value_above_0_on_the_mask_is_tumor(tmp_path, write_mat, tumor):
    mask = np.zeros((20, 30))
    mask[3, 4] = tumor
    assert np.argwhere(read_mat(write_mat(tmp_path / "1.mat", mask=mask)).mask).tolist() == [[3, 4]]


def test_nan_on_the_mask_is_no_tumor(tmp_path, write_mat):
    """NaN was counted as tumor, since it is true when cast to bool."""
    mask = np.full((20, 30), np.nan)
    assert not read_mat(write_mat(tmp_path / "1.mat", mask=mask)).mask.any()


def test_an_id_stored_as_a_number_is_read_as_its_digits(tmp_path, write_mat):
    """The id became the one character with that code."""
    path = change(write_mat(tmp_path / "1.mat"), "PID", np.array([[100360.0]]))
    assert read_mat(path).patient == "100360"


@pytest.mark.parametrize("empty", [np.zeros(2, np.uint64), np.array([[32], [0]], np.uint16)])
def test_a_slice_without_a_patient_id_is_refused(tmp_path, write_mat, empty):
    """MATLAB stores an empty text as two zeros: all such slices would count as one patient."""
    path = change(write_mat(tmp_path / "7.mat"), "PID", empty)
    with pytest.raises(CascadeError, match=r"7\.mat: has no patient id"):
        read_mat(path)


@pytest.mark.parametrize("label", [0, 4, 1.5, -1, float("nan"), float("inf")])
def test_a_label_that_is_no_class_is_refused(tmp_path, write_mat, label):
    with pytest.raises(CascadeError, match=r"7\.mat: label .* is not 1, 2 or 3"):
        read_mat(write_mat(tmp_path / "7.mat", label=label))


@pytest.mark.parametrize("name", ["PID", "label", "image", "tumorMask"])
def test_a_missing_field_is_named(tmp_path, write_mat, name):
    with pytest.raises(CascadeError, match=rf"7\.mat: has no field .*{name}"):
        read_mat(change(write_mat(tmp_path / "7.mat"), name, None))


def test_the_border_is_not_needed(tmp_path, write_mat):
    assert read_mat(change(write_mat(tmp_path / "1.mat"), "tumorBorder", None)).label == "meningioma"


@pytest.mark.parametrize("name", ["PID", "label", "image", "tumorMask"])
def test_a_field_that_is_a_group_a_text_or_a_dangling_link_is_refused(tmp_path, write_mat, name):
    for number, value in enumerate([h5py.SoftLink("/nowhere"), "text", h5py.Empty("f4"), None]):
        path = change(write_mat(tmp_path / f"{number}.mat"), name, value)
        if value is None:
            with h5py.File(path, "r+") as file:
                file["cjdata"].create_group(name)
        with pytest.raises(CascadeError, match=rf"{number}\.mat: .*{name}"):
            read_mat(path)


def test_a_mask_of_another_size_and_an_image_of_three_dimensions_are_refused(tmp_path, write_mat):
    with pytest.raises(CascadeError, match=r"1\.mat: image \(20, 30\) and tumorMask \(30, 20\)"):
        read_mat(write_mat(tmp_path / "1.mat", mask=np.zeros((30, 20), np.uint8)))
    volume = write_mat(tmp_path / "2.mat", np.zeros((20, 20, 3)), np.zeros((20, 20, 3)))
    with pytest.raises(CascadeError, match=r"2\.mat: image \(20, 20, 3\)"):
        read_mat(volume)
    with pytest.raises(CascadeError, match=r"2\.mat: .*\(20, 20, 3\) is not 2-D"):
        read_image(volume)


def test_a_file_cut_short_anywhere_is_refused(tmp_path, write_mat):
    whole = write_mat(tmp_path / "whole.mat").read_bytes()
    for share in range(10):
        path = tmp_path / f"{share}.mat"
        path.write_bytes(whole[: len(whole) * share // 10])
        why = "cannot be read as a MATLAB v7\\.3 file" if share else "the file is empty"
        with pytest.raises(CascadeError, match=rf"{share}\.mat: {why}"):
            read_mat(path)


def test_a_file_of_another_format_is_refused_by_name(tmp_path):
    (tmp_path / "1.mat").mkdir()
    (tmp_path / "2.mat").write_text("PID, label, image")
    with h5py.File(tmp_path / "3.mat", "w") as file:
        file["cjdata"] = np.zeros(3)
    for number in (1, 2, 3):
        with pytest.raises(CascadeError, match=rf"{number}\.mat: cannot be read as a MATLAB v7\.3 file"):
            read_mat(tmp_path / f"{number}.mat")
    with pytest.raises(CascadeError, match=r"4\.mat: there is no such file"):
        read_mat(tmp_path / "4.mat")


def test_the_fix_for_a_file_of_matlabs_older_format_is_to_save_it_again(tmp_path):
    (tmp_path / "1.mat").write_bytes(b"MATLAB 5.0 MAT-file, Platform: PCWIN64".ljust(124) + b"\x00\x01IM" + bytes(500))
    with pytest.raises(CascadeError, match=r"before v7\.3") as raised:
        read_mat(tmp_path / "1.mat")
    assert "-v7.3" in raised.value.fix


@pytest.mark.usefixtures("permissions")
def test_a_file_without_read_permission_is_refused_by_name(tmp_path, write_mat):
    path = write_mat(tmp_path / "1.mat")
    path.chmod(0)
    with pytest.raises(CascadeError, match=r"1\.mat: permission denied"):
        read_mat(path)


def test_the_image_alone_is_read_from_a_file_without_label_mask_and_patient(tmp_path, write_mat):
    path = write_mat(tmp_path / "1.mat")
    for name in ("PID", "label", "tumorMask"):
        change(path, name, None)
    pixels, spacing_mm = read_image(path)
    assert pixels[0].tolist() == list(range(30))
    assert spacing_mm is None


@pytest.mark.parametrize(
    ("patient", "expected"),
    [
        ("MR040240", "MR040240"),
        ("MR040240B", "MR040240"),
        ("MR040240c", "MR040240"),
        ("MR040240BC", "MR040240BC"),
        ("100360", "100360"),
        ("100360A", "100360A"),
        ("MRB", "MRB"),
    ],
)
def test_mr_ids_that_differ_by_one_trailing_letter_are_one_subject(patient, expected):
    assert subject_id(patient) == expected
