"""No subject in two subsets, every class in its fraction, written once and never changed."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import subject_id
from cascade.datasets.reader import SliceInfo
from cascade.datasets.split import (
    SUBSETS,
    Split,
    SplitSlice,
    assign_subsets,
    check_files,
    check_leakage,
    make_folds,
    make_split,
    read_split,
    write_split,
)
from cascade.errors import CascadeError


def infos_of(*patients):
    """Return the slices of patients, each given as (patient, label, number of slices)."""
    return [
        SliceInfo(f"{patient}_{number}.mat", "", label, patient)
        for patient, label, count in patients
        for number in range(count)
    ]


def subsets_by_patient(infos, seed=0):
    return {info.patient: part for info, part in zip(infos, assign_subsets(infos, seed), strict=True)}


def slice_of(patient, part, path="1.mat", sha256=""):
    return SplitSlice(path, "", "glioma", patient, part, sha256 or path)


def test_each_class_is_split_70_15_15_by_its_slices():
    infos = infos_of(*((f"{label}{number}", label, 5 + number % 20) for label in CLASS_NAMES for number in range(60)))
    counts = Counter(zip((info.label for info in infos), assign_subsets(infos, seed=3), strict=True))
    for label in CLASS_NAMES:
        total = sum(counts[label, part] for part in SUBSETS)
        assert counts[label, "train"] / total == pytest.approx(0.70, abs=0.04)
        assert counts[label, "validation"] / total == pytest.approx(0.15, abs=0.03)
        assert counts[label, "test"] / total == pytest.approx(0.15, abs=0.03)


def test_the_same_subjects_and_seed_always_give_the_same_subsets():
    """Published figures name the seed. The split must not depend on the version of a library."""
    infos = infos_of(*((f"10{number}", "glioma", 2) for number in range(8)))
    assert subsets_by_patient(infos) == {
        "100": "test",
        "101": "train",
        "102": "train",
        "103": "train",
        "104": "validation",
        "105": "validation",
        "106": "test",
        "107": "train",
    }
    assert subsets_by_patient(infos[::-1]) == subsets_by_patient(infos)  # nor on the order of the files
    assert subsets_by_patient(infos, seed=1) != subsets_by_patient(infos)


def test_ids_that_differ_by_a_trailing_letter_are_in_one_subset():
    infos = infos_of(*((f"MR{number:06}{letter}", "glioma", 3) for number in range(40) for letter in ("", "B", "C")))
    subsets = subsets_by_patient(infos)
    assert set(subsets.values()) == set(SUBSETS)
    for number in range(40):
        assert len({subsets[f"MR{number:06}{letter}"] for letter in ("", "B", "C")}) == 1


def test_a_patient_with_slices_of_two_classes_is_in_one_subset():
    infos = infos_of(
        *((f"p{number}", label, 2) for number in range(30) for label in ("meningioma", "glioma")),
        *((f"q{number}", "glioma", 2) for number in range(30)),
    )
    assigned = assign_subsets(infos, seed=0)
    assert len(set(zip((info.patient for info in infos), assigned, strict=True))) == 60
    shares = Counter(part for info, part in zip(infos, assigned, strict=True) if info.label == "glioma")
    assert shares["test"] / 120 == pytest.approx(0.15, abs=0.03)


def test_a_class_whose_subjects_train_for_another_class_fills_the_other_subsets():
    """Subjects that were assigned already counted as if they were left, and no glioma was tested."""
    meningiomas = [(f"p{number}", "meningioma", 2) for number in range(12)]
    for seed in range(10):
        subset_of = subsets_by_patient(infos_of(*meningiomas), seed=seed)
        training = [name for name, subset in subset_of.items() if subset == "train"][:3]
        gliomas = [(name, "glioma", 2) for name in (*training, "q0", "q1")]
        infos = infos_of(*meningiomas, *gliomas)
        assigned = zip(infos, assign_subsets(infos, seed), strict=True)
        subsets = {subset for info, subset in assigned if info.label == "glioma"}
        assert subsets == set(SUBSETS)


def test_few_subjects_fill_the_training_subset_first_then_test_then_validation():
    """The only subject of a class went to the test subset, so that training had none."""
    one = infos_of(("a", "glioma", 5))
    two = infos_of(("a", "glioma", 5), ("b", "glioma", 5))
    three = infos_of(("a", "glioma", 5), ("b", "glioma", 5), ("c", "glioma", 5))
    assert set(assign_subsets(one, seed=0)) == {"train"}
    assert set(assign_subsets(two, seed=0)) == {"train", "test"}
    assert set(assign_subsets(three, seed=0)) == {"train", "test", "validation"}
    assert assign_subsets([], seed=0) == []


@pytest.mark.parametrize("counts", [(3, 22, 5), (1, 40, 1), (9, 1, 1), (2, 2, 30)])
def test_three_subjects_of_a_class_fill_all_subsets_for_any_number_of_slices(counts):
    """The test subset took the subject that validation needed, and thresholds were set without the class."""
    for seed in range(10):
        infos = infos_of(*((f"p{number}", "glioma", count) for number, count in enumerate(counts)))
        assert set(subsets_by_patient(infos, seed=seed).values()) == set(SUBSETS)


def test_a_class_may_be_missing():
    infos = infos_of(*((f"p{number}", "pituitary tumor", 4) for number in range(20)))
    assert Counter(assign_subsets(infos, seed=0)) == {"train": 56, "validation": 12, "test": 12}


def test_each_fold_validates_on_the_first_bucket_that_the_next_fold_tests_on():
    """No test failed if a fold validated on another bucket."""
    patients = {"a": 4, "b": 3, "c": 2, "d": 1}  # from most to fewest slices: one bucket each
    slices = tuple(
        slice_of(patient, "train", f"{patient}{number}.mat")
        for patient, count in patients.items()
        for number in range(count)
    )
    folds = make_folds(Split(slices, ""), 2)
    assert [{item.patient: item.part for item in fold.slices} for fold in folds] == [
        {"a": "test", "b": "test", "c": "validation", "d": "train"},
        {"a": "validation", "b": "train", "c": "test", "d": "test"},
    ]


def test_the_train_subset_can_train_in_every_fold():
    patients = {"a": "test", "b": "validation", "c": "test", "d": "validation", "kept": "train"}
    slices = tuple(slice_of(patient, part, f"{patient}.mat") for patient, part in patients.items())
    folds = make_folds(Split(slices, ""), 2, keep_train=True)
    assert [{item.patient: item.part for item in fold.slices} for fold in folds] == [
        {"a": "test", "b": "test", "c": "validation", "d": "train", "kept": "train"},
        {"a": "validation", "b": "train", "c": "test", "d": "test", "kept": "train"},
    ]


def test_folds_keep_the_ids_of_a_subject_together_and_each_class_in_every_subset():
    slices = tuple(
        SplitSlice(f"{label}{number}{letter}.mat", "", label, f"MR{index}{number:02}{letter}", "train", "")
        for index, label in enumerate(CLASS_NAMES)
        for number in range(12)
        for letter in ("", "B")
    )
    folds = make_folds(Split(slices, ""), 3)
    for fold in folds:
        assert len({(subject_id(item.patient), item.part) for item in fold.slices}) == 36
        counts = Counter((item.label, item.part) for item in fold.slices)
        for label in CLASS_NAMES:
            assert [counts[label, part] for part in SUBSETS] == [12, 4, 8]
    tested = [item.path for fold in folds for item in fold.subset("test")]
    assert sorted(tested) == sorted(item.path for item in slices)


def test_folds_balance_the_slices_of_subjects_with_few_and_with_many():
    """30 subjects with 1 to 30 slices, 465 in all: 155 for each fold."""
    infos = infos_of(*((f"MR{number:02}", "glioma", number) for number in range(1, 31)))
    split = Split(tuple(slice_of(info.patient, "train", info.path) for info in infos), "")
    for fold in make_folds(split, 3):
        assert len(fold.subset("test")) == pytest.approx(155, rel=0.05)
        assert len(fold.subset("validation")) == pytest.approx(155 / 2, rel=0.05)


def test_too_few_subjects_for_the_folds_are_refused():
    slices = tuple(slice_of(f"p{number}", "train", f"{number}.mat") for number in range(2))
    with pytest.raises(CascadeError, match="too few subjects for 3 folds"):
        make_folds(Split(slices, ""), 3)


def test_a_split_lists_every_slice_with_its_hash_and_reads_back_equal(folder, tmp_path):
    split, problems = make_split(folder, seed=0)
    write_split(split, tmp_path / "split.json", seed=0)
    again = read_split(tmp_path / "split.json")
    assert problems == []
    assert again == split
    assert [item.path for item in split.slices] == [f"{number}.mat" for number in range(1, 37)]
    assert sum(len(split.subset(name)) for name in SUBSETS) == 36
    content = json.loads((tmp_path / "split.json").read_text())
    assert (content["seed"], content["sha256"]) == (0, split.sha256)
    assert len({item["sha256"] for item in content["slices"]}) == 36
    check_files(folder, split.slices)


def test_a_bad_slice_is_reported_by_name_and_the_others_are_split(folder):
    (folder / "5.mat").write_bytes(b"cut short")
    split, problems = make_split(folder, seed=0)
    assert len(split.slices) == 35
    assert "5.mat: cannot be read" in problems[0].problem


def test_a_copy_of_a_slice_is_left_out_also_under_another_patient_id(tmp_path):
    """A data set unpacked twice would count its slices twice, and a renamed copy could be in training and test."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(6):
        Image.fromarray(random.integers(255, size=(20, 20), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        Image.new("L", (20, 20), 1).save(tmp_path / f"{number}_mask.png")
        lines.append(f"{number}.png,{number}_mask.png,glioma,p{number}")
    (tmp_path / "6.png").write_bytes((tmp_path / "0.png").read_bytes())
    lines.append("6.png,0_mask.png,glioma,p6")
    (tmp_path / "slices.csv").write_text("\n".join(["path,mask,label,patient", *lines]))
    split, problems = make_split(tmp_path, seed=0)
    assert [item.path for item in split.slices] == [f"{number}.png" for number in range(6)]
    assert [error.problem for error in problems] == [f"{tmp_path / '6.png'}: is a copy of 0.png of patient p0"]


def test_too_few_subjects_to_fill_every_subset_are_refused(tmp_path, write_mat):
    write_mat(tmp_path / "1.mat", patient="a")
    write_mat(tmp_path / "2.mat", np.arange(400).reshape(20, 20), patient="b")
    (tmp_path / "3.mat").touch()
    with pytest.raises(CascadeError, match=r"2 subjects .* validation .*; 1 slices cannot be used.*3\.mat"):
        make_split(tmp_path, seed=0)
    split, _ = make_split(tmp_path, seed=0, all_train=True)
    assert [item.part for item in split.slices] == ["train", "train"]


@pytest.mark.usefixtures("permissions")
def test_a_subfolder_that_cannot_be_opened_is_named(tmp_path, write_mat):
    """Its slices were left out without a word."""
    write_mat(tmp_path / "1.mat", patient="a")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    try:
        _, problems = make_split(tmp_path, seed=0, all_train=True)
    finally:
        closed.chmod(0o700)
    assert [error.problem for error in problems] == [f"{closed}: cannot be opened (Permission denied)"]


def test_a_folder_in_which_nothing_can_be_read_is_refused(tmp_path):
    (tmp_path / "1.mat").touch()
    with pytest.raises(CascadeError, match="none of its slices can be read"):
        make_split(tmp_path, seed=0)


@pytest.mark.parametrize("other", ["MR040240", "MR040240B", "MR040240C"])
def test_leakage_is_refused_also_between_ids_that_differ_by_a_letter(other):
    assert subject_id(other) == "MR040240"
    with pytest.raises(CascadeError, match=f"patient {other} is in train and in test"):
        check_leakage([slice_of("MR040240", "train"), slice_of(other, "test", "2.mat")])
    check_leakage(
        [slice_of("MR040240", "train"), slice_of(other, "train", "2.mat"), slice_of("MR040241", "test", "3.mat")]
    )


def test_the_same_slice_in_two_subsets_is_refused_as_leakage():
    with pytest.raises(CascadeError, match=r"2\.mat of patient b is in test, a copy of it in train"):
        check_leakage([slice_of("a", "train", "1.mat", "same"), slice_of("b", "test", "2.mat", "same")])


def test_an_unknown_subset_is_refused():
    with pytest.raises(CascadeError, match="unknown subset 'holdout'"):
        check_leakage([slice_of("a", "holdout")])
