"""`evaluate` with slices of heads without a tumor: how often one is seen all the same."""

import csv
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image
from stub_evaluation import BRIGHT, NOWHERE, TUMOR, shown
from stub_evaluation import folder as folder
from stub_evaluation import models as models
from stub_evaluation import run as run

from cascade.discovery.output_marker import EVALUATION_PICTURES
from cascade.errors import CascadeError


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
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == EVALUATION_PICTURES
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
