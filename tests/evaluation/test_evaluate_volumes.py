"""Volumes evaluated end to end, on models so simple that every number can be computed by hand.

A volume has four slices of 512 x 512 pixels, 0.5 x 0.5 mm wide and 5 mm apart: the 1600 pixels of TUMOR are 2 ml.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from stub_evaluation import (
    BRIGHT,
    FAR_OFF,
    GLIOMA,
    HALF_OFF,
    MENINGIOMA,
    PITUITARY,
    TUMOR,
    StubClassifier,
    StubSegmenter,
)
from tiny_models import classifier_of_glioma, segmenter_of_brightness, write_models

from cascade.cli import main
from cascade.cli.evaluate_output import volume_evaluation_table
from cascade.contract import CLASS_NAMES
from cascade.discovery.output_marker import EVALUATION
from cascade.errors import CascadeError
from cascade.evaluation.evaluate_volumes import evaluate_volumes
from cascade.evaluation.metrics_json import read_evaluation
from cascade.evaluation.volume_scores import count_false_positives
from cascade.pipeline import Cascade
from cascade.runtime.cpu import CpuBackend
from cascade.volume.finding import VolumeRule

AFFINE = np.diag([-0.5, -0.5, 5.0, 1.0])
SHAPE = (4, 512, 512)


def save(path, slices, affine=AFFINE):
    """Write slices (N, H, W) as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(slices.transpose(2, 1, 0), affine), path)


def stack(regions, value, shape=SHAPE):
    """Return slices with a value in regions: index of a slice → regions in it."""
    slices = np.zeros(shape, np.uint8)
    for index, some in regions.items():
        for region in some:
            slices[index][region] = value
    return slices


@pytest.fixture
def folder(tmp_path):
    """A folder with a table, whose rows `add` writes together with their volumes."""
    folder = tmp_path / "heads"
    folder.mkdir()
    (folder / "volumes.csv").write_text("path,mask,label,patient\n")
    return folder


@pytest.fixture
def add(folder):
    def add(name, patient, label, *, true=None, predicted=None, predicted_class=GLIOMA, percent=80, affine=AFFINE):
        """Add a volume. Without `true` it has no mask file."""
        slices = stack(predicted or {}, BRIGHT)
        slices[:, 0, :3] = (predicted_class, predicted_class, percent)
        save(folder / f"{name}.nii", slices, affine)
        mask = "" if true is None else f"{name}-mask.nii"
        if mask:
            save(folder / mask, stack(true, 1), affine)
        add_row(folder, f"{name}.nii", mask, label, patient)

    return add


def add_row(folder, *cells):
    with (folder / "volumes.csv").open("a") as table:
        table.write(",".join(cells) + "\n")


@pytest.fixture
def heads(add):
    """Four volumes with a tumor, of three subjects, and two without."""
    two_slices = {1: [TUMOR], 2: [TUMOR]}
    add("exact", "100", "glioma", true=two_slices, predicted=two_slices)
    add(
        "half",
        "100",
        "glioma",
        true=two_slices,
        predicted={1: [HALF_OFF, FAR_OFF], 2: [HALF_OFF]},
        predicted_class=MENINGIOMA,
        percent=60,
    )
    add("missed", "200", "meningioma", true=two_slices)
    add("elsewhere", "300", "pituitary tumor", true=two_slices, predicted={0: [FAR_OFF], 1: [FAR_OFF]})
    add("healthy", "400", "none")
    add("alarm", "500", "none", true={}, predicted={0: [FAR_OFF], 3: [TUMOR]}, predicted_class=PITUITARY)


def stub(**options):
    return Cascade(CpuBackend(StubSegmenter(), StubClassifier(), "stub"), {"segmenter": "5e9"}, 0.7, **options)


@pytest.fixture
def run(folder, tmp_path):
    def run(**options):
        return evaluate_volumes(folder, stub(**options), tmp_path / "out")

    return run


def rows_of(out):
    with (out / "volumes.csv").open(newline="", encoding="utf-8-sig") as lines:
        return {row["path"]: row for row in csv.DictReader(lines)}


def printed(evaluation, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(volume_evaluation_table(evaluation))
    return console.file.getvalue()


def test_dice_is_that_of_all_slices_together_and_a_missed_tumor_counts_as_0(heads, run):
    """`half` marks 4800 pixels and finds 1600 of the 3200 true ones: 2 * 1600 / 8000."""
    dice = run().metrics.tumor.dice
    assert dice.mean == pytest.approx((1 + 0.4 + 0 + 0) / 4)
    assert dice.median == pytest.approx(0.2)
    assert dice.ci95[0] < dice.mean < dice.ci95[1]


def test_the_error_of_the_volume_is_in_milliliters(heads, run):
    """Exact: 0; half: 6 ml for 4; missed: 0 for 4; elsewhere: 4 for 4."""
    error = run().metrics.tumor.volume_error_ml
    assert error.mean == pytest.approx((0 + 2 - 4 + 0) / 4)
    assert error.mean_absolute == pytest.approx((0 + 2 + 4 + 0) / 4)
    assert error.undefined == 0


def test_a_finding_elsewhere_counts_for_the_sensitivity_but_not_for_the_localized_one(heads, run):
    tumor = run().metrics.tumor
    assert (tumor.volumes, tumor.subjects) == (4, 3)
    assert tumor.sensitivity.value == 3 / 4
    assert tumor.localized_sensitivity.value == 2 / 4


def test_false_positives_are_counted_by_volume_and_by_component(heads, run):
    """Half and elsewhere have one component away from the tumor; the two of the alarm do not touch each other."""
    metrics = run().metrics
    assert (metrics.volumes, metrics.subjects) == (6, 5)
    assert (metrics.tumor_free.volumes, metrics.tumor_free.subjects) == (2, 2)
    assert metrics.tumor_free.false_positive_rate.value == 1 / 2
    assert metrics.false_positives_per_head.value == pytest.approx((0 + 1 + 0 + 1 + 0 + 2) / 6)


def test_the_class_is_that_of_the_volume_and_a_missed_tumor_is_wrong(heads, run):
    metrics = run().metrics
    assert metrics.tumor.accuracy.value == 1 / 4
    assert metrics.by_class["glioma"].accuracy.value == 1 / 2
    assert metrics.confusion_matrix.rows == metrics.confusion_matrix.columns == (*CLASS_NAMES, "none")
    assert metrics.confusion_matrix.volumes == ((0, 0, 0, 1), (1, 1, 0, 0), (0, 1, 0, 0), (0, 0, 1, 1))


def test_the_uncertain_fraction_is_that_of_the_findings(heads, run):
    """One of four findings has a probability of 60 %, below the threshold of 70 %."""
    assert run().metrics.uncertain_fraction == 1 / 4


def test_intervals_are_over_subjects_so_that_two_volumes_of_one_have_none(heads, run):
    by_class = run().metrics.by_class
    assert by_class["glioma"].volumes == 2
    assert by_class["glioma"].dice.mean == pytest.approx(0.7)
    assert by_class["glioma"].dice.ci95 is None
    assert by_class["glioma"].sensitivity.ci95 is None


def test_the_mask_of_the_accepted_components_is_scored(heads, run):
    """With a rule that wants two slices, the single slices of `half` and `alarm` are no findings any more."""
    metrics = run(volume_rule=VolumeRule(min_support=6.0, part_of_head=4.0)).metrics
    assert metrics.tumor.dice.mean == pytest.approx((1 + 2 * 1600 / 6400 + 0 + 0) / 4)
    assert metrics.tumor_free.false_positive_rate.value == 0.0
    assert metrics.false_positives_per_head.value == pytest.approx(1 / 6)


def test_a_component_that_touches_the_tumor_in_one_voxel_is_no_false_positive():
    true, predicted = np.zeros((2, 3, 8, 8), bool)
    true[1, 2, 2] = True
    predicted[1, 2:4, 2:4], predicted[2, 7, 7] = True, True
    assert count_false_positives(true, predicted) == 1
    assert count_false_positives(np.zeros_like(true), predicted) == 2
    assert count_false_positives(true, np.zeros_like(true)) == 0


def test_volumes_csv_has_one_row_per_volume(heads, run, tmp_path):
    run()
    rows = rows_of(tmp_path / "out")
    assert list(rows) == [f"{name}.nii" for name in ("exact", "half", "missed", "elsewhere", "healthy", "alarm")]
    half, missed, healthy = rows["half.nii"], rows["missed.nii"], rows["healthy.nii"]
    assert (half["patient"], half["label"], half["predicted"], half["uncertain"]) == (
        "100",
        "glioma",
        "meningioma",
        "True",
    )
    assert float(half["probability meningioma"]) == pytest.approx(0.6)
    assert (float(half["dice"]), float(half["true_ml"]), float(half["predicted_ml"])) == pytest.approx((0.4, 4, 6))
    assert (half["touches_tumor"], half["false_positives"], half["slices"], half["tumor_slices"]) == (
        "True",
        "1",
        "4",
        "2",
    )
    assert (missed["predicted"], missed["probability glioma"], missed["dice"]) == ("none", "", "0.0")
    assert (healthy["predicted"], healthy["dice"], healthy["true_ml"]) == ("none", "", "0.0")


def test_metrics_json_contains_what_is_returned(heads, run, tmp_path):
    evaluation = run()
    path = tmp_path / "out" / "metrics.json"
    content = json.loads(path.read_text())
    assert next(iter(content)) == "schema"  # read from the first bytes of the file
    assert content["schema"] == EVALUATION
    assert content["volumes"]["tumor"]["dice"]["mean"] == evaluation.metrics.tumor.dice.mean
    assert content["volumes"]["tumor"]["dice"]["ci95"] == list(evaluation.metrics.tumor.dice.ci95)
    assert content["volume_rule"]["min_support"] == VolumeRule().min_support
    assert (content["uncertain_below"], content["models"], content["backend"]) == (0.7, {"segmenter": "5e9"}, "stub")
    with pytest.raises(CascadeError, match=r"metrics\.json: .*of volumes"):
        read_evaluation(path)


def test_a_second_evaluation_replaces_the_first_also_one_of_slices(heads, run, tmp_path):
    """Figures of an evaluation of slices would be mistaken for those of the volumes."""
    first = run()
    (tmp_path / "out" / "dice.png").touch()
    (tmp_path / "out" / "notes.txt").touch()
    assert replace(run(), date="") == replace(first, date="")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "volumes.csv", "notes.txt"}


def test_a_foreign_volumes_csv_is_not_overwritten(heads, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "volumes.csv").write_text("mine")
    with pytest.raises(CascadeError, match=r"volumes\.csv: .*no evaluation wrote it"):
        run()


def test_the_tables_show_the_main_metrics(heads, run):
    text = printed(run())
    assert "…" not in text  # nothing is cut off
    assert "0.350" in text
    assert "0.667" in text
    assert "75.0%" in text
    assert "may have been trained on these patients" in " ".join(text.split())
    assert not text.endswith("\n\n")


def test_data_of_one_kind_only_have_no_value_for_the_other(add, run):
    add("healthy", "400", "none")
    metrics = run().metrics
    assert (metrics.tumor.dice.mean, metrics.tumor.sensitivity.value, metrics.uncertain_fraction) == (None, None, None)
    assert metrics.tumor_free.false_positive_rate.value == 0.0
    assert "-" in printed(run())


def test_volumes_that_cannot_be_used_are_named_and_the_others_are_evaluated(heads, folder, run):
    save(folder / "deep-mask.nii", stack({}, 1, (5, 512, 512)))
    save(folder / "full-mask.nii", stack({1: [TUMOR]}, 1))
    (folder / "broken.nii").write_text("no volume")
    (folder / "empty").mkdir()
    (folder / "alarm.nii").rename(folder / "moved.nii")
    add_row(folder, "broken.nii", "exact-mask.nii", "glioma", "1")
    add_row(folder, "./exact.nii", "deep-mask.nii", "glioma", "1")
    add_row(folder, "./missed.nii", "", "glioma", "1")
    add_row(folder, "./half.nii", "alarm-mask.nii", "glioma", "1")
    add_row(folder, "./healthy.nii", "full-mask.nii", "None", "1")
    add_row(folder, "./elsewhere.nii", "exact-mask.nii", "lymphoma", "1")
    add_row(folder, "empty", "", "none", "1")
    add_row(folder, "nowhere", "", "none", "1")
    evaluation = run()
    assert evaluation.metrics.volumes == 5
    assert evaluation.failed.volumes == 9
    problems = evaluation.failed.problems
    assert problems[0].startswith("alarm.nii: ")
    assert problems[1].startswith("broken.nii: ")
    assert problems[2].startswith("deep-mask.nii: mask (5, 512, 512) and volume (4, 512, 512)")
    assert problems[3].startswith("volumes.csv, line 10: ")
    assert problems[4].startswith("half.nii: is labeled glioma")
    assert problems[5].startswith("healthy.nii: is labeled none")
    assert problems[6].startswith("volumes.csv, line 13: ")
    assert "lymphoma" in problems[6]
    assert problems[7].startswith("empty: ")
    assert problems[8].startswith("nowhere: ")
    assert "not used: broken.nii" in printed(evaluation, width=300)


def test_a_volume_that_the_models_cannot_take_is_named(heads, folder, run, tmp_path):
    """Every slice is blank: only the models read the pixels, so the label is fine."""
    save(folder / "blank.nii", stack({}, 1))
    add_row(folder, "blank.nii", "", "none", "1")
    evaluation = run()
    assert evaluation.metrics.volumes == 6
    assert evaluation.failed.problems[0].startswith("blank.nii, slice 1 of 4: ")


def test_data_without_one_usable_volume_are_an_error(folder, run):
    (folder / "broken.nii").write_text("no volume")
    add_row(folder, "broken.nii", "", "none", "1")
    with pytest.raises(CascadeError, match="no volume can be used"):
        run()


def test_without_spacing_volumes_in_milliliters_are_unknown(add, folder, run, tmp_path):
    """A header without a voxel size: Dice is defined, and the volume is left out of the error."""
    add("plain", "1", "glioma", true={1: [TUMOR]}, predicted={1: [TUMOR]})
    for name in ("plain.nii", "plain-mask.nii"):
        content = bytearray((folder / name).read_bytes())
        content[80:92] = bytes(12)  # pixdim[1:4]
        content[252:256] = bytes(4)  # qform_code and sform_code
        (folder / name).write_bytes(content)
    tumor = run().metrics.tumor
    assert (tumor.dice.mean, tumor.volume_error_ml.mean, tumor.volume_error_ml.undefined) == (1.0, None, 1)
    assert rows_of(tmp_path / "out")["plain.nii"]["true_ml"] == ""


# --- the command line


def evaluate(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *map(str, arguments), "--backend", "onnxruntime"])
    return stopped.value.code


@pytest.fixture
def tiny(tmp_path):
    return write_models(
        tmp_path / "models", segmenter=segmenter_of_brightness(BRIGHT - 1), classifier=classifier_of_glioma()
    )


def test_the_command_evaluates_a_table_of_volumes_by_volume(heads, folder, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(folder, "--no-split", "--models", tiny, "--out", out) == 0
    assert "Volumes with a tumor" in capsys.readouterr().err
    metrics = json.loads((out / "metrics.json").read_text())["volumes"]
    assert metrics["tumor"]["dice"]["mean"] == pytest.approx(0.35)
    assert metrics["tumor"]["accuracy"]["value"] == 0.5  # every finding is a glioma
    assert len(rows_of(out)) == 6
    (folder / "alarm.nii").unlink()
    assert evaluate(folder, "--no-split", "--models", tiny, "--out", out) == 2
    assert "alarm.nii" in capsys.readouterr().err


def test_negatives_which_are_slices_are_refused_for_volumes(heads, folder, capsys):
    assert evaluate(folder, "--no-split", "--negatives", folder) == 1
    assert "label none" in " ".join(capsys.readouterr().err.split())


def test_a_table_of_slices_and_volumes_is_refused(heads, folder, capsys):
    Image.new("L", (40, 40)).save(folder / "slice.png")
    add_row(folder, "slice.png", "slice.png", "glioma", "1")
    assert evaluate(folder, "--no-split") == 1
    error = capsys.readouterr().err
    assert "exact.nii" in error
    assert "slice.png" in error
