"""`evaluate` end to end, on slices and models so simple that every number can be worked out by hand.

The stub models read their answers off the slice: tumor is "found" where it is BRIGHT, and three pixels in the corner
say which class the classifier answers with the found mask, which with the true one, and how probable in percent.
"""

import csv
import io
import json
import zipfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import cascade.evaluate
from cascade.backends import Choice
from cascade.backends.host import HostBackend
from cascade.contract import BOX, CLASS_NAMES, CLASS_PROBABILITY, PROBABILITY
from cascade.errors import CascadeError
from cascade.evaluate import evaluate, metrics_table
from cascade.evaluation import PICTURES
from cascade.evaluation.slices import as_csv, from_csv
from cascade.evaluation.summary import summarise
from cascade.files import sha256_of
from cascade.graphs import find_graph
from cascade.split import make_split, write_split

MENINGIOMA, GLIOMA, PITUITARY = range(3)
BRIGHT = 200
TUMOR = np.s_[100:140, 100:140]  # 1600 pixels; a circle as large is 45 pixels wide: small
HALF_OFF = np.s_[100:140, 120:160]
FAR_OFF = np.s_[300:340, 100:140]
NOWHERE = np.s_[0:0, 0:0]


class StubSegmenter:
    def run(self, slice):
        return {PROBABILITY: (slice >= BRIGHT).astype(np.float32)}


class StubClassifier:
    def run(self, slice, probability):
        assert probability.any((1, 2, 3)).all(), "asked about an empty mask"
        rows = [self.answer(*planes) for planes in zip(slice[:, 0], probability[:, 0], strict=True)]
        return {CLASS_PROBABILITY: np.array(rows, np.float32), BOX: np.zeros((len(rows), 4), np.float32)}

    def answer(self, pixels, mask):
        if mask.all():
            return [0.2, 0.5, 0.3]
        with_found, with_true, percent = pixels[0, :3].astype(int)
        row = np.full(3, (100 - percent) / 200)
        row[with_found if np.array_equal(mask, pixels >= BRIGHT) else with_true] = percent / 100
        return row


def write_mat(path, patient, label, *, found=TUMOR, with_found=None, with_true=None, percent=80, true=TUMOR, side=512):
    """A slice of the figshare layout. Without `with_found` or `with_true` the classifier answers the true class."""
    pixels, mask = np.zeros((side, side), np.int16), np.zeros((side, side), np.uint8)
    pixels[found], mask[true] = BRIGHT, 1
    pixels[0, :3] = [label if given is None else given for given in (with_found, with_true)] + [percent]
    with h5py.File(path, "w") as file:
        file["cjdata/PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
        file["cjdata/label"] = np.array([[label + 1.0]])
        file.create_dataset("cjdata/image", data=pixels.T, compression="gzip")
        file.create_dataset("cjdata/tumorMask", data=mask.T, compression="gzip")


@pytest.fixture
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("segmenter", "classifier"):
        (folder / f"{name}.onnx").write_text(name)
    hashes = {name: {"sha256": sha256_of(folder / f"{name}.onnx")} for name in ("segmenter", "classifier")}
    (folder / "models.json").write_text(json.dumps(hashes))

    def stub(backend, models, engines):
        graphs = {name: find_graph(name, models) for name in ("segmenter", "classifier")}
        return Choice("onnxruntime", HostBackend(StubSegmenter(), StubClassifier(), "stub"), graphs)

    monkeypatch.setattr(cascade.evaluate, "open_backend", stub)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Six slices of four people: MR7A and MR7B count as one."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_mat(folder / "1.mat", "100", MENINGIOMA)
    write_mat(folder / "2.mat", "100", MENINGIOMA, found=HALF_OFF, with_found=GLIOMA, percent=60)
    write_mat(folder / "3.mat", "MR7A", GLIOMA)
    write_mat(folder / "4.mat", "MR7B", GLIOMA, found=NOWHERE)
    write_mat(folder / "5.mat", "300", PITUITARY, found=FAR_OFF, with_true=GLIOMA)
    write_mat(folder / "6.mat", "400", GLIOMA, with_found=MENINGIOMA, with_true=MENINGIOMA)
    return folder


@pytest.fixture
def run(folder, models, tmp_path, monkeypatch):
    """Evaluates; without the figures, which take most of the time, unless they are asked for."""

    def run(draw=False, **changes):
        settings = {
            "split_file": None,
            "part": "test",
            "backend": "onnxruntime",
            "engines": tmp_path / "engines",
            "batch_size": 4,
            "out": tmp_path / "out",
        }
        with monkeypatch.context() as patch:
            if not draw:
                patch.setattr(cascade.evaluate, "charts", lambda metrics, scored: {})
                patch.setattr(cascade.evaluate, "gallery", lambda name, some, folder, cascade: b"")
            return evaluate(folder, models=models, **{**settings, **changes})

    return run


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


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "slices.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


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
    assert {path.name for path in pictures} == PICTURES - {"presence.png"}
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


def shown(metrics, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(metrics_table(metrics))
    return console.file.getvalue()


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


@pytest.fixture
def tumor_free(tmp_path):
    """Four pictures of 512 x 512: no tumor, a speck and a large patch as bright as a tumor, and a broken file."""
    folder = tmp_path / "healthy"
    folder.mkdir()
    for name, found in {"none": NOWHERE, "speck": np.s_[0:4, 0:4], "patch": TUMOR}.items():
        pixels = np.zeros((512, 512), np.uint8)
        pixels[400:] = BRIGHT // 2  # a blank slice would be refused
        pixels[found] = BRIGHT
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_false_alarms_are_counted_on_tumor_free_slices(run, tumor_free, tmp_path):
    metrics = run(tumor_free=tumor_free)
    found = metrics["presence"]
    assert found["tumor_free_slices"] == 3
    assert found["false_alarms"] == pytest.approx(2 / 3)
    assert found["large_false_alarms"] == pytest.approx(1 / 3)
    assert found["sensitivity"] == pytest.approx(5 / 6)
    assert any("broken.png" in problem for problem in metrics["failed"]["problems"])
    rows = list(csv.DictReader((tmp_path / "out" / "tumor_free.csv").open()))
    assert {row["path"]: float(row["peak"]) for row in rows} == {"none.png": 0, "speck.png": 1, "patch.png": 1}


def test_without_tumor_free_slices_nothing_is_said_of_them(run, tmp_path):
    assert run()["presence"] is None
    assert not (tmp_path / "out" / "tumor_free.csv").exists()


def test_the_presence_curve_is_drawn_and_told(run, tumor_free, tmp_path):
    metrics = run(draw=True, tumor_free=tumor_free)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == PICTURES
    assert "A tumor seen in 66.7% of 3 tumor-free slices, a large one in 33.3%" in shown(metrics, width=120)


def test_tumor_free_slices_may_be_volumes_and_lie_in_zips(run, tumor_free, tmp_path):
    """They were left out without a word."""
    volume = np.zeros((64, 48, 3), np.float32)
    volume[..., 1:] = np.arange(64)[:, None, None]  # the first slice is blank
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 6.0, 1.0])), tumor_free / "head.nii.gz")
    with zipfile.ZipFile(tumor_free / "more.zip", "w") as archive:
        archive.write(tumor_free / "none.png", "inner/none.png")
        archive.write(tumor_free / "broken.png", "inner/broken.png")
    metrics = run(tumor_free=tumor_free)
    assert metrics["presence"]["tumor_free_slices"] == 3 + 2 + 1
    assert metrics["failed"]["slices"] == 2
    assert any(problem.startswith(f"{tumor_free}/more.zip/inner/") for problem in metrics["failed"]["problems"])
    names = [row["path"] for row in csv.DictReader((tmp_path / "out" / "tumor_free.csv").open())]
    assert {"head.nii.gz/1", "head.nii.gz/2", "more.zip/inner/none.png"} < set(names)
    rows = [line.split() for line in shown(metrics).splitlines()]
    first = rows.index(["(in", "none)", "3", "66.7%"])
    assert rows[first + 1 : first + 3] == [["head.nii.gz", "2", "0.0%"], ["more.zip", "1", "0.0%"]]


def test_a_folder_of_no_tumor_free_slice_is_an_error(run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(CascadeError, match=r"no slice can be used: .*broken\.png"):
        run(tumor_free=tmp_path / "broken.png")


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
