"""The rule for volumes is set on subjects with and without a tumor."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from cascade.errors import CascadeError
from cascade.volume.finding import VolumeRule
from tests.stub_cascade import cascade_of
from train import calibrate_volumes
from train.calibrate_volumes import (
    LabeledVolume,
    best_limit,
    calibrated_rule,
    check_groups,
    items_of_fold,
    labeled_volumes,
    leave_one_out,
    shows_whole_head,
    volume_support,
    write_rule,
)
from train.external import read_index
from train.external_evaluation import ExternalScore, as_csv


def test_the_limit_lies_between_both_groups_on_a_logarithmic_scale():
    assert best_limit([1.0, 2.0], [8.0, 20.0], 1.0) == pytest.approx(4.0)


def test_one_of_twenty_subjects_of_each_group_may_be_decided_wrongly():
    assert best_limit([50.0] + 19 * [2.0], [0.1] + 19 * [8.0], 1.0) == pytest.approx(4.0)
    assert best_limit([50.0] + 18 * [2.0], 19 * [8.0], 1.0) > 50


def test_where_the_groups_overlap_the_false_positives_decide():
    assert best_limit([1.0, 9.0], [5.0, 20.0], 1.0) == math.nextafter(9.0, 10.0)


def test_one_slice_is_never_enough_however_good_the_segmenter():
    """Without support on any healthy head, the limit was the smallest number above 0."""
    assert best_limit(32 * [0.0], [8.0, 20.0], 4.0) == pytest.approx(math.sqrt(4 * 8))
    assert best_limit(32 * [0.0], [3.0, 20.0], 4.0) == math.nextafter(4.0, 5.0)


def test_each_subject_is_decided_by_a_limit_that_was_set_without_it():
    """The limit of all is 6.9. Without c, it is 4, which c reaches; without d, it is 9.8, which d does not."""
    healthy, tumor = {"a": 1.0, "b": 2.0, "c": 6.0}, {"d": 8.0, "e": 16.0}
    assert best_limit([*healthy.values()], [*tumor.values()], 1.0) == pytest.approx(math.sqrt(6 * 8))
    assert leave_one_out(healthy, tumor, 1.0) == {"false_positive_rate": 1 / 3, "sensitivity": 1 / 2}


def test_a_subject_counts_once_with_the_highest_support_of_its_volumes():
    def volume(subject, tumor, part="train"):
        return LabeledVolume(f"{subject}.nii", "set", subject, part, tumor, ())

    supports = [(volume("a", False), 1.0), (volume("a", False), 2.0), (volume("b", True, "validation"), 8.0)]
    supports.append((volume("b", False, "validation"), 3.0))  # a volume that shows no tumor of a subject with one
    rule = VolumeRule(max_log_odds=1.0)
    record = calibrated_rule(rule, [*supports, (volume("c", False), 0.5), (volume("d", True), 9.0)])
    assert VolumeRule.from_record(record) == replace(rule, min_support=4.0)
    assert (record["healthy_subjects"], record["tumor_subjects"]) == (2, 2)
    assert record["sets"] == {
        "set, train, no tumor": {"subjects": 2, "with_finding": 0},
        "set, train, tumor": {"subjects": 1, "with_finding": 1},
        "set, validation, no tumor": {"subjects": 1, "with_finding": 0},
        "set, validation, tumor": {"subjects": 1, "with_finding": 1},
    }


def index_of(folder, numbers, tumors=()):
    """An index of slices of one scan; slices with a tumor have a bright square."""
    lines = ["image,class,subject"]
    for number in numbers:
        pixels = np.zeros((32, 32), dtype=np.uint8)
        pixels[:, :16] = 100
        if number in tumors:
            pixels[10:20, 10:20] = 255
        Image.fromarray(pixels).save(folder / f"scan_T1c_{number}.png")
        lines.append(f"scan_T1c_{number}.png,{'glioma' if number in tumors else 'none'},one")
    (folder / "index.csv").write_text("\n".join(lines))
    return read_index(folder)


def test_slices_of_one_scan_become_a_stack_in_the_order_of_their_numbers(tmp_path):
    """As text, 10 comes before 9."""
    (volume,) = labeled_volumes(index_of(tmp_path, [*range(12, 0, -1)], tumors=[9, 10]))
    assert [path.name for path in volume.paths] == [f"scan_T1c_{number}.png" for number in range(1, 13)]
    assert (volume.name, volume.tumor) == ("scan_T1c_", True)
    assert volume_support(cascade_of(), volume) == pytest.approx(8.0)  # two slices of probability 1


def test_blank_slices_at_the_ends_of_a_stack_count_nothing(tmp_path):
    """One of them ended the calibration."""
    items = index_of(tmp_path, range(12), tumors=[5, 6])
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "scan_T1c_0.png")
    (volume,) = labeled_volumes(items)
    assert volume_support(cascade_of(), volume) == pytest.approx(8.0)


def test_the_subjects_that_a_fold_tested_can_be_chosen(tmp_path):
    items = [replace(index_of(tmp_path, [1])[0], subject=subject) for subject in ("set/a", "set/b", "set/c")]
    scores = [ExternalScore("set", subject, "none", False, False, "") for subject in ("set/a", "set/c")]
    (tmp_path / "external.csv").write_bytes(as_csv(scores))
    chosen = items_of_fold(items, tmp_path / "external.csv", tmp_path / "index.csv")
    assert [(item.subject, item.part) for item in chosen] == [("set/a", "test"), ("set/c", "test")]


def test_an_index_without_a_subject_of_the_fold_is_an_error(tmp_path):
    """Subjects of another folder have another set, unless the index names it: they were left out without a word."""
    items = [replace(index_of(tmp_path, [1])[0], subject="volumes/a", set_name="volumes")]
    (tmp_path / "external.csv").write_bytes(as_csv([ExternalScore("set", "set/a", "none", False, False, "")]))
    with pytest.raises(CascadeError, match=r"index\.csv: none of its subjects is in") as raised:
        items_of_fold(items, tmp_path / "external.csv", tmp_path / "index.csv")
    assert "column set" in raised.value.fix


def test_a_few_slices_of_a_head_are_no_stack(tmp_path):
    assert labeled_volumes(index_of(tmp_path, range(4))) == []


def test_too_few_subjects_are_refused_before_any_prediction():
    volumes = [LabeledVolume(f"{name}.nii", "set", name, "train", name == "a", ()) for name in "abc"]
    with pytest.raises(CascadeError, match="two subjects with a tumor"):
        check_groups(volumes)
    check_groups([*volumes, LabeledVolume("d.nii", "set", "d", "train", True, ())])


def test_a_scan_without_the_tumor_of_a_subject_is_no_subject_without_a_tumor():
    """It ended in an IndexError after all predictions."""
    volumes = [LabeledVolume("", "set", name, "test", tumor, ()) for name in "ab" for tumor in (True, False)]
    with pytest.raises(CascadeError, match="two subjects without a tumor"):
        check_groups(volumes)


def test_the_rule_becomes_a_part_of_the_segmenter(tmp_path):
    (tmp_path / "models.json").write_text('{"segmenter": {"sha256": "5e9"}, "classifier": {"sha256": "c1a"}}')
    write_rule(tmp_path, {"min_support": 7.5})
    assert json.loads((tmp_path / "models.json").read_text()) == {
        "segmenter": {"sha256": "5e9", "volume_rule": {"min_support": 7.5}},
        "classifier": {"sha256": "c1a"},
    }


@pytest.mark.parametrize(
    ("count", "slab_mm", "whole"), [(12, 5.0, True), (12, 2.0, False), (30, 2.0, True), (1, 6.0, False)]
)
def test_a_volume_of_a_part_of_a_head_is_no_measure_of_whole_ones(tmp_path, count, slab_mm, whole):
    """`predict` asks for less support there than the limit that was set on it."""
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((32, 32, count), np.float32), np.diag([1.0, 1.0, slab_mm, 1.0])), path)
    assert shows_whole_head(LabeledVolume("a.nii", "set", "a", "test", True, (path,)), VolumeRule()) == whole


def test_subjects_whom_the_segmenter_may_know_are_warned_of(tmp_path, monkeypatch, capsys):
    rows = [f"{n}.nii,{'glioma' if n < 2 else 'none'},{n},{'train' if n == 1 else 'test'}" for n in range(4)]
    (tmp_path / "index.csv").write_text("\n".join(["image,class,subject,part", *rows]))
    cascade = SimpleNamespace(volume_rule=VolumeRule(), description="none")
    monkeypatch.setattr(calibrate_volumes.Cascade, "open", lambda *arguments: cascade)
    monkeypatch.setattr(calibrate_volumes, "shows_whole_head", lambda volume, rule: True)
    monkeypatch.setattr(calibrate_volumes, "volume_support", lambda cascade, volume: 9.0 if volume.tumor else 1.0)
    monkeypatch.setattr("sys.argv", ["calibrate_volumes", "models", str(tmp_path), "--dry-run"])
    calibrate_volumes.main()
    printed = capsys.readouterr()
    assert json.loads(printed.out)["min_support"] == pytest.approx(6)  # between the 4 of one slice and 9
    assert "warning: subjects in the part train: 1" in printed.err
