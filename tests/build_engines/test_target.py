"""The installed TensorRT and the GPUs to build for, and errors where one is missing."""

import sys
from types import SimpleNamespace

import pytest

import build_engines.target
from build_engines.target import find_target
from cascade.errors import CascadeError
from cascade.runtime import gpu
from cascade.runtime.gpu import Gpu

RTX = "tensorrt-rtx"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(build_engines.target, "find_gpu", lambda: None)


def test_an_unknown_architecture_is_an_error_that_lists_the_known_ones(tensorrt):
    with pytest.raises(CascadeError, match="cannot build for the architecture 'sm90'") as error:
        find_target(RTX, ["sm86", "sm90"])
    assert "sm75,sm80,sm86,sm89,sm120" in error.value.fix


def test_an_architecture_for_tensorrt_is_rejected():
    with pytest.raises(CascadeError, match="GPU of this machine only"):
        find_target("tensorrt", ["sm86"])


def test_an_unknown_flavor_is_rejected():
    with pytest.raises(CascadeError, match="'openvino'"):
        find_target("openvino")


@pytest.mark.parametrize(("flavor", "extra"), [("tensorrt", "cascade-mri[tensorrt]"), (RTX, "cascade-mri[build]")])
def test_missing_tensorrt_is_an_error_with_the_command_that_installs_it(monkeypatch, flavor, extra):
    monkeypatch.setitem(sys.modules, flavor.replace("-", "_"), None)
    with pytest.raises(CascadeError, match=f"{flavor}.*not") as error:
        find_target(flavor)
    assert error.value.fix == f"pip install '{extra}'"


def test_tensorrt_without_a_gpu_is_an_error_that_suggests_tensorrt_rtx(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.0"))
    with pytest.raises(CascadeError, match="no NVIDIA GPU") as error:
        find_target("tensorrt")
    assert "--flavor tensorrt-rtx" in error.value.fix


def test_tensorrt_builds_for_the_gpu_of_this_machine(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.0"))
    monkeypatch.setattr(build_engines.target, "find_gpu", lambda: Gpu("NVIDIA H100", "9.0"))
    target = find_target("tensorrt")
    assert (target.version, target.capabilities, target.can_run_here) == ("11.0", ["9.0"], True)


def test_tensorrt_builds_for_the_chosen_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.0"))
    monkeypatch.setattr(gpu, "find_gpus", lambda: [Gpu("NVIDIA H100", "9.0"), Gpu("NVIDIA RTX A4000", "8.6", 1)])
    assert find_target("tensorrt", device=1).capabilities == ["8.6"]
    with pytest.raises(CascadeError, match="--device 2"):
        find_target("tensorrt", device=2)


def test_tensorrt_rtx_builds_for_the_default_gpus(tensorrt):
    target = find_target(RTX)
    assert (target.capabilities, target.can_run_here) == (["8.6", "8.9", "12.0"], False)


def test_architectures_are_sorted_and_unique(tensorrt):
    assert find_target(RTX, ["sm120", "sm75", "sm120"]).capabilities == ["7.5", "12.0"]
