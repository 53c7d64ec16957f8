"""Workers of a cluster that would not compute the same results, or not see the same files, are refused."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import image

from cascade import __version__
from cascade.errors import CascadeError
from cascade.io.dicom.series import open_dicom
from cascade.io.image import ImageSource
from cascade.io.nifti import open_nifti
from cascade.io.slices import BlankSlice
from cascade.prediction import worker
from cascade.prediction.worker import ModelOptions, Worker, WorkerInfo, check_driver, check_same
from cascade.runtime.gpu import VISIBLE
from cascade.runtime.models import CLASSIFIER, SEGMENTER, find_model
from cascade.volume.finding import VolumeRule

FIRST = WorkerInfo({"segmenter": "5e9"}, "stub", 0.0, VolumeRule(), {}, "0.2.0", "node-1", 1)


def test_workers_on_two_machines_that_have_loaded_the_same_are_accepted():
    check_same(FIRST, replace(FIRST, host="node-2", pid=2))


@pytest.mark.parametrize(
    "difference",
    [
        {"version": "0.1.0"},
        {"models": {"segmenter": "other"}},
        {"description": "other runtime"},
        {"uncertain_below": 0.5},
        {"volume_rule": VolumeRule(min_support=3.0)},
    ],
)
def test_a_worker_that_would_compute_other_results_is_an_error_that_names_both_machines(difference):
    with pytest.raises(CascadeError, match=r"node-1.*node-2"):
        check_same(FIRST, replace(FIRST, host="node-2", **difference))


def test_gpus_of_two_types_are_an_error_that_says_how_to_choose():
    """The fix was to install the same runtime, which all machines had."""
    a4000, rtx_4090 = (f"tensorrt_rtx 1.7 on {gpu}, FP16" for gpu in ("NVIDIA RTX A4000", "NVIDIA GeForce RTX 4090"))
    with pytest.raises(CascadeError, match=r"A4000.*4090") as raised:
        check_same(replace(FIRST, description=a4000), replace(FIRST, host="node-2", description=rtx_4090))
    assert VISIBLE in raised.value.fix


def test_workers_that_agree_with_each_other_but_not_with_the_driver_are_refused(models):
    """Only the workers were compared. They may all have an older version than the driver, which records its own."""
    options = ModelOptions(models, "onnxruntime")
    hashes = {name: find_model(name, models).sha256 for name in (SEGMENTER, CLASSIFIER)}
    same = replace(FIRST, version=__version__, models=hashes)
    check_driver(options, same)
    for difference in ({"version": "0.1.9"}, {"models": {**hashes, CLASSIFIER: "other"}}):
        with pytest.raises(CascadeError, match=r"where the run was started.*node-1"):
            check_driver(options, replace(same, **difference))


def test_a_worker_without_a_gpu_sees_none(models, monkeypatch):
    """Ray leaves CUDA_VISIBLE_DEVICES as it is on the machine. So `auto` gave the first GPU to all workers."""
    monkeypatch.setenv(VISIBLE, "0,1")
    Worker().open(ModelOptions(models, "onnxruntime"))
    assert os.environ[VISIBLE] == ""


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_worker_with_a_gpu_opens_the_models_on_it(monkeypatch, gpus):
    monkeypatch.setenv(VISIBLE, "3")
    monkeypatch.setattr(worker.Cascade, "open", lambda models, backend, engines, threads, device: opened.append(device))
    opened = []
    worker._open_cascade(ModelOptions(Path("models"), "auto", gpus=gpus))
    assert opened == [0]
    assert os.environ[VISIBLE] == "3"


@pytest.mark.parametrize("backend", ["auto", "tensorrt-rtx", "onnxruntime"])
def test_a_worker_with_a_gpu_that_cannot_use_it_is_an_error_that_names_the_machine(models, monkeypatch, backend):
    """`auto` fell back to the CPU, on a cluster of GPUs."""
    monkeypatch.setenv(VISIBLE, "")
    with pytest.raises(CascadeError, match="where a worker runs") as raised:
        Worker().open(ModelOptions(models, backend, gpus=1))
    assert "--device" not in str(raised.value)


def test_a_folder_that_a_worker_does_not_see_is_an_error_that_names_it(tmp_path):
    Worker().check_access([tmp_path])
    with pytest.raises(CascadeError, match="not-mounted"):
        Worker().check_access([tmp_path, tmp_path / "not-mounted"])


def test_an_error_keeps_problem_and_fix_on_its_way_to_another_process():
    for error in (CascadeError("a.png: broken", fix="export it"), BlankSlice("a.png", (4, 4))):
        copy = pickle.loads(pickle.dumps(error))
        assert isinstance(copy, CascadeError)
        assert (copy.problem, copy.fix) == (error.problem, error.fix)


def test_an_image_is_the_same_in_another_process():
    source = ImageSource("a.png", Path("/scans/a.png"), notes=("turned",))
    assert pickle.loads(pickle.dumps(source)) == source


def test_a_volume_reads_the_same_slices_in_another_process(tmp_path):
    array = np.random.default_rng(0).normal(size=(32, 32, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.98, 0.98, 5.0, 1.0])), tmp_path / "head.nii")
    image(np.arange(1024, dtype=np.uint16).reshape(32, 32), PixelSpacing=[0.98, 0.98]).save_as(
        tmp_path / "IM1", enforce_file_format=True
    )
    volumes, problems, _ = open_dicom([tmp_path / "IM1"], Path(tmp_path))
    assert not problems
    for source in (open_nifti(tmp_path / "head.nii", "head.nii"), *volumes):
        source.read(0)
        copy = pickle.loads(pickle.dumps(source))
        for attribute in ("name", "files", "count", "notes", "mask_suffix"):
            assert getattr(copy, attribute) == getattr(source, attribute)
        for index in range(source.count):
            assert np.array_equal(copy.read(index).pixels, source.read(index).pixels)
        masks = np.ones((source.count, 32, 32), bool)
        if source.mask_suffix == ".nii.gz":
            assert copy.mask_bytes(masks) == source.mask_bytes(masks)
