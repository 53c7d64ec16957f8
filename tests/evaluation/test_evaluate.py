"""`evaluate` end to end, on slices and models so simple that every number can be worked out by hand."""

import json

import numpy as np
import pytest
from PIL import Image
from stub_evaluation import GLIOMA, NOWHERE, rows_of, shown, write_mat
from stub_evaluation import folder as folder
from stub_evaluation import models as models
from stub_evaluation import run as run

from cascade.contract import CLASS_NAMES
from cascade.datasets.split import make_split, write_split
from cascade.discovery.output_marker import EVALUATION_PICTURES
from cascade.errors import CascadeError
from cascade.evaluation.scores import as_csv, from_csv
from cascade.evaluation.summary import summarise
from cascade.files import sha256_of


def test_dice_counts_an_empty_mask_as_0(run):
    dice = run()["dice"]  # 1, 1/2, 1, 0 (empty), 0 (far off), 1
    assert dice["mean"] == 3.5 / 6
    assert dice["median"] == 0.75
    assert dice["quartiles"] == [0.125, 1.0]
    assert dice["empty_share"] == 1 / 6
    assert dice["misplaced_share"] == 1 / 6
    assert dice["by_patient"]["mean"] == (0.75 + 0.5 + 0 + 1) / 4


def test_iou_and_hausdorff_distance_are_means_over_the_slices_that_have_one(run):
    metrics = run()
    assert metrics["iou"]["mean"] == pytest.approx((1 + 1 / 3 + 1 + 0 + 0 + 1) / 6)
    assert metrics["hausdorff95_px"]["mean"] == pytest.approx((0 + 20 + 0 + 200 + 0) / 5)
    assert metrics["hausdorff95_mm"]["mean"] == pytest.approx(0.49 * 220 / 5)
    assert metrics["hausdorff95_px"]["undefined"] == 1


def test_accuracy_under_three_masks_tells_which_stage_errs(run):
    metrics = run()
    values = {name: figure["value"] for name, figure in metrics["accuracy"].items()}
    assert values == {"true_mask": 4 / 6, "predicted_mask": 3 / 6, "whole_slice": 3 / 6, "by_patient": 3 / 4}
    assert metrics["right_with"] == {"both_masks": 2, "true_mask_only": 2, "predicted_mask_only": 1, "neither": 1}


def test_a_slice_with_an_empty_mask_is_a_wrong_class_in_a_column_of_its_own(run):
    matrix = run()["confusion_matrix"]
    assert matrix["rows"] == list(CLASS_NAMES)
    assert matrix["columns"] == [*CLASS_NAMES, "none"]
    assert matrix["slices"] == [[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0]]


def test_a_patients_class_is_the_mean_of_their_slices_probabilities(run):
    """Of 100, (0.8 + 0.2) / 2 meningioma beats (0.1 + 0.6) / 2 glioma; of MR7, 0.8 / 2 glioma beats 0.1 / 2."""
    metrics = run()
    assert metrics["patients"] == 4
    assert metrics["confusion_matrix"]["patients"] == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    assert metrics["balanced_accuracy"]["by_patient"]["value"] == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_a_patient_of_nothing_but_empty_masks_is_wrong(run, folder):
    write_mat(folder / "3.mat", "MR7A", GLIOMA, found=NOWHERE)
    assert run()["confusion_matrix"]["patients"][GLIOMA] == [1, 0, 0, 1]


def test_each_class_has_its_own_figures(run):
    glioma = run()["by_class"]["glioma"]
    assert (glioma["slices"], glioma["patients"]) == (3, 2)
    assert glioma["dice"]["mean"] == pytest.approx(2 / 3)
    assert glioma["dice"]["empty_share"] == pytest.approx(1 / 3)
    assert (glioma["precision"], glioma["recall"], glioma["f1"]) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    # Against the other three (0.1, 0.6, 0.1): 0.8 beats 3, 0 beats none, 0.1 ties with two.
    assert glioma["auc"] == pytest.approx((3 + 0 + 2 * 0.5) / 9)


def test_tumor_size_is_counted_on_a_grid_of_512(run, folder):
    small = np.s_[40:60, 40:60]  # 400 pixels of a 256 x 256 slice are 1600 of 512 x 512
    write_mat(folder / "7.mat", "500", GLIOMA, true=small, found=small, side=256)
    write_mat(folder / "8.mat", "600", GLIOMA, true=np.s_[100:300, 100:300], found=NOWHERE)  # 226 pixels wide
    metrics = run()
    assert {name: group["slices"] for name, group in metrics["by_size"].items()} == {
        "small": 7,
        "medium": 0,
        "large": 1,
    }
    assert metrics["by_size"]["medium"]["dice"]["mean"] is None
    assert metrics["by_size"]["large"]["dice"]["mean"] == 0.0


def test_where_the_spacing_is_not_known_there_is_no_distance_in_mm(run, folder, tmp_path):
    write_mat(folder / "7.mat", "500", GLIOMA, side=256)
    metrics = run()
    assert (metrics["hausdorff95_px"]["undefined"], metrics["hausdorff95_mm"]["undefined"]) == (1, 2)
    assert rows_of(tmp_path / "out")[6]["hausdorff95_mm"] == ""


def test_slices_csv_has_a_row_a_slice(run, tmp_path):
    run()
    rows = rows_of(tmp_path / "out")
    assert [row["path"] for row in rows] == ["1.mat", "2.mat", "3.mat", "4.mat", "5.mat", "6.mat"]
    assert rows[1]["patient"] == "100"
    assert (rows[1]["label"], rows[1]["predicted"], rows[1]["predicted_with_true_mask"]) == (
        "meningioma",
        "glioma",
        "meningioma",
    )
    assert float(rows[1]["probability glioma"]) == pytest.approx(0.6)
    assert (float(rows[1]["dice"]), float(rows[1]["hausdorff95_px"])) == (0.5, 20.0)
    assert (rows[1]["true_area_px"], rows[1]["predicted_area_px"]) == ("1600", "1600")
    assert (rows[3]["predicted"], rows[3]["probability glioma"], rows[3]["hausdorff95_px"]) == ("none", "", "")


def test_slices_csv_is_read_as_it_was_written(run, tmp_path):
    """So that others can be summed up of it: those of all folds of a cross-validation."""
    metrics = run()
    text = (tmp_path / "out" / "slices.csv").read_text()
    scored = from_csv(text.splitlines())
    assert as_csv(scored) == text
    again = json.loads(json.dumps(summarise(scored)))
    assert again == {name: metrics[name] for name in again}


def test_metrics_json_holds_what_is_promised_and_what_is_returned(run, models, tmp_path):
    metrics = run()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    assert {"slices", "patients", "dice", "accuracy", "by_class", "confusion_matrix", "models"} <= metrics.keys()
    assert {"mean", "median", "ci95", "empty_share"} <= metrics["dice"].keys()
    for name in ("true_mask", "predicted_mask", "whole_slice", "by_patient"):
        low, high = metrics["accuracy"][name]["ci95"]
        assert 0 <= low <= metrics["accuracy"][name]["value"] <= high <= 1
    assert metrics["models"]["segmenter"] == sha256_of(models / "segmenter.onnx")
    assert (metrics["part"], metrics["split_sha256"], metrics["backend"]) == ("all", None, "stub")


def test_the_figures_are_there(run, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("presence.png", "tumor_free.csv"):  # of an evaluation with tumor-free slices
        (tmp_path / "out" / name).write_text("earlier")
    with pytest.raises(CascadeError, match=r"presence\.png: is in the way, and no evaluation wrote it"):
        run(draw=True)
    (tmp_path / "out" / "metrics.json").write_text('{"format": "cascade evaluation 1"}')
    run(draw=True)
    assert not (tmp_path / "out" / "tumor_free.csv").exists()
    pictures = list((tmp_path / "out").glob("*.png"))
    assert {path.name for path in pictures} == EVALUATION_PICTURES - {"presence.png"}
    for path in pictures:
        with Image.open(path) as image:
            image.verify()


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_batch_size_changes_nothing(run, batch_size):
    metrics, others = run(), run(batch_size=batch_size)
    assert {**metrics, "date": ""} == {**others, "date": ""}


def test_a_broken_file_is_named_and_the_rest_done(run, folder):
    (folder / "7.mat").write_text("not MATLAB")
    write_mat(folder / "8.mat", "500", GLIOMA, true=NOWHERE)
    metrics = run()
    assert "not used: 7.mat: cannot be read" in shown(metrics)
    assert metrics["slices"] == 6
    assert metrics["failed"]["slices"] == 2
    assert metrics["failed"]["problems"][0].startswith("7.mat: cannot be read")
    assert metrics["failed"]["problems"][1] == "8.mat: is labelled glioma but its mask is empty"


def test_a_folder_without_one_usable_slice_is_an_error(run, folder):
    for path in folder.iterdir():
        path.write_text("not MATLAB")
    with pytest.raises(CascadeError, match="no slice can be used"):
        run()


def test_nothing_is_written_among_the_data(run, folder):
    """A data set's own table may be called slices.csv."""
    with pytest.raises(CascadeError, match="holds the data set"):
        run(out=folder)


def test_the_tables_show_the_main_figures_also_of_a_single_patient(run, folder):
    for metrics in (run(), only_first_slice(run, folder)):
        text = shown(metrics)
        assert "predicted mask, by patient" in text
        assert "…" not in text  # all of it fits
        assert "not used" not in text
        assert not text.endswith("\n\n")


def only_first_slice(run, folder):
    for path in folder.glob("[2-9].mat"):
        path.unlink()
    return run()


def test_a_single_patient_has_figures_but_no_intervals(run, folder):
    metrics = only_first_slice(run, folder)
    assert metrics["accuracy"]["predicted_mask"] == {"value": 1.0, "ci95": None}
    assert metrics["by_class"]["glioma"]["recall"] is None
    assert metrics["macro_auc"]["predicted_mask"] is None


# --- with a split


@pytest.fixture
def split(folder):
    """Of 27 people with one slice each, nine a class."""
    for path in folder.iterdir():
        path.unlink()
    for number in range(27):
        write_mat(folder / f"{number}.mat", f"{number}", number % 3, percent=60 + number)
    split, _ = make_split(folder, seed=0)
    path = folder.parent / "split.json"
    write_split(split, path, seed=0)
    return path, split


def test_only_the_part_that_is_asked_for_is_evaluated(run, split, tmp_path):
    path, content = split
    metrics = run(split_file=path, part="test")
    assert [row["path"] for row in rows_of(tmp_path / "out")] == [item.path for item in content.part("test")]
    assert 0 < metrics["slices"] < 27
    assert (metrics["part"], metrics["split_sha256"]) == ("test", content.sha256)


@pytest.mark.parametrize(("other", "vouched"), [({}, True), ({"other_splits": ["another"]}, False)])
def test_only_models_that_learned_from_no_other_split_are_vouched_for(run, split, models, other, vouched):
    path, content = split
    table = models / "models.json"
    records = json.loads(table.read_text())
    for record in records.values():
        record["settings"] = {"split_sha256": content.sha256}
    records["classifier"]["settings"] |= other
    table.write_text(json.dumps(records))
    metrics = run(split_file=path)
    assert metrics["models_trained_on_this_split"] is vouched
    assert ("records name another split" in shown(metrics, width=500)) is not vouched
    assert "no split was given" in shown(run(), width=500)


def test_a_file_of_the_part_that_is_missing_or_changed_is_an_error(run, split, folder):
    path, content = split
    name = content.part("test")[0].path
    write_mat(folder / name, "1", GLIOMA, percent=33)
    with pytest.raises(CascadeError, match="is not the file the split was made of"):
        run(split_file=path)
    (folder / name).unlink()
    with pytest.raises(CascadeError, match="not in the folder"):
        run(split_file=path)


def test_an_unknown_part_is_an_error(run, split):
    with pytest.raises(CascadeError, match="no part 'tests'"):
        run(split_file=split[0], part="tests")


def test_what_is_left_without_the_uncertain_slices(run, models):
    table = models / "models.json"
    records = json.loads(table.read_text())
    records["classifier"]["calibration"] = {"uncertain_below": 0.7}
    table.write_text(json.dumps(records))
    metrics = run()  # 0.8 for all but the second, 0.6, and the fourth, which has no mask; the last is wrong
    found = metrics["uncertain"]
    assert found["below"] == 0.7
    assert found["coverage"] == pytest.approx(4 / 6)
    assert found["accuracy_of_the_rest"] == pytest.approx(3 / 4)
    assert found["curve"]["coverage"][-1] == 1
    assert found["curve"]["accuracy"][-1] == metrics["accuracy"]["predicted_mask"]["value"]
