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


@pytest.mark.parametrize(
    ("scan", "labels"),
    [
        ("UCSF-PDGM-0004_T1c.nii.gz", "UCSF-PDGM-0004_tumor_segmentation.nii.gz"),
        ("TCGA-02-0006_t1Gd.nii.gz", "TCGA-02-0006_GlistrBoost_ManuallyCorrected.nii.gz"),
        ("BraTS-MEN-RT-0001-1_t1c.nii.gz", "BraTS-MEN-RT-0001-1_gtv.nii.gz"),
        ("a_t1c.nii", "a_seg.nii.gz"),
        ("a_t1c.nii", "a_t1c_Label-1.mha"),
        ("a_t1c.nii", "mask_a.nii"),
        ("a_t1c.nrrd", "a_t1c.seg.nrrd"),
        ("a_t1c.nrrd", "Segmentation.seg.nrrd"),
        ("a_t1c.nii.gz", "seg.nii.gz"),
        ("t1c.nii.gz", "seg.nii.gz"),
        ("t1c.nii.gz", "tumor_mask.nii.gz"),
        ("GTV-03_t1c.nii", "GTV-03_seg.nii"),
    ],
)
def test_labels_beside_the_enhanced_t1_are_left_out(tmp_path, scan, labels):
    """Their names had to end in "seg" and differ in nothing else. Any other map of labels got a finding."""
    inputs = found(make(tmp_path, [scan, labels, "other.nii"]))
    assert inputs.names == sorted([scan, "other.nii"])
    assert list(inputs.left_out) == [str(tmp_path / labels)]
    assert scan in inputs.left_out[str(tmp_path / labels)]


def test_a_label_map_whose_name_ends_like_the_enhanced_t1_is_left_out_beside_it(tmp_path):
    make(tmp_path, ["a_mask_t1c.nii", "a_mask_t1c_seg.nii", "a_t1c.nii"])
    inputs = found(tmp_path)
    assert inputs.names == ["a_t1c.nii"]
    assert all(reason.endswith("beside a_t1c.nii, which is read") for reason in inputs.left_out.values())


def test_labels_of_nnunet_are_left_out_beside_its_scans(tmp_path):
    make(tmp_path / "labelsTr", ["case_001.nii.gz"])
    assert found(tmp_path).names == ["labelsTr/case_001.nii.gz"]
    make(tmp_path / "imagesTr", ["case_001_0000.nii.gz"])
    make(tmp_path / "imagesTs", ["case_002_0000.nii.gz"])
    inputs = found(tmp_path)
    assert inputs.names == ["imagesTr/case_001_0000.nii.gz", "imagesTs/case_002_0000.nii.gz"]
    assert "imagesTr" in inputs.left_out[str(tmp_path / "labelsTr" / "case_001.nii.gz")]


@pytest.mark.parametrize("has_folders", [False, True])
@pytest.mark.parametrize("truth", ["VSD.Brain_3more.XX.XX.OT.54517", "VSD.Brain_3more.XX.54517", "VSD.Brain.XX.O.OT.9"])
def test_names_of_brats_2013_to_2015_differ_in_a_number_too(tmp_path, has_folders, truth):
    sequences = ("Flair.54511", "T1.54512", "T1c.54513", "T2.54514")
    for stem in (*(f"VSD.Brain.XX.O.MR_{sequence}" for sequence in sequences), truth):
        make(tmp_path / "pat1" / (stem if has_folders else ""), [f"{stem}.mha"])
    make(tmp_path / "pat2", ["VSD.Brain.XX.O.MR_T2.54515.mha"])
    inputs = found(tmp_path)
    assert [name.rpartition("/")[2] for name in inputs.names] == [
        "VSD.Brain.XX.O.MR_T1c.54513.mha",
        "VSD.Brain.XX.O.MR_T2.54515.mha",
    ]
    assert len(inputs.left_out) == 4


def test_names_may_be_a_token_alone(tmp_path):
    for subject in ("one", "two"):
        make(tmp_path / subject, ["t1c.nii.gz", "t1.nii.gz", "t2.nii.gz", "flair.nii.gz", "seg.nii.gz"])
    inputs = found(tmp_path)
    assert inputs.names == ["one/t1c.nii.gz", "two/t1c.nii.gz"]
    assert len(inputs.left_out) == 8


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
        ["scant1c.nii", "scant2.nii"],
        ["a_t1c.nii", "a_t2_2.nii"],
        ["a_t1c.nii", "a_thick.nii"],
        ["a_mask.nii"],
        ["a_mask_t1c.nii"],
        ["mask_t1c.nii"],
        ["a_t1.nii", "a_mask.nii"],
        ["a_t1c.nii", "b_mask.nii"],
        ["a_t1c.nii", "b_t1c.nii", "mask.nii"],
        ["a_t1c.nii", "a_segment.nii"],
        ["ROI-1_t1c.nii", "ROI-1_dwi.nii"],
        ["t1c.nii", "b_label_t1c.nii"],
        ["t1c.nii", "b_t1c.nii", "c_roi.nii"],
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


@pytest.mark.parametrize("pattern", ["GLI/*.nii.gz", "GLI/BraTS*", "*/*"])
def test_a_pattern_selects_like_a_folder(tmp_path, pattern):
    """Each file that matched counted as named, so that all sequences and the labels got findings."""
    make(tmp_path / "GLI", BRATS_2021)
    inputs = found(tmp_path / pattern)
    assert inputs.names == [BRATS_2021[3]]
    assert len(inputs.left_out) == 4
    assert found(tmp_path / pattern, tmp_path / "GLI" / BRATS_2021[0]).names == [BRATS_2021[0], BRATS_2021[3]]
    assert found(tmp_path / "GLI" / "*flair*").names == [BRATS_2021[0]]


def test_sequences_in_a_zip_are_left_out_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in BRATS_2023:
            archive.writestr(f"p1/{name}", b"")
    inputs = found(tmp_path / "study.zip", unpack_into=tmp_path / "unpacked")
    assert inputs.names == ["study.zip/p1/BraTS-GLI-00000-000-t1c.nii.gz"]
    assert len(inputs.left_out) == 4


def test_suffixes_of_pictures_count_too():
    assert list(other_sequences(["p/a_t1ce.png", "p/a_T2.PNG", "p/a.png"])) == ["p/a_T2.PNG"]
