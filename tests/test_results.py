import csv
import json
from dataclasses import replace

import pytest

from cascade.contract import Box
from cascade.errors import CascadeError
from cascade.results import ResultsFolder, SliceResult, claim, picture_name

GLIOMA = SliceResult("b/a.jpg", "tumor", (0.1, 0.7, 0.2), Box(1.5, 2.0, 30.0, 40.0), 210, 50.4, 31.25)
NO_TUMOR = SliceResult("a.png", "no_tumor", mask_pixels=0, latency_ms=20.0)
BROKEN = SliceResult.failed("c.png", CascadeError("c.png: is cut short", fix="export it again"))


@pytest.fixture
def folder(tmp_path):
    hashes = {"segmenter": "5e9", "classifier": "c1a"}
    return ResultsFolder(tmp_path / "out", tmp_path / "scans", overlays=True, models=hashes, backend="onnxruntime")


def test_json_holds_a_record_a_slice_in_the_order_of_their_names(folder):
    folder.save([GLIOMA, BROKEN, NO_TUMOR], complete=True)
    content = json.loads(folder.json.read_text())
    assert content["schema"] == "cascade results 1"
    assert content["models"] == {"segmenter": "5e9", "classifier": "c1a"}
    assert content["complete"] is True
    assert "Not a medical device" in content["research_use_only"]
    assert [record["slice"] for record in content["slices"]] == ["a.png", "b/a.jpg", "c.png"]
    assert content["slices"][1] == {
        "slice": "b/a.jpg",
        "status": "tumor",
        "class": "glioma",
        "uncertain": False,
        "probabilities": {"meningioma": 0.1, "glioma": 0.7, "pituitary tumor": 0.2},
        "box": {"left": 1.5, "top": 2.0, "right": 30.0, "bottom": 40.0},
        "mask_pixels": 210,
        "mask_mm2": 50.4,
        "latency_ms": 31.25,
        "mask": "masks/b/a.jpg.png",
        "overlay": "overlays/b/a.jpg.png",
        "problem": None,
        "fix": None,
    }


def test_csv_holds_the_same_with_a_column_for_each_number(folder):
    folder.save([GLIOMA, BROKEN, NO_TUMOR], complete=True)
    with folder.csv.open(newline="") as lines:
        no_tumor, glioma, broken = csv.DictReader(lines)
    assert (glioma["class"], glioma["probability_pituitary_tumor"], glioma["box_left"]) == ("glioma", "0.2", "1.5")
    assert (glioma["segmenter_sha256"], glioma["classifier_sha256"]) == ("5e9", "c1a")
    assert (no_tumor["status"], no_tumor["class"], no_tumor["box_left"], no_tumor["mask_pixels"]) == (
        "no_tumor",
        "",
        "",
        "0",
    )
    assert (broken["problem"], broken["fix"], broken["mask"]) == ("c.png: is cut short", "export it again", "")


@pytest.mark.parametrize(("below", "uncertain"), [(0.7, False), (0.71, True)])
def test_a_class_of_too_little_probability_is_marked(folder, below, uncertain):
    folder = replace(folder, uncertain_below=below)
    folder.save([GLIOMA, BROKEN, NO_TUMOR], complete=True)
    content = json.loads(folder.json.read_text())
    assert content["uncertain_below"] == below
    assert [record["uncertain"] for record in content["slices"]] == [None, uncertain, None]
    with folder.csv.open(newline="") as lines:
        assert [row["uncertain"] for row in csv.DictReader(lines)] == ["", str(uncertain), ""]


def test_a_name_that_is_not_utf_8_reaches_both_files(folder):
    folder.save([SliceResult("caf\udce9.png", "no_tumor", mask_pixels=0)], complete=True)
    assert json.loads(folder.json.read_text())["slices"][0]["slice"] == "caf\udce9.png"
    assert b"caf\xe9.png" in folder.csv.read_bytes()


def test_no_two_slices_share_a_picture():
    names = ("a.png", "a.PNG", "a.jpg", "a.jpg.png", "a.mat", "b/a.png", "a.jpg.png.png")
    assert picture_name("a.png") == "a.png"
    assert picture_name("b/a.tiff") == "b/a.tiff.png"
    assert len({picture_name(name) for name in names}) == len(names)


def test_the_results_of_a_run_are_replaced_only_when_asked_to_and_then_wholly(folder):
    claim(folder, overwrite=False)
    folder.mask("a.png").parent.mkdir(parents=True)
    folder.mask("a.png").write_bytes(b"mask")
    folder.save([NO_TUMOR], complete=True)
    with pytest.raises(CascadeError, match=r"holds the results of an earlier run\n.*--overwrite"):
        claim(folder, overwrite=False)
    assert folder.mask("a.png").read_bytes() == b"mask"
    claim(folder, overwrite=True)
    assert not folder.mask("a.png").exists()
    assert json.loads(folder.json.read_text())["slices"] == []


def test_masks_that_no_run_wrote_are_never_touched(folder):
    truth = folder.out / "masks" / "1.png"
    truth.parent.mkdir(parents=True)
    truth.write_bytes(b"drawn by an expert")
    with pytest.raises(CascadeError, match="masks: is in the way"):
        claim(folder, overwrite=True)
    assert truth.read_bytes() == b"drawn by an expert"


def test_a_folder_that_cannot_be_written_is_found_before_the_models_work(folder):
    folder.out.write_text("a file")
    with pytest.raises(CascadeError, match="cannot be written"):
        claim(folder, overwrite=False)
