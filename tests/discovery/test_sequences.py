"""In a folder of several sequences of a subject, the contrast-enhanced T1 is read, and the others are accounted for."""

from __future__ import annotations

import zipfile

import pytest

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices
from cascade.discovery.sequences import other_sequences

BRATS_2021 = [f"BraTS2021_00000_{token}.nii.gz" for token in ("flair", "seg", "t1", "t1ce", "t2")]
BRATS_2023 = [f"BraTS-GLI-00000-000-{token}.nii.gz" for token in ("seg", "t1c", "t1n", "t2f", "t2w")]
PDGM = [f"UCSF-PDGM-0004_{token}.nii.gz" for token in ("FLAIR", "T1", "T1c", "T2")]


def make(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def found(*paths, **options):
    return find_slices(paths, formats=FORMATS, **options)


@pytest.mark.parametrize(("names", "chosen"), [(BRATS_2021, "t1ce"), (BRATS_2023, "t1c"), (PDGM, "T1c")])
def test_only_the_enhanced_t1_is_read_and_the_others_are_left_out_with_the_reason(tmp_path, names, chosen):
    inputs = found(make(tmp_path / "subject", names))
    (name,) = inputs.names
    assert chosen in name
    assert set(inputs.left_out) == {str(tmp_path / "subject" / other) for other in names if other != name}
    assert all(name in reason for reason in inputs.left_out.values())
    assert set(inputs.seen) == {str(tmp_path / "subject" / name) for name in names}


def test_subjects_in_one_folder_are_told_apart(tmp_path):
    names = ["a_t1ce.nii", "a_t2.nii", "b_t1ce.nii", "b_t2.nii", "c_t2.nii", "d_t1ce.nii"]
    inputs = found(make(tmp_path, names))
    assert inputs.names == ["a_t1ce.nii", "b_t1ce.nii", "c_t2.nii", "d_t1ce.nii"]


@pytest.mark.parametrize(
    "names",
    [
        ["a_t1.nii", "a_t2.nii", "a_flair.nii"],
        ["a_t1c.nii", "b_t2.nii"],
        ["a_t1c.nii", "a_t2.nii.gz"],
        ["a_t1c.nii", "a_t1ce.nii", "a_t2.nii"],
        ["t1c.nii", "t2.nii"],
        ["scant1c.nii", "scant2.nii"],
        ["a_t1c.nii", "a_t2_2.nii"],
        ["a_t1c.nii", "a_thick.nii"],
    ],
    ids=lambda names: ",".join(names),
)
def test_in_doubt_nothing_is_left_out(tmp_path, names):
    inputs = found(make(tmp_path, names))
    assert inputs.names == sorted(names)
    assert inputs.left_out == {}


def test_sequences_in_different_folders_do_not_belong_together(tmp_path):
    make(tmp_path / "one", ["a_t1c.nii"])
    make(tmp_path / "two", ["a_t2.nii"])
    assert len(found(tmp_path).names) == 2


def test_a_file_that_is_named_is_read(tmp_path):
    make(tmp_path, BRATS_2021)
    flair = tmp_path / BRATS_2021[0]
    assert found(flair).names == [flair.name]
    assert found(flair, tmp_path / BRATS_2021[3]).names == [flair.name, BRATS_2021[3]]
    inputs = found(tmp_path, flair)
    assert inputs.names == [flair.name, BRATS_2021[3]]
    assert str(flair) not in inputs.left_out


def test_sequences_in_a_zip_are_left_out_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in BRATS_2023:
            archive.writestr(f"p1/{name}", b"")
    inputs = found(tmp_path / "study.zip", unpack_into=tmp_path / "unpacked")
    assert inputs.names == ["study.zip/p1/BraTS-GLI-00000-000-t1c.nii.gz"]
    assert len(inputs.left_out) == 4


def test_suffixes_of_pictures_count_too():
    assert list(other_sequences(["p/a_t1ce.png", "p/a_T2.PNG", "p/a.png"])) == ["p/a_T2.PNG"]
