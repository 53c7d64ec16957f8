"""Runs over inputs in an object store give the results of a run over the same files, and leave nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_files import series
from hostile_files import files_below, put, whole_file
from stub_cascade import cascade_of, rows_of
from worker_here import WorkerHere

from cascade.discovery.store import Store
from cascade.errors import CascadeError
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions

fsspec = pytest.importorskip("fsspec", reason="pip install 'cascade-mri[cluster]'")
pytest.importorskip("pyarrow", reason="pip install 'cascade-mri[cluster]'")

OPTIONS = RunOptions(batch_size=2, report=False)


@pytest.fixture
def store():
    """An empty store, and what it holds: path → content."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def upload(store, folder):
    for path in files_below(folder):
        store.pipe_file(f"/archive/{path.as_posix()}", (folder / path).read_bytes())


def predict(urls, out, **options):
    return predict_paths(WorkerHere(), urls, out, replace(OPTIONS, **options))


def masks_of(out):
    return {path: content_of(out / path) for path in files_below(out) if path.parts[0] in ("masks", "overlays")}


def content_of(path):
    return pydicom.dcmread(path).pixel_array.tobytes() if path.suffix == ".dcm" else path.read_bytes()


@pytest.fixture
def archive(tmp_path, store):
    """A folder with inputs of every kind, and the same in the store."""
    folder = tmp_path / "archive"
    for kind in ("gray.png", "gray.tif", "head.nii.gz", "frames.dcm", "some.zip"):
        put(folder / kind, whole_file(kind))
    paths = series(folder / "series")
    put(folder / "series/copy", paths[1].read_bytes())
    stack = np.zeros((20, 48, 48), np.uint8) + np.arange(48, dtype=np.uint8)
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack")
    head = np.tile(np.linspace(0, 100, 64), (64, 1))[..., None].repeat(20, axis=2).astype(np.float32)
    nibabel.save(nibabel.AnalyzeImage(head, np.diag([0.98, 0.98, 5.0, 1.0])), folder / "pair.hdr")
    put(folder / "damaged.png", b"not a picture" * 100)
    put(folder / "empty.png", b"")
    put(folder / "deep/notes.txt", b"no slice" * 1000)
    put(folder / "deep/slice.jpg", whole_file("gray.png"))
    put(folder / "deep/.hidden/a.png", whole_file("gray.png"))
    upload(store, folder)
    return folder


def test_rows_masks_and_left_out_are_those_of_the_same_files_on_this_machine(archive, tmp_path):
    local, out = tmp_path / "local", tmp_path / "out"
    predict_paths(cascade_of(), [archive], local, OPTIONS)
    predict(["memory://archive"], out)
    texts = [
        (folder / name).read_text().replace(where, "ARCHIVE")
        for folder, where in ((local, str(archive)), (out, "memory:///archive"))
        for name in ("results.json", "run.json")
    ]
    results, run, url_results, url_run = map(json.loads, texts)
    assert url_results["inputs"] == "ARCHIVE"
    for row in (*results["slices"], *url_results["slices"]):
        del row["latency_ms"]
    assert url_results["slices"] == results["slices"]
    assert url_results["volumes"] == results["volumes"]
    assert url_run["left_out"] == run["left_out"]
    assert url_run["inputs"] == run["inputs"]
    assert len(run["left_out"]) == 3
    assert masks_of(out) == masks_of(local)


def test_pictures_are_fetched_when_they_are_processed_and_nothing_is_left_behind(archive, tmp_path):
    (tmp_path / "results").mkdir()
    there = []

    def look(count):
        there.extend(path for path in (tmp_path / "results").rglob("*") if path.is_file())

    predict_paths(WorkerHere(), ["memory://archive"], tmp_path / "results/out", OPTIONS, on_start=look)
    fetched = {path.name for path in there if "store" in path.parts}
    assert {"head.nii.gz", "copy", "gray.tif", "stack.tif"} < fetched
    assert not fetched & {"gray.png", "damaged.png", "slice.jpg"}
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["memory://archive/gray.png"], ["gray.png"]),
        (["memory://archive/*.png", "memory://archive/deep/slice.jpg"], ["deep/slice.jpg", "gray.png"]),
        (["memory://archive/**/*.jpg"], ["slice.jpg"]),
        (["memory://archive/deep"], ["slice.jpg"]),
        (["memory://archive/pair.hdr"], [f"pair.hdr/{number:02}" for number in range(20)]),
    ],
)
def test_objects_folders_and_patterns_are_inputs(archive, tmp_path, urls, names):
    run = predict(urls, tmp_path / "out", exclude=("damaged.png", "empty.png"))
    assert [row.name for row in run.rows] == names
    assert run.exit_code == 0


@pytest.mark.parametrize("url", ["memory://archive", "memory://archive/head.mhd"])
def test_the_file_with_the_voxels_of_a_header_is_fetched_too(store, tmp_path, url):
    pytest.importorskip("SimpleITK", reason="pip install 'cascade-mri[formats]'")
    fields = ("ObjectType = Image", "NDims = 3", "DimSize = 48 48 20", "ElementSpacing = 0.98 0.98 5")
    fields += ("ElementType = MET_UCHAR", "ElementDataFile = head.raw", "")
    store.pipe_file("/archive/head.mhd", "\n".join(fields).encode())
    store.pipe_file("/archive/head.raw", bytes(range(48)) * 48 * 20)
    run = predict([url], tmp_path / "out")
    assert [(volume.name, volume.status) for volume in run.volumes] == [("head.mhd", "no_tumor")]
    assert (run.exit_code, run.left_out) == (0, {})


def test_an_url_at_which_nothing_is_becomes_a_row_with_its_name(archive, tmp_path):
    run = predict(["memory://archive/gray.png", "memory://archive/missing.png"], tmp_path / "out")
    (row,) = run.failed
    assert "memory:///archive/missing.png: there is no such file" in row.problem
    assert str(tmp_path) not in (tmp_path / "out/results.json").read_text()
    with pytest.raises(CascadeError, match=r"memory:///archive/none: there is no such file or folder"):
        predict(["memory://archive/none"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_object_that_vanishes_before_it_is_read_fails_alone(archive, store, tmp_path):
    run = predict_paths(
        WorkerHere(),
        ["memory://archive/deep", "memory://archive/gray.png"],
        tmp_path / "out",
        OPTIONS,
        on_start=lambda count: store.rm_file("/archive/gray.png"),
    )
    assert [row.name for row in run.rows] == ["deep/slice.jpg", "gray.png"]
    (row,) = run.failed
    assert row.name == "gray.png"
    assert "memory:///archive/gray.png" in row.problem


def test_a_resumed_run_keeps_what_is_unchanged_in_the_store(archive, store, tmp_path):
    out = tmp_path / "out"
    first = predict(["memory://archive"], out)
    store.pipe_file("/archive/deep/slice.jpg", whole_file("gray.bmp"))
    second = predict(["memory://archive"], out, resume=True)
    assert second.resumed_rows == len(first.rows) - len(first.failed) - 1
    assert [row.name for row in second.rows] == [row.name for row in first.rows]
    assert second.dropped == ()


def test_a_resumed_run_of_some_of_the_urls_is_refused_unless_the_others_are_gone(archive, store, tmp_path):
    """It removed the results of inputs that were there, as if they were gone."""
    out = tmp_path / "out"
    urls = ["memory://archive/gray.png", "memory://archive/deep/slice.jpg", "memory://archive/some.zip"]
    predict(urls, out)
    files = files_below(out)
    for others in ((urls[0], urls[1]), (urls[0], urls[2])):
        with pytest.raises(CascadeError, match="which is not part of this run"):
            predict(others, out, resume=True)
    assert files_below(out) == files
    store.rm_file("/archive/some.zip")
    run = predict(urls[:2], out, resume=True)
    assert run.resumed_rows == 2
    assert all(name.startswith("some.zip/") for name in run.dropped)
    assert run.dropped


@pytest.mark.parametrize("name", ["gray.png", "head.nii.gz", "some.zip"])
def test_a_store_that_does_not_answer_stops_a_resumed_run_before_it_removes_anything(
    archive, store, tmp_path, monkeypatch, name
):
    """What could not be fetched counted as changed, or as gone."""
    out, urls = tmp_path / "out", [f"memory://archive/{other}" for other in (name, "gray.tif")]
    rows = predict(urls, out).rows
    files, get_file = files_below(out), type(store).get_file

    def refuse(self, key, *arguments, **options):
        if name in key:
            raise OSError("SlowDown")
        get_file(self, key, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", refuse)
        with pytest.raises(CascadeError, match=rf"{name}: cannot be fetched \(SlowDown\)"):
            predict(urls, out, resume=True)
    assert files_below(out) == files
    assert predict(urls, out, resume=True).resumed_rows == len(rows)


@pytest.mark.parametrize("urls", [["**/*.png"], ["gray.png", "out/masks/gray.png"], ["gray.png", "out/masks"]])
def test_output_of_an_earlier_run_is_no_input_of_a_pattern_or_list(archive, store, tmp_path, urls):
    """Only those of whole folders were recognized."""
    predict(["memory://archive/gray.png"], "memory://archive/out")
    run = predict([f"memory://archive/{url}" for url in urls], tmp_path / "out")
    assert not [row.name for row in run.rows if row.name.startswith("out/")]
    assert "was written by a run" in run.left_out.values()


def test_folders_above_the_inputs_need_not_be_readable(archive, store, tmp_path, monkeypatch):
    """Some stores refuse to say whether there is an object that would mark these as output of cascade."""
    info = type(store).info

    def refuse(self, key, **options):
        if key.endswith("results.json"):
            raise PermissionError(key)
        return info(self, key, **options)

    monkeypatch.setattr(type(store), "info", refuse)
    assert not predict(["memory://archive/deep/slice.jpg"], tmp_path / "out").failed


def test_a_pattern_matches_nothing_in_hidden_folders(archive, store, tmp_path):
    run = predict(["memory://archive/deep/**/*.png", "memory://archive/gray.png"], tmp_path / "out")
    assert [row.name for row in run.rows] == ["deep/**/*.png", "gray.png"]
    assert "no file matches this pattern" in run.failed[0].problem


def test_an_output_that_is_refused_is_refused_before_anything_is_fetched(archive, store, tmp_path, monkeypatch):
    predict(["memory://archive/gray.png"], tmp_path / "out")
    monkeypatch.setattr("cascade.prediction.run.find_stored_slices", None)
    with pytest.raises(CascadeError, match="contains the results of an earlier run"):
        predict(["memory://archive/head.nii.gz"], tmp_path / "out")


class HostStore(fsspec.get_filesystem_class("memory")):
    """A store whose host is no part of the path, as that of hdfs:// or sftp://."""

    protocol = "host"

    def __init__(self, host=None, **options):
        super().__init__(**options)
        assert host == "nas1"

    @classmethod
    def _strip_protocol(cls, path):
        return f"/{urlsplit(path).path.strip('/')}"

    @staticmethod
    def _get_kwargs_from_urls(url):
        return {"host": urlsplit(url).hostname}


def test_the_host_of_a_url_is_kept(archive, tmp_path):
    """Each object was looked for at another host, or at none."""
    fsspec.register_implementation("host", HostStore, clobber=True)
    run = predict(["host://nas1/archive/gray.png", "host://nas1/archive/head.nii.gz"], tmp_path / "out")
    assert not run.failed
    assert json.loads((tmp_path / "out/results.json").read_text())["inputs"] == "host://nas1/archive"


def test_a_url_with_an_account_is_refused(tmp_path, monkeypatch):
    """The account was lost on the way to the workers."""
    monkeypatch.setattr("cascade.discovery.store.open_url", lambda url: (None, "container/a.png"))
    with pytest.raises(CascadeError, match="names an account") as caught:
        Store.of_url("abfs://container@account.dfs.core.windows.net/a.png", tmp_path)
    assert "in the settings of the store" in caught.value.fix
    assert Store.of_url("abfs://container/a.png", tmp_path).prefix == "abfs://"


def test_an_object_that_has_no_path_of_folders_and_a_file_is_an_error_and_stays_where_it_is(archive, store, tmp_path):
    store.pipe_file("/archive/deep/slice.png", whole_file("gray.png"))
    inside = store.find("/archive", detail=True)

    class Hostile(type(store)):
        """A store whose keys go up, as those of S3 can."""

        cachable = False

        def find(self, path, **options):
            return inside | {"/archive/../../evil.png": {"size": 9, "type": "file"}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "find", Hostile.find)
        run = predict(["memory://archive"], tmp_path / "a/b/out")
    assert "evil.png" in " ".join(row.problem for row in run.failed)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        (["unknown://archive"], r"unknown://archive.*unknown"),
        (["needs-package://archive"], r"needs-package://archive.*Install not_there"),
        (["memory://archive", "file:///archive"], r"file:///archive.*another store"),
        (["memory://archive", "scans"], r"scans.*URLs"),
        ([Path("memory://archive")], r"memory:/archive.*slash"),
    ],
)
def test_urls_that_cannot_be_used_are_errors_that_name_them(archive, tmp_path, urls, reason):
    fsspec.register_implementation(
        "needs-package", "not_there.FileSystem", clobber=True, errtxt="Install not_there to use this store"
    )
    with pytest.raises(CascadeError, match=reason):
        predict(urls, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_urls_need_a_cluster(archive, tmp_path):
    with pytest.raises(CascadeError, match="--cluster"):
        predict_paths(cascade_of(), ["memory://archive"], tmp_path / "out", OPTIONS)
    with pytest.raises(CascadeError, match="--cluster"):
        predict_paths(cascade_of(), [archive], "memory://results", OPTIONS)


def test_the_rows_of_two_stores_with_the_same_names_are_not_mixed_by_resume(archive, store, tmp_path):
    predict(["memory://archive/deep"], tmp_path / "out")
    store.pipe_file("/other/slice.jpg", whole_file("gray.png"))
    with pytest.raises(CascadeError, match="/other"):
        predict(["memory://other"], tmp_path / "out", resume=True)
    assert [row["slice"] for row in rows_of(tmp_path / "out")] == ["slice.jpg"]
