"""A split file is written once; an edited one, and one that no longer fits the data, is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cascade.datasets.split import (
    SplitSlice,
    check_files,
    make_split,
    read_split,
    write_split,
)
from cascade.errors import CascadeError


def test_a_changed_mask_is_an_error(tmp_path):
    lines = ["path,mask,label,patient"]
    for number in range(3):
        Image.fromarray((np.arange(400).reshape(20, 20) + number).astype(np.uint16)).save(tmp_path / f"{number}.png")
        Image.new("L", (20, 20), 1).save(tmp_path / f"{number}_mask.png")
        lines.append(f"{number}.png,{number}_mask.png,glioma,p{number}")
    (tmp_path / "slices.csv").write_text("\n".join(lines))
    split, _ = make_split(tmp_path, seed=0)
    check_files(tmp_path, split.slices)
    Image.new("L", (20, 20), 0).save(tmp_path / "1_mask.png")
    with pytest.raises(CascadeError, match=r"1_mask\.png: has changed"):
        check_files(tmp_path, split.slices)


def test_a_split_is_never_overwritten(folder, tmp_path):
    split, _ = make_split(folder, seed=0)
    path = tmp_path / "split.json"
    write_split(split, path, seed=0)
    before = path.read_bytes()
    with pytest.raises(CascadeError, match=r"split\.json: .* exists already"):
        write_split(split, path, seed=0)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("label", "glioma!"), ("sha256", "0" * 64), ("path", "../1.mat"), ("path", 5), ("mask", "a.png")],
)
def test_an_edited_split_is_refused(folder, tmp_path, field, value):
    path = tmp_path / "split.json"
    write_split(make_split(folder, seed=0)[0], path, seed=0)
    content = json.loads(path.read_text())
    content["slices"][0][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(CascadeError, match=r"split\.json: was edited"):
        read_split(path)


def test_a_slice_removed_from_a_split_is_an_error(folder, tmp_path):
    path = tmp_path / "split.json"
    write_split(make_split(folder, seed=0)[0], path, seed=0)
    content = json.loads(path.read_text())
    del content["slices"][7]
    path.write_text(json.dumps(content))
    with pytest.raises(CascadeError, match="was edited"):
        read_split(path)


def test_a_split_file_with_a_patient_in_two_subsets_is_refused(folder, tmp_path):
    split, _ = make_split(folder, seed=0)
    patient = split.subset("train")[0].patient
    own = [index for index, item in enumerate(split.slices) if item.patient == patient]
    path = tmp_path / "split.json"
    write_split(split, path, seed=0)
    content = json.loads(path.read_text())
    content["slices"][own[-1]]["part"] = "test"
    path.write_text(json.dumps(content))
    with pytest.raises(CascadeError, match=f"patient {patient} is in train and in test"):
        read_split(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"slices": 3}', '{"slices": ["a"], "sha256": ""}', '{"slices": [{"path": "a"}]}']
)
def test_a_file_that_is_not_a_split_is_refused_by_name(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(CascadeError, match=r"split\.json: is not a split file"):
        read_split(tmp_path / "split.json")


def test_a_missing_split_is_an_error(folder, tmp_path):
    with pytest.raises(CascadeError, match=r"split\.json: there is no such split file") as raised:
        read_split(tmp_path / "split.json")
    assert raised.value.fix == "write one with `cascade data split DIR`"
    assert not (tmp_path / "split.json").exists()


def test_a_split_written_before_masks_had_hashes_still_reads(tmp_path):
    """The hash is that of the file as written, not of what the current version would write."""
    path = tmp_path / "split.json"
    slices = [{"path": "1.mat", "mask": "", "label": "glioma", "patient": "a", "part": "train", "sha256": "00"}]
    sha256 = "e75498e831adfb8954f7c8902ba6d8acde51eb28aa7ce76824d559f276afeef9"
    path.write_text(json.dumps({"slices": slices, "sha256": sha256}))
    assert read_split(path).slices == (SplitSlice("1.mat", "", "glioma", "a", "train", "00"),)


def test_a_missing_and_a_changed_file_of_the_data_set_are_named(folder):
    split, _ = make_split(folder, seed=0)
    (folder / "3.mat").write_bytes((folder / "4.mat").read_bytes())
    with pytest.raises(CascadeError, match=r"3\.mat: has changed"):
        check_files(folder, split.slices)
    with pytest.raises(CascadeError, match=r"nowhere\.mat: is in the split but not in the folder"):
        check_files(folder, [replace(split.slices[0], path="nowhere.mat")])
