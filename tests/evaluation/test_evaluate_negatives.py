"""`evaluate` with negatives, slices without a tumor: in how many a tumor is detected."""

import csv
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image
from stub_evaluation import folder as folder
from stub_evaluation import models as models
from stub_evaluation import negatives as negatives
from stub_evaluation import printed
from stub_evaluation import run as run

from cascade.discovery.output_marker import EVALUATION_PICTURES
from cascade.errors import CascadeError


def test_false_positives_are_counted_on_negatives(run, negatives, tmp_path):
    evaluation = run(negatives=negatives)
    assert evaluation.detection.negatives == 3
    assert evaluation.detection.false_positive_rate == pytest.approx(2 / 3)
    assert evaluation.detection.large_false_positive_rate == pytest.approx(1 / 3)
    assert evaluation.detection.sensitivity == pytest.approx(5 / 6)
    assert any("broken.png" in problem for problem in evaluation.failed.problems)
    rows = list(csv.DictReader((tmp_path / "out" / "negatives.csv").open(encoding="utf-8-sig")))
    assert {row["path"]: float(row["peak"]) for row in rows} == {"none.png": 0, "speck.png": 1, "patch.png": 1}


def test_without_negatives_there_is_no_detection(run, tmp_path):
    assert run().detection is None
    assert not (tmp_path / "out" / "negatives.csv").exists()


@pytest.mark.slow
def test_the_roc_curve_is_drawn_and_the_rates_are_printed(run, negatives, tmp_path):
    evaluation = run(draw=True, negatives=negatives)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == EVALUATION_PICTURES
    assert "False positives on 3 negatives: 66.7%, large ones 33.3%" in printed(evaluation, width=120)


def test_negatives_may_be_volumes_and_files_in_zips(run, negatives, tmp_path):
    """They were ignored without a message."""
    volume = np.zeros((64, 48, 3), np.float32)
    volume[..., 1:] = np.arange(64)[:, None, None]  # the first slice is blank
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 6.0, 1.0])), negatives / "head.nii.gz")
    with zipfile.ZipFile(negatives / "more.zip", "w") as archive:
        archive.write(negatives / "none.png", "inner/none.png")
        archive.write(negatives / "broken.png", "inner/broken.png")
    evaluation = run(negatives=negatives)
    assert evaluation.detection.negatives == 3 + 2 + 1
    assert evaluation.failed.slices == 2
    assert any(problem.startswith(f"{negatives}/more.zip/inner/") for problem in evaluation.failed.problems)
    names = [row["path"] for row in csv.DictReader((tmp_path / "out" / "negatives.csv").open(encoding="utf-8-sig"))]
    assert {"head.nii.gz/1", "head.nii.gz/2", "more.zip/inner/none.png"} < set(names)
    rows = [line.split() for line in printed(evaluation).splitlines()]
    first = rows.index(["(no", "folder)", "3", "66.7%"])
    assert rows[first + 1 : first + 3] == [["head.nii.gz", "2", "0.0%"], ["more.zip", "1", "0.0%"]]


def test_a_blank_image_among_the_negatives_is_not_used(run, negatives):
    Image.new("L", (64, 64)).save(negatives / "blank.png")
    evaluation = run(negatives=negatives)
    assert evaluation.detection.negatives == 3
    assert evaluation.failed.slices == 2  # this one, and broken.png
    assert any("blank.png" in problem for problem in evaluation.failed.problems)


def test_negatives_without_one_usable_slice_are_an_error(run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(CascadeError, match=r"no slice can be used: .*broken\.png"):
        run(negatives=tmp_path / "broken.png")


def test_negatives_are_checked_before_the_slices_are_scored(run, folder, tmp_path):
    """A wrong path threw the scores of all slices away."""
    for path in folder.iterdir():
        path.write_text("not MATLAB")
    with pytest.raises(CascadeError, match=r"nowhere"):
        run(negatives=tmp_path / "nowhere")
