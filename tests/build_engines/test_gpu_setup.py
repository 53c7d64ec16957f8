"""`make gpu`: its steps on simulated GPUs, and a real pycuda, compiled without CUDA toolkit, driver or GPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import build_engines.gpu_setup as gpu_setup
import build_engines.pycuda_wheel as pycuda_wheel
from build_engines.gpu_setup import SAMPLES, cuda_major, flavor_for, main
from cascade.errors import CascadeError
from cascade.runtime.gpu import LIBRARY, Gpu

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / ".docker" / "Dockerfile"
A4000, RTX_4090, H100 = Gpu("NVIDIA RTX A4000", "8.6"), Gpu("RTX 4090", "8.9", 1), Gpu("NVIDIA H100", "9.0")

USED = ("init", "Device", "Stream", "Event", "Error", "mem_alloc", "pagelocked_empty")
USED += ("memcpy_htod_async", "memcpy_dtoh_async")
"""What the backend uses of pycuda.driver."""


@pytest.fixture
def machine(monkeypatch):
    """machine(gpus, driver) → the commands that the steps will run there."""

    def machine(*gpus, driver="13.0", failing=""):
        commands = []

        def run_pip(*arguments):
            commands.append(" ".join(arguments))

        def run(command):
            commands.append(" ".join(command[2:]))
            return subprocess.CompletedProcess(command, 1 if failing and failing in command else 0)

        monkeypatch.setattr(gpu_setup, "find_gpus", lambda: list(gpus))
        monkeypatch.setattr(gpu_setup, "cuda_version", lambda: driver)
        monkeypatch.setattr(gpu_setup, "install_pycuda", lambda cuda: commands.append(f"pycuda for CUDA {cuda}"))
        monkeypatch.setattr(gpu_setup, "run_pip", run_pip)
        monkeypatch.setattr(gpu_setup.subprocess, "run", run)
        return commands

    return machine


def test_one_command_installs_builds_and_predicts(machine, tmp_path):
    commands = machine(A4000, RTX_4090)
    assert main(["--out", str(tmp_path)]) == 0
    assert [command for command in commands if not command.startswith("uninstall")] == [
        "pycuda for CUDA 13",
        "install onnx>=1.17 tensorrt-rtx-cu13>=1.3",
        "cascade build --flavor tensorrt-rtx --arch sm86,sm89",
        f"cascade predict {SAMPLES} --backend tensorrt-rtx --out {tmp_path} --overwrite",
    ]


@pytest.mark.parametrize("gpu", [H100, Gpu("NVIDIA A100", "8.0")], ids=lambda gpu: gpu.name)
def test_a_gpu_that_tensorrt_rtx_does_not_support_gets_tensorrt(machine, tmp_path, gpu):
    commands = machine(gpu)
    assert main(["--out", str(tmp_path)]) == 0
    assert "install onnx>=1.17 tensorrt-cu13>=10.12" in commands
    assert "cascade build --flavor tensorrt" in commands


@pytest.mark.parametrize("installed", [["cu13"], ["cu12", "cu13"]])
def test_packages_are_those_of_the_drivers_cuda_and_replace_those_of_another(machine, monkeypatch, installed):
    """`make gpu`, `make test`, `make gpu`: cu13 came over cu12, and its removal took the files of cu12 with it."""
    monkeypatch.setattr(gpu_setup, "_is_installed", lambda package: package.split("-")[2] in installed)
    commands = machine(A4000, driver="12.4")
    assert main(["pycuda", "tensorrt-rtx"]) == 0
    pycuda, uninstall, install = commands
    assert pycuda == "pycuda for CUDA 12"
    assert {f"tensorrt-rtx-{cuda}{part}" for cuda in ("cu12", "cu13") for part in ("", "-bindings", "-libs")} == set(
        uninstall.removeprefix("uninstall --yes ").split()
    )
    assert install == "install onnx>=1.17 tensorrt-rtx-cu12>=1.3"


def test_packages_of_the_drivers_cuda_are_left_in_place(machine, monkeypatch):
    monkeypatch.setattr(gpu_setup, "_is_installed", lambda package: "cu12" in package)
    commands = machine(A4000, driver="12.4")
    assert main(["tensorrt-rtx"]) == 0
    assert commands == ["install onnx>=1.17 tensorrt-rtx-cu12>=1.3"]


def test_a_flavor_among_the_steps_is_the_one_that_is_built(machine):
    """TensorRT was installed, and TensorRT-RTX built."""
    commands = machine(A4000)
    assert main(["tensorrt", "engines"]) == 0
    assert commands[-1] == "cascade build --flavor tensorrt"


def test_without_a_gpu_the_steps_that_need_none_run(machine):
    """As in `docker build`."""
    commands = machine(driver=None)
    assert main(["pycuda", "tensorrt-rtx", "engines"]) == 0
    assert commands[-1] == "cascade build --flavor tensorrt-rtx"


def test_make_gpu_without_a_gpu_is_an_error_before_anything_is_installed(machine, capsys):
    """It compiled pycuda for minutes, predicted nothing, and ended with 0."""
    commands = machine(driver=None)
    assert main([]) == 1
    assert "no usable NVIDIA GPU" in capsys.readouterr().err
    assert commands == []


def test_without_the_samples_nothing_is_predicted(machine, monkeypatch, tmp_path):
    """They are not in the wheel."""
    monkeypatch.setattr(gpu_setup, "SAMPLES", tmp_path / "samples")
    commands = machine(A4000)
    assert main([]) == 0
    assert commands[-1] == "cascade build --flavor tensorrt-rtx --arch sm86"


@pytest.mark.parametrize(("driver", "major"), [(None, 13), ("12.2", 12), ("12.8", 12), ("13.2", 13), ("14.0", 13)])
def test_the_newest_cuda_that_driver_and_packages_know_is_used(driver, major):
    assert cuda_major(driver) == major


@pytest.mark.parametrize("driver", ["11.8", "12.0", "12.1"])
def test_a_driver_that_is_too_old_is_an_error(driver):
    """Driver 525, with CUDA 12.0, was said to be new enough, and TensorRT needs 535."""
    with pytest.raises(CascadeError, match=re.escape(driver)) as raised:
        cuda_major(driver)
    assert "535" in raised.value.fix


def test_the_first_gpu_decides_on_the_flavor():
    assert [flavor_for(gpus) for gpus in ([], [A4000, H100], [H100, A4000])] == [
        "tensorrt-rtx",
        "tensorrt-rtx",
        "tensorrt",
    ]


def test_a_step_that_fails_ends_the_set_up(machine, capsys):
    commands = machine(A4000, failing="build")
    assert main([]) == 1
    assert "cascade build failed" in capsys.readouterr().err
    assert commands[-1].startswith("cascade build")


def test_an_unknown_step_is_an_error_before_anything_is_installed(machine, capsys):
    commands = machine(A4000)
    assert main(["pycuda", "cuda"]) == 1
    assert "unknown step cuda" in capsys.readouterr().err
    assert commands == []


def test_a_pycuda_that_can_be_imported_is_not_compiled_again(monkeypatch):
    monkeypatch.setattr(gpu_setup.importlib, "import_module", lambda name: None)
    monkeypatch.setattr(gpu_setup, "build_pycuda", lambda *_: pytest.fail("it compiles"))
    gpu_setup.install_pycuda(13)


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch, tmp_path):
    """pip would print 500 lines of C++ or end with a traceback of distutils."""
    monkeypatch.setattr(pycuda_wheel.shutil, "which", lambda name: None)
    with pytest.raises(CascadeError, match=r"no C\+\+ compiler") as raised:
        pycuda_wheel.build_pycuda(13, tmp_path)
    assert "g++" in raised.value.fix


def test_the_end_of_pips_output_is_part_of_the_error():
    with pytest.raises(CascadeError, match="no such option"):
        pycuda_wheel.run_pip("install", "--no-such-option")


def test_the_dockerfile_runs_the_steps_of_the_script():
    (command,) = [line for line in DOCKERFILE.read_text().splitlines() if "build_engines.gpu_setup" in line]
    assert set(command.split('"$CUDA"')[1].split()) == {"pycuda", "tensorrt-rtx", "engines"} <= set(gpu_setup.STEPS)


@pytest.mark.parametrize("text", [DOCKERFILE, ROOT / "docs/engines.md"], ids=lambda path: path.name)
def test_each_image_has_a_volume_of_its_own(text):
    """Docker fills a volume only once. That of an earlier image hid the engines of a new one."""
    assert '--volume "cascade-$(docker images --quiet cascade:latest):/cache/cascade"' in text.read_text()


def test_the_dockerfile_passes_hadolint():
    hadolint = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if hadolint is None:
        pytest.skip("pip install 'cascade-mri[dev]', where there is a wheel of hadolint")
    linted = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.fixture(scope="module")
def pycuda(request, tmp_path_factory):
    """Folder with pycuda and what it imports, compiled once for this recipe and Python."""
    try:
        pycuda_wheel.check_compiler()
    except CascadeError as error:
        pytest.skip(error.problem)
    recipe = Path(pycuda_wheel.__file__).read_bytes() + sys.version.encode()
    name = f"pycuda-{hashlib.sha256(recipe).hexdigest()[:12]}"
    cache = getattr(request.config, "cache", None)  # .pytest_cache, unless it is switched off
    folder = cache.mkdir(name) if cache else tmp_path_factory.mktemp(name)
    installed = folder / "site"
    if not (installed / "pycuda").is_dir():
        shutil.rmtree(folder / "incomplete", ignore_errors=True)  # of a run that was interrupted
        try:
            wheel = pycuda_wheel.build_pycuda(13, folder)
            pycuda_wheel.run_pip("install", "--target", str(folder / "incomplete"), str(wheel))
        except CascadeError as error:
            if "pip wheel" in error.problem:
                raise
            pytest.skip(f"the packages cannot be downloaded: {error.problem.splitlines()[-1]}")
        (folder / "incomplete").rename(installed)
    return installed


def import_pycuda(pycuda, library_path=""):
    code = f"import pycuda.driver as cuda; print([name for name in {USED} if not hasattr(cuda, name)]); cuda.init()"
    environment = os.environ | {"PYTHONPATH": str(pycuda), "LD_LIBRARY_PATH": str(library_path)}
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_pycuda_is_compiled_without_a_toolkit_and_lacks_the_driver_only(pycuda):
    imported = import_pycuda(pycuda)
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        assert f"ImportError: {LIBRARY}: cannot open shared object file" in imported.stderr
    else:
        assert imported.stdout == "[]\n", imported.stderr


@pytest.mark.slow
def test_pycuda_has_everything_that_the_backend_uses(pycuda, tmp_path):
    """With a driver that has all functions, which return 100: there is no GPU."""
    (module,) = (pycuda / "pycuda").glob("_driver*.so")
    symbols = subprocess.check_output(["nm", "--dynamic", "--undefined-only", str(module)], text=True).split()
    functions = [symbol for symbol in symbols if symbol.startswith("cu")]
    assert "cuInit" in functions
    source = tmp_path / "driver.cpp"
    source.write_text("\n".join(f'extern "C" int {name}(void) {{ return 100; }}' for name in functions))
    subprocess.run(["c++", "-shared", "-fPIC", "-o", str(tmp_path / LIBRARY), str(source)], check=True)
    imported = import_pycuda(pycuda, tmp_path)
    assert imported.stdout == "[]\n", imported.stderr
    assert "cuInit failed" in imported.stderr
