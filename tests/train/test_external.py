"""The index of external slices: masks, weights and folds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

torch = pytest.importorskip("torch")

from cascade.cli.train import _external
from cascade.contract import PIXEL_MM
from cascade.datasets.split import Split, SplitSlice
from cascade.errors import CascadeError
from cascade.files import sha256_of
from train.external import (
    ExternalSlice,
    check_apart,
    check_subjects,
    external_folds,
    read_index,
    read_negatives,
    sha256_of_items,
)
from train.external_evaluation import ExternalScore, as_csv, from_csv, summarize
from train.external_store import ExternalStore, sampling_weights

HEADER = "image,class,subject,mask,mask_kind,set,set_weight,part\n"


def write_slice(path, side=64):
    pixels = np.tile(np.linspace(0, 200, side).astype(np.uint8), (side, 1))
    Image.fromarray(pixels).save(path)


def write_mask(path, rows, columns, side=64):
    mask = np.zeros((side, side), np.uint8)
    mask[rows, columns] = 255
    Image.fromarray(mask).save(path)


def write_index(folder, *lines):
    (folder / "index.csv").write_text(HEADER + "\n".join(lines))
    return folder


def test_an_index_names_slices_masks_classes_and_subjects(tmp_path):
    write_index(tmp_path, "a.png,Glioma,p1,a-mask.png,inside_uncertain,siteA,2.5,validation", "b.png,none,p2,,,,,")
    first, second = read_index(tmp_path)
    assert first.path == tmp_path / "a.png"
    assert first.mask == tmp_path / "a-mask.png"
    assert (first.mask_kind, first.label, first.subject) == ("inside_uncertain", "glioma", "siteA/p1")
    assert (first.set_weight, first.part) == (2.5, "validation")
    assert (second.label, second.mask, second.set_name, second.part) == ("none", None, tmp_path.name, "train")
    assert read_index(tmp_path / "index.csv") == [first, second]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("a.png,cyst,p1,,,,,", "cyst"),
        ("a.png,glioma,,,,,,", "line 2"),
        ("a.png,glioma,p1,m.png,blurry,,,", "blurry"),
        ("a.png,glioma,p1,,exact,,,", "line 2"),
        ("a.png,none,p1,m.png,,,,", "line 2"),
        ("a.png,none,p1,,,,-1,", "-1"),
        ("a.png,none,p1,,,,,tests", "tests"),
    ],
)
def test_an_invalid_line_is_refused_by_its_number(tmp_path, line, named):
    with pytest.raises(CascadeError, match=r"index\.csv, line 2") as caught:
        read_index(write_index(tmp_path, line))
    assert named in str(caught.value)


def test_an_index_without_a_needed_column_is_refused(tmp_path):
    (tmp_path / "index.csv").write_text("image,class\na.png,none\n")
    with pytest.raises(CascadeError, match="subject"):
        read_index(tmp_path)
    with pytest.raises(CascadeError, match="missing"):
        read_index(tmp_path / "missing")


def test_a_folder_of_negatives_needs_no_index(tmp_path):
    write_slice(tmp_path / "a.png")
    write_slice(tmp_path / "b.png", 700)
    items = read_negatives(tmp_path)
    assert [(item.name, item.label) for item in items] == [("a.png", "none"), ("b.png", "none")]
    store = ExternalStore(items, "reading")
    assert store.slices.shape == (2, 1, 512, 512)
    assert store.slices[:, 0, 256, [0, 256, 511]].tolist() == [pytest.approx([0, 0.5, 1], abs=0.02)] * 2
    assert store.labels.tolist() == [-1, -1]
    assert not store.targets.any()


def test_folders_of_negatives_of_one_name_are_two_sets(tmp_path):
    """They were one, so that each of their slices was drawn half as often."""
    for name in ("A", "B"):
        (tmp_path / name / "slices").mkdir(parents=True)
        write_slice(tmp_path / name / "slices" / "0.png")
    items = _external([], [tmp_path / "A" / "slices", tmp_path / "B" / "slices"])
    assert len({item.set_name for item in items}) == len({item.subject for item in items}) == 2
    assert {item.set_name for item in _external([], [tmp_path / "A" / "slices"])} == {"slices"}


def test_a_negative_that_cannot_be_read_is_named(tmp_path):
    write_slice(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(CascadeError, match=r"b\.png"):
        ExternalStore(read_negatives(tmp_path), "reading")


def test_a_slice_with_a_known_spacing_is_scaled_as_the_tool_scales_it(tmp_path):
    """Training filled the square with every slice, and so showed other sizes than `predict` does."""
    pixels = np.zeros((100, 100), np.float32)
    pixels[40:60, 40:60] = 1
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(1, 1), metadata={"unit": "mm"})
    Image.fromarray((pixels * 255).astype(np.uint8)).save(tmp_path / "a-mask.png")
    (tmp_path / "index.csv").write_text("image,class,subject,mask\na.tif,glioma,1,a-mask.png\n")
    store = ExternalStore(read_index(tmp_path), "reading")
    side = 20 / PIXEL_MM
    assert store.targets[0, 0].sum() == pytest.approx(side**2, rel=0.1)
    assert (store.slices[0] > 0.5).sum() == pytest.approx(side**2, rel=0.1)


def test_a_missing_slice_of_an_index_is_named():
    item = ExternalSlice(Path("missing.png"), None, "", "none", "S/1", "S", None, "train")
    with pytest.raises(CascadeError, match=r"missing\.png: there is no such file"):
        sha256_of_items([item])


def test_each_mask_kind_leaves_its_own_pixels_uncertain(tmp_path):
    """A mask of 16 x 16 on 64 x 64 is 128 x 128 on the square of 512; the ring around it is 50 pixels wide."""
    write_slice(tmp_path / "a.png")
    write_mask(tmp_path / "m.png", slice(24, 40), slice(24, 40))
    lines = [f"a.png,glioma,p,m.png,{kind},,," for kind in ("exact", "inside_uncertain", "outside_uncertain")]
    store = ExternalStore(read_index(write_index(tmp_path, *lines, "a.png,meningioma,p,,,,,")), "reading")
    tumor, uncertain = store.targets.flatten(2).sum(2).T.tolist()
    assert tumor == pytest.approx([128 * 128, 0, 128 * 128, 0], rel=0.01)  # resizing rounds the corners
    assert uncertain[:2] == pytest.approx([0, 128 * 128], rel=0.01)
    assert uncertain[3] == 512 * 512
    # Four sides of the ring, and four quarters of a circle at its corners.
    assert uncertain[2] == pytest.approx(4 * 128 * 50 + np.pi * 50**2, rel=0.03)
    assert not (store.targets[:, 0] & store.targets[:, 1]).any()
    assert store.labels.tolist() == [1, 1, 1, 0]


def test_a_mask_that_does_not_fit_or_is_empty_is_named(tmp_path):
    write_slice(tmp_path / "a.png")
    write_mask(tmp_path / "m.png", slice(0, 5), slice(0, 5), side=32)
    with pytest.raises(CascadeError, match=r"m\.png: mask \(32, 32\)"):
        ExternalStore(read_index(write_index(tmp_path, "a.png,glioma,p,m.png,,,,")), "reading")
    write_mask(tmp_path / "m.png", slice(0), slice(0))
    with pytest.raises(CascadeError, match=r"m\.png"):
        ExternalStore(read_index(write_index(tmp_path, "a.png,glioma,p,m.png,,,,")), "reading")


def item(set_name, subject, weight=None, part="train", path="x"):
    return ExternalSlice(path, None, "", "none", f"{set_name}/{subject}", set_name, weight, part)


def test_sets_are_drawn_by_their_weight_and_subjects_evenly():
    """Set A: 4 subjects, hence weight 2; B is given weight 3. A1 has two slices, which share its part."""
    items = [*(item("A", name) for name in (1, 1, 2, 3, 4)), item("B", 1, 3.0), item("B", 2, 3.0)]
    assert sampling_weights(items).tolist() == [0.25, 0.25, 0.5, 0.5, 0.5, 1.5, 1.5]


def test_a_subject_in_two_parts_is_refused():
    check_subjects([item("A", 1), item("B", 1, part="test")])
    with pytest.raises(CascadeError, match="A/1"):
        check_subjects([item("A", 1), item("A", 1, part="test")])


def test_a_held_out_file_of_the_data_set_is_refused_as_external_training_slice(tmp_path):
    """It trained the models that it tested."""
    for name in ("held", "other"):
        (tmp_path / f"{name}.png").write_text(name)
    held = SplitSlice("a.mat", "", "glioma", "1", "test", sha256_of(tmp_path / "held.png"))
    split = Split((held,), "0" * 64)
    check_apart(
        [item("A", 1, path=tmp_path / "other.png"), item("A", 1, part="test", path=tmp_path / "held.png")], split
    )
    with pytest.raises(CascadeError, match=r"held\.png: is a\.mat of the data set, which is in test"):
        check_apart([item("A", 1, path=tmp_path / "held.png")], split)


def test_a_file_in_two_parts_is_refused(tmp_path):
    """Listed in two sets, or given as negative too, it trained the models that it tested."""
    for name in ("a.png", "b.png"):
        write_slice(tmp_path / name)
    items = [
        item(name, name, part=part, path=tmp_path / f"{name}.png") for name, part in (("a", "train"), ("b", "test"))
    ]
    with pytest.raises(CascadeError, match=r"b\.png: is the same file as .*a\.png, which is in train, not in test"):
        check_apart(items, Split((), ""))
    check_apart([replace(each, part="test") for each in items], Split((), ""))


def test_tumors_without_a_mask_do_not_count_as_touched():
    """Any mask touched them, since their tumor may be everywhere."""
    touched = [True, False, None]
    scores = [ExternalScore("A", f"A/{subject}", "glioma", True, hit, "glioma") for subject, hit in enumerate(touched)]
    assert from_csv(as_csv(scores)) == scores
    (row,) = summarize(scores)
    assert (row["slices"], row["touched"]["value"]) == (3, 0.5)
    (row,) = summarize(scores[2:])
    assert row["touched"] is None


def test_each_external_subject_is_tested_in_one_fold():
    items = [item(name, subject) for name, count in (("A", 12), ("B", 6)) for subject in range(count) for _ in range(2)]
    folds = external_folds(items, 3)
    tested = [{entry.subject for entry in fold if entry.part == "test"} for fold in folds]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 18
    for subjects in tested:
        assert (sum(name.startswith("A") for name in subjects), len(subjects)) == (4, 6)
    for fold in folds:
        check_subjects(fold)
        assert {entry.part for entry in fold} == {"train", "validation", "test"}
        assert len(fold) == len(items)


def test_subjects_with_a_tumor_are_spread_over_the_folds():
    """Every second subject has a tumor. Sorted by name, all of them were in every second fold."""
    items = [replace(item("A", number), label="glioma" if number % 2 else "none") for number in range(8)]
    for fold in external_folds(items, 2):
        assert {entry.label for entry in fold if entry.part == "test"} == {"glioma", "none"}
        assert {entry.label for entry in fold if entry.part == "train"} == {"glioma", "none"}


def test_slices_of_unknown_subjects_train_in_every_fold(tmp_path):
    """`--negatives` gives neighboring slices of a head no common subject: they were in all three parts of a fold."""
    for number in range(8):
        write_slice(tmp_path / f"head-axial{number:03}.png")
    for fold in external_folds([*read_negatives(tmp_path), *(item("A", number) for number in range(4))], 2):
        assert {entry.part for entry in fold if entry.label == "none" and entry.set_name == tmp_path.name} == {"train"}
        assert {entry.part for entry in fold if entry.set_name == "A"} == {"train", "validation", "test"}


def test_the_hash_of_the_slices_changes_with_a_file_a_part_and_a_weight(tmp_path):
    write_slice(tmp_path / "a.png")
    before = sha256_of_items(read_index(write_index(tmp_path, "a.png,none,p,,,,,")))
    assert sha256_of_items(read_index(write_index(tmp_path, "a.png,none,p,,,,,"))) == before
    assert sha256_of_items(read_index(write_index(tmp_path, "a.png,none,p,,,,,test"))) != before
    assert sha256_of_items(read_index(write_index(tmp_path, "a.png,none,p,,,,9,"))) != before
    write_slice(tmp_path / "a.png", 65)
    assert sha256_of_items(read_index(write_index(tmp_path, "a.png,none,p,,,,,"))) != before


def test_the_slices_of_a_subject_have_one_number_wherever_they_are_listed(tmp_path):
    write_slice(tmp_path / "a.png")
    items = [item("S", subject, path=tmp_path / "a.png") for subject in "aba"]
    assert ExternalStore(items, "reading").subjects.tolist() == [0, 1, 0]
