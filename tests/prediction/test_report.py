"""The report is one file that loads nothing, contains all of results.json, and shows names literally."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from report_files import (
    FIVE,
    GLIOMA,
    HOSTILE,
    change,
    failed,
    no_tumor,
    page_of,
    tumor,
    write_results,
)

from cascade.errors import CascadeError
from cascade.prediction.overlay import SIZE
from cascade.prediction.report import thumbnails, write_report
from cascade.prediction.results import NOTE
from cascade.prediction.volumes import VolumeResult


def test_the_page_describes_the_run_and_counts_its_results(tmp_path):
    page = page_of(write_results(tmp_path, FIVE))
    assert page.text.startswith(f"{tmp_path.name}: cascade report")
    assert NOTE in page.text
    assert "backend ONNX Runtime segmenter aaaaaaaaaaaa cascade" in page.text
    assert "inputs /data" in page.text
    counts = "1 meningioma 2 glioma 0 pituitary tumor 1 no tumor 1 failed 1 uncertain"
    assert counts in page.text
    assert "incomplete" not in page.text


def test_a_slice_has_every_value_of_results_json(tmp_path):
    write_results(tmp_path, FIVE)
    change(tmp_path, input="series", index=0, file="a/IM1", notes="resampled")
    page = page_of(tmp_path)
    first, _, last = page.slices[:3]
    assert first.pop("thumbnail").startswith("data:image/webp;base64,")
    assert first == {
        "name": "a/1.png",
        "place": 0,
        "kind": "meningioma",
        "probability": 0.9,
        "probabilities": {"meningioma": 0.9, "glioma": 0.06, "pituitary tumor": 0.04},
        "uncertain": False,
        "box": {"left": 2.5, "top": 3, "right": 20.25, "bottom": 30},
        "mask_pixels": 300,
        "mask_mm2": 73.5,
        "accepted_pixels": None,
        "latency_ms": 12.5,
        "input": "series",
        "index": 0,
        "file": "a/IM1",
        "notes": ["resampled"],
        "problem": None,
        "fix": None,
        "volume_ml": None,
        "longest_mm": None,
        "perpendicular_mm": None,
        "mask": "masks/a/1.png",
        "map": None,
        "overlay": "overlays/a/1.png",
    }
    assert (last["kind"], last["problem"], last["fix"]) == ("failed", "a.png: is blank", "leave blank slices out")
    assert last["thumbnail"] is last["mask"] is last["probability"] is None


def test_a_volume_is_one_card_that_leads_to_its_slices_in_their_order(tmp_path):
    """A volume of 200 slices was 200 cards."""
    rows = [replace(tumor(f"head.nii/{index:02}"), index=index, accepted_pixels=100) for index in range(10, 13)]
    rows[0] = replace(no_tumor("head.nii/10"), index=10)
    head = VolumeResult("head.nii", "tumor", 3, 2, 1, GLIOMA, support=9.5, volume_ml=12.3, longest_mm=30.0)
    page = page_of(write_results(tmp_path, [*reversed(rows), no_tumor("a.png")], volumes=[head]))
    (volume,) = page.data["volumes"]
    assert [page.slices[place]["index"] for place in volume["frames"]] == [10, 11, 12]
    assert page.slices[volume["frames"][volume["key"]]]["index"] == 11
    assert (volume["kind"], volume["probability"], volume["volume_ml"]) == ("glioma", 0.8, 12.3)
    assert "0 meningioma 1 glioma 0 pituitary tumor 1 no tumor 0 failed 0 uncertain" in page.text


@pytest.mark.parametrize("key_slice", [None, 5, -1])
def test_a_volume_without_a_valid_key_slice_opens_in_its_middle(tmp_path, key_slice):
    rows = [replace(no_tumor(f"head.nii/{index}"), index=index) for index in range(5)]
    head = VolumeResult("head.nii", "no_tumor", 5, 0, key_slice)
    (volume,) = page_of(write_results(tmp_path, rows, volumes=[head])).data["volumes"]
    assert volume["key"] == 2


def test_a_volume_without_a_tumor_is_shown_by_the_picture_nearest_to_its_middle(tmp_path):
    rows = [replace(no_tumor(f"head.nii/{index}"), index=index) for index in range(5)]
    rows[2:4] = [replace(failed(f"head.nii/{index}"), index=index) for index in (2, 3)]
    head = VolumeResult("head.nii", "error", 5, problem="slice 3: is blank", fix="export it again")
    (volume,) = page_of(write_results(tmp_path, rows, volumes=[head])).data["volumes"]
    assert volume["key"] == 1


def test_a_volume_of_one_slice_is_a_slice_with_the_measures_of_the_volume(tmp_path):
    head = VolumeResult("a.nii", "tumor", 1, 1, 0, GLIOMA, volume_ml=1.5, longest_mm=30.0, perpendicular_mm=20.0)
    page = page_of(write_results(tmp_path, [tumor("a.nii")], volumes=[head]))
    assert page.data["volumes"] == []
    assert [page.slices[0][key] for key in ("volume_ml", "longest_mm", "perpendicular_mm")] == [1.5, 30.0, 20.0]


def test_slices_are_in_natural_order(tmp_path):
    names = ["s_10.png", "s_2.png", "B/1.png", "a/1.png", "s_1.png", "7.png"]
    page = page_of(write_results(tmp_path, [no_tumor(name) for name in names]))
    assert [found["name"] for found in page.slices] == ["7.png", "a/1.png", "B/1.png", "s_1.png", "s_2.png", "s_10.png"]


def test_the_page_is_self_contained_and_may_load_nothing(tmp_path):
    page = page_of(write_results(tmp_path, FIVE))
    assert page.attributes("src") == []
    assert page.attributes("href") == ["data:,"]
    assert page.attributes("style") == []
    assert not re.search(r"https?:|//[a-z]|url\(|@import|\bimport\b|fetch|XMLHttp|innerHTML", page.source)
    policy = page.policy()
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    for kind, content in (("script", page.inline["script"][1]), ("style", page.inline["style"][0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"


def test_no_name_can_end_the_data_or_the_markup(tmp_path):
    out = tmp_path / HOSTILE[1]
    write_results(out, [tumor(name) for name in HOSTILE] + [failed(HOSTILE[0] + "x", *HOSTILE[:2])], inputs=HOSTILE[1])
    (out / "run.json").write_text(json.dumps({HOSTILE[2]: HOSTILE[1], "started": HOSTILE[1], "odd": HOSTILE[5]}))
    page = page_of(out)
    assert {found["name"] for found in page.slices} == {*HOSTILE, HOSTILE[0] + "x"}
    tags = [tag for tag, _ in page.elements]
    assert (tags.count("script"), tags.count("img"), tags.count("style")) == (2, 0, 1)
    assert page.text.count(HOSTILE[1]) == 5  # title, start, inputs and twice in all settings of the run
    overlays = [unquote(found["overlay"], errors="surrogateescape") for found in page.slices if found["overlay"]]
    assert len(overlays) == len(HOSTILE)
    assert all((out / overlay).is_file() for overlay in overlays)


@pytest.mark.parametrize("link", ["../outside.png", "/etc/hostname", "//host/a.png", "https://host/a.png", "gone.png"])
def test_only_files_below_the_folder_are_linked_or_shown(tmp_path, link):
    Image.new("L", (20, 20)).save(tmp_path / "outside.png")
    out = write_results(tmp_path / "out", FIVE)
    change(out, overlay=link, mask=link)
    found = page_of(out).slices[0]
    assert found["overlay"] is found["mask"] is found["thumbnail"] is None


def test_a_file_named_like_a_scheme_is_still_linked_as_a_file(tmp_path):
    write_results(tmp_path, FIVE)
    shutil.copy(tmp_path / "overlays/a/1.png", tmp_path / "javascript:hacked()")
    change(tmp_path, overlay="javascript:hacked()")
    link = page_of(tmp_path).slices[0]["overlay"]
    assert urlsplit(link).scheme == ""
    assert unquote(link) == "javascript:hacked()"


def picture_of(url):
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/webp;base64,"))))


def test_thumbnails_are_small_and_without_the_caption(tmp_path):
    found = page_of(write_results(tmp_path, FIVE)).slices[0]
    picture = picture_of(found["thumbnail"])
    assert (picture.format, picture.size) == ("WEBP", (256, 192))  # of 400 x 300, not 400 x 320


@pytest.mark.parametrize("told", [None, "9999x9999", "no size"])
def test_an_overlay_without_a_valid_size_is_shown_whole_or_not_at_all(tmp_path, told):
    write_results(tmp_path, FIVE)
    size = PngInfo()
    if told:
        size.add_text(SIZE, told)
    Image.new("L", (400, 320)).save(tmp_path / "overlays/a/1.png", pnginfo=size)
    found = page_of(tmp_path).slices[0]["thumbnail"]
    assert found is None if told == "no size" else picture_of(found).size == (256, 205)


def test_an_overlay_that_cannot_be_read_leaves_its_slice_without_a_picture(tmp_path):
    write_results(tmp_path, FIVE)
    overlay = tmp_path / "overlays/a/1.png"
    overlay.write_bytes(overlay.read_bytes()[:60])
    (tmp_path / "overlays/a/2.png").unlink()
    damaged, gone, _, whole = page_of(tmp_path).slices[:4]
    assert (damaged["thumbnail"], damaged["overlay"]) == (None, "overlays/a/1.png")
    assert (gone["thumbnail"], gone["overlay"]) == (None, None)
    assert whole["thumbnail"]


def test_if_there_are_too_many_thumbnails_tumors_come_first_and_the_page_says_so(tmp_path, monkeypatch):
    write_results(tmp_path, [no_tumor("1.png"), tumor("2.png"), no_tumor("3.png"), tumor("4.png")])
    assert "This page contains" not in page_of(tmp_path).text
    monkeypatch.setattr(thumbnails, "MAX_THUMBNAILS", 3)
    page = page_of(tmp_path)
    assert [bool(found["thumbnail"]) for found in page.slices] == [True, True, False, True]
    assert all(found["overlay"] for found in page.slices)
    assert "This page contains 3 of 4 overlays" in page.text


def test_if_there_are_too_many_thumbnails_every_volume_still_has_a_picture(tmp_path, monkeypatch):
    """The cards of volumes without a tumor were blank, as soon as those with one had enough slices."""
    rows = [
        replace((tumor if name == "a.nii" else no_tumor)(f"{name}/{index}"), index=index)
        for name in ("a.nii", "b.nii")
        for index in range(5)
    ]
    volumes = [VolumeResult("a.nii", "tumor", 5, key_slice=3), VolumeResult("b.nii", "no_tumor", 5)]
    write_results(tmp_path, rows, volumes=volumes)
    monkeypatch.setattr(thumbnails, "MAX_THUMBNAILS", 3)
    shown = [found["name"] for found in page_of(tmp_path).slices if found["thumbnail"]]
    assert shown == ["a.nii/0", "a.nii/3", "b.nii/2"]


def test_the_page_shows_run_json_if_it_can_be_read(tmp_path):
    write_results(tmp_path, FIVE)
    os.utime(tmp_path / "results.json", (1_700_000_000, 1_700_000_000))
    assert "written 2023-11-1" in page_of(tmp_path).text
    (tmp_path / "run.json").write_text("{not JSON")
    assert "written 2023-11-1" in page_of(tmp_path).text
    run = {
        "started": "2025-01-02 03:04",
        "seconds": 1234.56,
        "options": {"batch_size": 8, "overlays": True, "out": None},
        "inputs": [{"name": "many.nii"}],
        "failures": [{"slice": "many.nii"}],
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = page_of(tmp_path)
    assert "started 2025-01-02 03:04 duration 1,234.6 s" in page.text
    assert "options batch_size 8 options overlays true options out null" in page.text
    assert "written" not in page.text
    assert "many.nii" not in page.text  # 10,000 inputs were one value of the settings


def test_the_page_says_that_a_run_is_unfinished(tmp_path):
    assert "This run is incomplete" in page_of(write_results(tmp_path, FIVE[:2], complete=False)).text


def test_a_slice_of_a_volume_has_a_thumbnail_although_its_mask_is_no_image(tmp_path):
    out = write_results(tmp_path, [tumor("head.nii.gz/07", index=7)])
    (tmp_path / "masks/volume.nii.gz").write_bytes(b"of all slices")
    change(out, mask="masks/volume.nii.gz")
    (record,) = page_of(out).slices
    assert picture_of(record["thumbnail"]).size == (256, 192)


def test_unknown_and_missing_keys_and_nan_are_tolerated(tmp_path):
    write_results(tmp_path, [])
    content = {
        "schema": "cascade results 3",
        "slices": [{"slice": "a", "status": "tumor", "new": [1]}, {"slice": "b", "mask_mm2": float("nan")}],
    }
    (tmp_path / "results.json").write_text(json.dumps(content))
    page = page_of(tmp_path)
    assert [found["kind"] for found in page.slices] == ["tumor", "None"]
    assert page.slices[1]["mask_mm2"] is None
    assert "NaN" not in page.inline["script"][0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "file not found"),
        ("{not JSON", "is not a results file"),
        ("[]", "is not a results file"),
        ('{"schema": "another", "slices": []}', "is not a results file"),
        ('{"schema": "cascade results 3"}', "is not a results file"),
        ('{"schema": "cascade results 3", "slices": [{"slice": 1}]}', "is not a results file"),
        ('{"schema": "cascade results 3", "slices": [[]]}', "is not a results file"),
    ],
)
def test_without_readable_results_there_is_no_report(tmp_path, content, problem):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(CascadeError, match=rf"results\.json: {problem}") as raised:
        write_report(tmp_path)
    assert "cascade predict" in raised.value.fix
    assert not (tmp_path / "report.html").exists()


def test_the_page_files_are_part_of_the_package():
    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [
        path.name for path in (root / "cascade/prediction/report").iterdir() if path.suffix in {".html", ".css", ".js"}
    ]
    assert sorted(settings["package-data"]["cascade.prediction.report"]) == sorted(files)
