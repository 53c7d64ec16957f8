"""`evaluate` end to end, on slices and models so simple that every number can be computed by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from stub_evaluation import GLIOMA, NOWHERE, StubClassifier, StubSegmenter, printed, rows_of, write_mat
from stub_evaluation import folder as folder
from stub_evaluation import models as models
from stub_evaluation import negatives as negatives
from stub_evaluation import run as run

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import LabeledSlice
from cascade.datasets.reader import SliceInfo
from cascade.discovery.output_marker import EVALUATION, EVALUATION_PICTURES, has_marker
from cascade.errors import CascadeError
from cascade.evaluation import output_dir
from cascade.evaluation.metrics_json import read_evaluation
from cascade.evaluation.schema import CorrectWith, Estimate
from cascade.evaluation.scores import from_csv, score_batch, to_csv
from cascade.evaluation.summary import summarize
from cascade.files import sha256_of, write_atomically
from cascade.pipeline import Cascade
from cascade.runtime.cpu import CpuBackend


def test_dice_counts_an_empty_mask_as_0(run):
    dice = run().metrics.dice  # 1, 1/2, 1, 0 (empty), 0 (far off), 1
    assert dice.mean == 3.5 / 6
    assert dice.median == 0.75
    assert dice.quartiles == (0.125, 1.0)
    assert dice.missed_fraction == 1 / 6
    assert dice.mislocalized_fraction == 1 / 6
    assert dice.by_subject.value == (0.75 + 0.5 + 0 + 1) / 4


def test_iou_and_hausdorff_distance_are_means_over_the_slices_that_have_one(run):
    metrics = run().metrics
    assert metrics.iou.mean == pytest.approx((1 + 1 / 3 + 1 + 0 + 0 + 1) / 6)
    assert metrics.hausdorff95_px.mean == pytest.approx((0 + 20 + 0 + 200 + 0) / 5)
    assert metrics.hausdorff95_mm.mean == pytest.approx(0.49 * 220 / 5)
    assert metrics.hausdorff95_px.undefined == 1


def test_accuracy_with_three_masks_locates_the_stage_that_errs(run):
    metrics = run().metrics
    values = {name: estimate.value for name, estimate in metrics.accuracy.items()}
    assert values == {"true_mask": 4 / 6, "predicted_mask": 3 / 6, "whole_slice": 3 / 6, "by_subject": 3 / 4}
    assert metrics.correct_with == CorrectWith(both_masks=2, true_mask_only=2, predicted_mask_only=1, neither=1)


def test_a_slice_with_an_empty_mask_is_a_wrong_class_in_a_column_of_its_own(run):
    matrix = run().metrics.confusion_matrix
    assert matrix.rows == CLASS_NAMES
    assert matrix.columns == (*CLASS_NAMES, "none")
    assert matrix.slices == ((1, 1, 0, 0), (1, 1, 0, 1), (0, 0, 1, 0))


def test_the_class_of_a_subject_is_predicted_from_the_mean_probabilities_of_its_slices(run):
    """Subject 100: (0.8 + 0.2) / 2 meningioma beats (0.1 + 0.6) / 2 glioma; MR7: 0.8 / 2 glioma beats 0.1 / 2."""
    metrics = run().metrics
    assert metrics.subjects == 4
    assert metrics.confusion_matrix.subjects == ((1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0))
    assert metrics.balanced_accuracy["by_subject"].value == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_a_subject_with_empty_masks_only_is_wrong(run, folder):
    write_mat(folder / "3.mat", "MR7A", GLIOMA, predicted=NOWHERE)
    assert run().metrics.confusion_matrix.subjects[GLIOMA] == (1, 0, 0, 1)


def test_each_class_has_its_own_metrics(run):
    glioma = run().metrics.by_class["glioma"]
    assert (glioma.slices, glioma.subjects) == (3, 2)
    assert glioma.dice.mean == pytest.approx(2 / 3)
    assert glioma.dice.missed_fraction == pytest.approx(1 / 3)
    assert (glioma.precision, glioma.recall, glioma.f1) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    # Against the other three (0.1, 0.6, 0.1): 0.8 beats 3, 0 beats none, 0.1 ties with two.
    assert glioma.auc == pytest.approx((3 + 0 + 2 * 0.5) / 9)


@pytest.mark.parametrize(("side", "spacing_mm"), [(512, 0.49), (192, 1.0), (128, 2.0)])
def test_a_tumor_of_one_size_has_one_diameter_whatever_the_pixels(side, spacing_mm):
    """30 mm are 61.2 pixels of 0.49 mm. The field of view counted before: 79 pixels in 192 x 192 of 1 mm."""
    rows, columns = np.ogrid[:side, :side]
    disc = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 <= (15 / spacing_mm) ** 2
    labeled = LabeledSlice(disc.astype(np.float32), disc, "glioma", "1", (spacing_mm, spacing_mm))
    cascade = Cascade(CpuBackend(StubSegmenter(), StubClassifier(), "stub"))
    (scored,) = score_batch(cascade, [(SliceInfo("a.png", "", "glioma", "1"), labeled)])
    assert scored.diameter_px == pytest.approx(61.2, rel=0.03)


def test_tumor_size_is_counted_on_a_grid_of_512(run, folder):
    small = np.s_[40:60, 40:60]  # 400 pixels of a 256 x 256 slice are 1600 of 512 x 512
    write_mat(folder / "7.mat", "500", GLIOMA, true=small, predicted=small, side=256)
    write_mat(folder / "8.mat", "600", GLIOMA, true=np.s_[100:300, 100:300], predicted=NOWHERE)  # 226 pixels wide
    by_size = run().metrics.by_size
    assert {name: group.slices for name, group in by_size.items()} == {"small": 7, "medium": 0, "large": 1}
    assert [group.diameter_px for group in by_size.values()] == [(0, 50), (50, 80), (80, None)]
    assert by_size["medium"].dice.mean is None
    assert by_size["large"].dice.mean == 0.0


def test_without_pixel_spacing_there_is_no_distance_in_mm(run, folder, tmp_path):
    write_mat(folder / "7.mat", "500", GLIOMA, side=256)
    metrics = run().metrics
    assert (metrics.hausdorff95_px.undefined, metrics.hausdorff95_mm.undefined) == (1, 2)
    assert rows_of(tmp_path / "out")[6]["hausdorff95_mm"] == ""


def test_slices_csv_has_one_row_per_slice(run, tmp_path):
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
    """A cross-validation reads the slices of all folds from it."""
    evaluation = run()
    content = (tmp_path / "out" / "slices.csv").read_bytes()
    scored = from_csv(content)
    assert to_csv(scored) == content
    assert summarize(scored) == evaluation.metrics


def test_metrics_json_contains_what_is_returned(run, models, negatives, tmp_path):
    """metrics.json of slices without a spacing has nulls, which must be read as None."""
    path = tmp_path / "out" / "metrics.json"
    for options in ({}, {"negatives": negatives}):
        evaluation = run(**options)
        content = json.loads(path.read_text())
        assert next(iter(content)) == "schema"  # read from the first bytes of the file
        assert content["schema"] == EVALUATION
        assert {"slices", "subjects", "dice", "accuracy", "by_class", "confusion_matrix", "models"} <= content.keys()
        assert {"mean", "median", "ci95", "missed_fraction", "mislocalized_fraction"} <= content["dice"].keys()
        assert content["dice"]["mean"] == evaluation.metrics.dice.mean
        assert (content["detection"] is None) == (evaluation.detection is None) == (not options)
        assert read_evaluation(path) == evaluation
    for name in ("true_mask", "predicted_mask", "whole_slice", "by_subject"):
        low, high = evaluation.metrics.accuracy[name].ci95
        assert 0 <= low <= evaluation.metrics.accuracy[name].value <= high <= 1
    assert evaluation.models["segmenter"] == sha256_of(models / "segmenter.onnx")
    assert (evaluation.subset, evaluation.split_sha256, evaluation.backend) == ("all", None, "stub")


def test_an_interrupted_evaluation_is_known_as_one_and_can_be_run_again(run, tmp_path, monkeypatch):
    """Without metrics.json, its own files looked like those of somebody else."""
    run()
    written = write_atomically

    def full(path, content):
        if path.name == "slices.csv":
            raise CascadeError(f"{path}: cannot be written", fix="free some space")
        written(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(output_dir, "write_atomically", full)
        with pytest.raises(CascadeError, match="cannot be written"):
            run()
    with pytest.raises(CascadeError, match=r"metrics\.json: is incomplete"):
        read_evaluation(tmp_path / "out" / "metrics.json")
    assert has_marker(tmp_path / "out" / "metrics.json")
    evaluation = run()
    assert read_evaluation(tmp_path / "out" / "metrics.json") == evaluation


@pytest.mark.parametrize("content", ['{"format": "cascade evaluation 1", "dice": {}}', "{}"])
def test_metrics_json_of_another_version_is_refused(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(CascadeError, match=r"metrics\.json: .* another version"):
        read_evaluation(path)


@pytest.mark.slow
def test_every_figure_is_written(run, tmp_path):
    (tmp_path / "out").mkdir()
    earlier = ("detection.png", "negatives.csv", "presence.png", "tumor_free.csv")  # the last two are of version 1
    for name in earlier:
        (tmp_path / "out" / name).write_text("earlier")
    with pytest.raises(CascadeError, match=r"detection\.png: .*no evaluation wrote it"):
        run(draw=True)
    (tmp_path / "out" / "metrics.json").write_text('{"format": "cascade evaluation 1"}')
    run(draw=True)
    assert not any((tmp_path / "out" / name).exists() for name in earlier)
    pictures = list((tmp_path / "out").glob("*.png"))
    assert {path.name for path in pictures} == EVALUATION_PICTURES - {"detection.png"}
    for path in pictures:
        with Image.open(path) as image:
            image.verify()


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_batch_size_changes_nothing(run, batch_size):
    evaluation, other = run(), run(batch_size=batch_size)
    assert replace(evaluation, date="") == replace(other, date="")


def test_a_broken_file_is_reported_and_the_others_are_evaluated(run, folder):
    (folder / "7.mat").write_text("not MATLAB")
    write_mat(folder / "8.mat", "500", GLIOMA, true=NOWHERE)
    evaluation = run()
    assert "not used: 7.mat: cannot be read" in printed(evaluation)
    assert evaluation.metrics.slices == 6
    assert evaluation.failed.slices == 2
    assert evaluation.failed.problems[0].startswith("7.mat: cannot be read")
    assert evaluation.failed.problems[1] == "8.mat: is labeled glioma but its mask is empty"


def test_a_folder_without_one_usable_slice_is_an_error(run, folder):
    for path in folder.iterdir():
        path.write_text("not MATLAB")
    with pytest.raises(CascadeError, match="no slice can be used"):
        run()


def test_nothing_is_written_among_the_data(run, folder):
    """A data set's own table may be called slices.csv."""
    with pytest.raises(CascadeError, match="is the folder of the data set"):
        run(out=folder)


def test_missing_folders_above_the_output_are_created(run, tmp_path):
    run(out=tmp_path / "new" / "out")
    assert (tmp_path / "new" / "out" / "metrics.json").is_file()


def test_a_folder_that_cannot_be_written_is_an_error(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CascadeError, match=r"file/out: cannot be written \(Not a directory\)"):
        run(out=tmp_path / "file" / "out")


def test_the_tables_show_the_main_metrics_also_of_a_single_subject(run, folder):
    for evaluation in (run(), only_first_slice(run, folder)):
        text = printed(evaluation)
        assert "predicted mask, by subject" in text
        assert "…" not in text  # nothing is cut off
        assert "not used:" not in text
        assert not text.endswith("\n\n")


def only_first_slice(run, folder):
    for path in folder.glob("[2-9].mat"):
        path.unlink()
    return run()


def test_a_single_subject_has_metrics_but_no_intervals(run, folder):
    metrics = only_first_slice(run, folder).metrics
    assert metrics.accuracy["predicted_mask"] == Estimate(value=1.0, ci95=None)
    assert metrics.by_class["glioma"].recall is None
    assert metrics.macro_auc["predicted_mask"] is None


def test_uncertain_slices_are_rejected(run, models):
    table = models / "models.json"
    records = json.loads(table.read_text())
    records["classifier"]["calibration"] = {"uncertain_below": 0.7}
    table.write_text(json.dumps(records))
    evaluation = run()  # 0.8 for all but the second, 0.6, and the fourth, which has no mask; the last is wrong
    rejection = evaluation.metrics.rejection
    assert rejection.threshold == 0.7
    assert rejection.coverage == pytest.approx(4 / 6)
    assert rejection.accuracy == pytest.approx(3 / 4)
    assert rejection.curve.coverage == tuple(count / 6 for count in (1, 1, 2, 2, 3, 4, 4, 5, 5, 6))  # tenths of six
    assert rejection.curve.accuracy == pytest.approx((1, 1, 1, 1, 1, 3 / 4, 3 / 4, 3 / 5, 3 / 5, 3 / 6))
    assert rejection.curve.accuracy[-1] == evaluation.metrics.accuracy["predicted_mask"].value
    assert "coverage 66.7%, accuracy 75.0%" in printed(evaluation, width=500)
