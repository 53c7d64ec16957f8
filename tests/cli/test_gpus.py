"""The options and the output of the command line that concern GPUs, on simulated ones."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from tiny_models import write_models

import cascade.cli.info as info_command
from cascade.cli import main
from cascade.runtime import gpu
from cascade.runtime.gpu import Gpu

A4000, H100 = Gpu("NVIDIA RTX A4000", "8.6", 0, 16376), Gpu("NVIDIA H100", "9.0", 1, 81559)


@pytest.fixture
def models(tmp_path):
    return write_models(tmp_path / "models")


@pytest.fixture
def gpus(monkeypatch):
    """gpus(*gpus): the GPUs of this machine."""

    def gpus(*found):
        monkeypatch.setattr(gpu, "find_gpus", lambda: list(found))
        monkeypatch.setattr(info_command, "find_gpus", lambda: list(found))
        monkeypatch.setattr(info_command, "cuda_version", lambda: "13.0")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return gpus


def run(*arguments):
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "scans", "--out", "out"],
        ["evaluate", "data", "--no-split", "--out", "out"],
        ["benchmark", "--out", "out"],
        ["build", "--flavor", "tensorrt", "--out", "out"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_gpu_that_does_not_exist_is_an_error(arguments, gpus, models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.csv").write_text("path,mask,label,patient\na.png,a-mask.png,glioma,1\n")
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.0"))
    gpus(A4000)
    assert run(*arguments, "--device", 3) == 1
    printed = capsys.readouterr().err
    assert "--device 3: there is no such GPU" in printed
    assert "0 (NVIDIA RTX A4000)" in printed
    assert not list((tmp_path / "out").glob("*"))


def test_a_negative_number_is_a_usage_error(models):
    assert run("predict", "scans", "--device", -1) == 2


def test_a_cluster_assigns_the_gpus_itself(models, tmp_path, capsys):
    assert run("predict", tmp_path, "--models", models, "--cluster", "local", "--device", 1) == 1
    assert "CUDA_VISIBLE_DEVICES" in capsys.readouterr().err


def test_info_lists_each_gpu_with_the_engines_that_fit(gpus, models, tmp_path, monkeypatch, capsys):
    fits = {A4000: None, H100: "requires compute capability 8.6, but the NVIDIA H100 has 9.0"}
    monkeypatch.setattr(info_command, "misfits", lambda _, __, gpu, ___: {"segmenter.tensorrt-rtx.engine": fits[gpu]})
    gpus(A4000, H100)
    assert run("info", "--models", models, "--engines", tmp_path, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["driver"]["cuda"] == "13.0"
    assert content["gpus"][0] == {
        "name": "NVIDIA RTX A4000",
        "compute_capability": "8.6",
        "number": 0,
        "memory_mb": 16376,
        "engines": {"segmenter.tensorrt-rtx.engine": "fits"},
        "build": f"cascade build --flavor tensorrt-rtx --out {tmp_path} --models {models} --arch sm86",
    }
    assert content["gpus"][1]["engines"] == {"segmenter.tensorrt-rtx.engine": fits[H100]}
    assert run("info", "--models", models, "--engines", tmp_path) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "CUDA 13.0" in printed
    assert "GPU 0 NVIDIA RTX A4000, 16376 MiB, compute capability 8.6" in printed
    assert "GPU 1 NVIDIA H100, 81559 MiB, compute capability 9.0" in printed
    assert "engine: fits" in printed


def test_info_names_the_command_that_sets_up_a_gpu(gpus, models, tmp_path, monkeypatch, capsys):
    """Nothing is installed yet."""
    for module in ("tensorrt", "tensorrt_rtx", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, module, None)
    gpus(A4000)
    assert run("info", "--models", models, "--engines", tmp_path) == 0
    printed = capsys.readouterr().err
    assert "make gpu" in printed
    command = f"cascade build --flavor tensorrt-rtx --out {tmp_path} --models {models} --arch sm86"
    assert "".join(command.split()) in "".join(printed.split())  # wherever the table wraps it


def test_info_without_a_gpu_advises_nothing(gpus, models, tmp_path, capsys):
    gpus()
    assert run("info", "--models", models) == 0
    printed = capsys.readouterr().err
    assert "GPUs" in printed
    assert "make gpu" not in printed


def test_a_cluster_without_an_address_is_an_error_and_not_the_next_option(models, tmp_path, capsys):
    """The option was taken for the address, and its value for an input."""
    assert run("predict", tmp_path, "--models", models, "--cluster", "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "--cluster needs an address" in error
    assert "--cluster local" in error
