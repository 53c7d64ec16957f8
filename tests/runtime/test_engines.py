"""Engines are accepted only with a sidecar that describes them, and errors name the command that builds them."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cascade.errors import CascadeError
from cascade.files import sha256_of
from cascade.runtime.engines import (
    Engine,
    build_command,
    default_engines_folder,
    engine_path,
    find_engine,
    incompatibility,
    misfits,
    sidecar_path,
)
from cascade.runtime.gpu import Gpu
from cascade.runtime.models import BUNDLED_MODELS, ExportedModel, find_model
from cascade.runtime.openvino import open_openvino
from cascade.runtime.sidecar import BatchProfile, BuildSpec, EngineTensor, Layer, Sidecar, Verification, read_sidecar

ROOT = Path(__file__).parents[2]
SERIALIZED = b"the bytes of an engine"
SPEC = BuildSpec(
    name="segmenter",
    flavor="tensorrt-rtx",
    tensorrt_version="1.7.1",
    gpu=None,
    compute_capabilities=["8.6", "12.0"],
    onnx_sha256="a" * 64,
    fp16_sha256="b" * 64,
    batches=BatchProfile(),
)
RTX_3090 = Gpu("NVIDIA GeForce RTX 3090", "8.6")
T4 = Gpu("Tesla T4", "7.5")


def sidecar(spec=SPEC, engine_sha256="c" * 64):
    return Sidecar(
        spec=spec,
        engine_sha256=engine_sha256,
        inputs=[EngineTensor("slice", "float32", [1, 1, 4, 4], [8, 1, 4, 4], [64, 1, 4, 4])],
        outputs=[],
        build_seconds=1.5,
        date="2026-01-31T12:00:00+00:00",
        verified=Verification("engine", "2 slices", 2, "d" * 64, {"min_dice": 0.9}, {"min_dice": 0.99}),
        layers_of="network",
        precision={"CONVOLUTION fp16": 1},
        layers=[Layer("conv", "CONVOLUTION", ["fp16"], ["fp16"])],
    )


@pytest.fixture
def graph():
    return ExportedModel(BUNDLED_MODELS / "segmenter.onnx", SPEC.onnx_sha256, {})


@pytest.fixture
def folder(tmp_path):
    """Holds the segmenter's engine."""
    write_engine(tmp_path, SPEC)
    return tmp_path


def write_engine(folder, spec):
    """Write an engine, and the sidecar that describes it."""
    path = engine_path(spec.name, folder, spec.flavor)
    path.write_bytes(SERIALIZED)
    sidecar_path(spec.name, folder, spec.flavor).write_bytes(sidecar(spec, sha256_of(path)).to_json())


def rewrite(folder, **changes):
    path = sidecar_path("segmenter", folder, "tensorrt-rtx")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_sidecar_reads_as_it_was_written(tmp_path):
    (tmp_path / "some.json").write_bytes(sidecar().to_json())
    assert read_sidecar(tmp_path / "some.json") == sidecar()


def test_an_engine_that_matches_its_sidecar_is_found(folder, graph):
    engine = find_engine("segmenter", folder, "tensorrt-rtx", graph)
    assert isinstance(engine, Engine)
    assert engine.path == folder / "segmenter.tensorrt-rtx.engine"
    assert engine.sidecar.spec == SPEC


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda folder: os.truncate(folder / "segmenter.tensorrt-rtx.engine", 5), "does not match its sidecar"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.engine").write_bytes(b"evil"), "does not match its sidecar"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.engine").unlink(), r"engine: there is no such file"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.json").unlink(), r"json: there is no such file"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.json").write_text("{"), "is not a valid engine sidecar"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.json").write_bytes(b"\xff"), "is not a valid engine sidecar"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.json").write_text("[]"), "is not a valid engine sidecar"),
        (lambda folder: rewrite(folder, format=0), "format 0, expected 1"),
        (lambda folder: rewrite(folder, format=2), "format 2, expected 1"),
        (lambda folder: rewrite(folder, layers=[{"name": "conv"}]), "is not a valid engine sidecar"),
        (lambda folder: rewrite(folder, recipe=asdict(replace(SPEC, name="classifier"))), "describes the classifier"),
        (lambda folder: rewrite(folder, recipe=asdict(replace(SPEC, flavor="tensorrt"))), "for tensorrt\n"),
        (lambda folder: rewrite(folder, recipe=asdict(replace(SPEC, onnx_sha256="e" * 64))), "was not built from"),
    ],
)
def test_anything_else_is_rejected_with_the_command_that_builds_the_engine(folder, graph, harm, problem):
    harm(folder)
    with pytest.raises(CascadeError, match=problem) as error:
        find_engine("segmenter", folder, "tensorrt-rtx", graph)
    assert error.value.fix.startswith(f"cascade build --flavor tensorrt-rtx --out {folder}")


def test_the_command_repeats_how_the_engine_was_built(tmp_path):
    spec = replace(SPEC, batches=BatchProfile(2, 4, 16))
    assert build_command("tensorrt-rtx", tmp_path / "my engines", tmp_path, spec) == (
        f"cascade build --flavor tensorrt-rtx --out '{tmp_path}/my engines' --models {tmp_path} --arch sm86,sm120 "
        "--min-batch 2 --opt-batch 4 --max-batch 16"
    )


def test_the_command_omits_options_with_default_values(tmp_path):
    """By default an engine takes 1 to 64 slices and is fastest with 8."""
    assert build_command("tensorrt", tmp_path) == f"cascade build --flavor tensorrt --out {tmp_path}"
    spec = replace(SPEC, batches=BatchProfile(1, 8, 64), compute_capabilities=[])
    assert build_command("tensorrt", tmp_path, spec=spec) == f"cascade build --flavor tensorrt --out {tmp_path}"


def test_the_command_can_be_for_another_gpu_too(tmp_path):
    """It built for that GPU alone, and the engines of the others were lost."""
    assert build_command("tensorrt-rtx", tmp_path, spec=SPEC, gpu=T4).endswith("--arch sm75,sm86,sm120")
    second = replace(T4, number=1)
    assert build_command("tensorrt", tmp_path, gpu=second).endswith("--device 1")  # not GPU 0 again and again


def test_where_tensorrt_rtx_does_not_support_the_gpu_the_command_builds_for_tensorrt(tmp_path):
    """`build` refused the command that `predict` gave."""
    h100 = Gpu("NVIDIA H100", "9.0")
    assert build_command("tensorrt-rtx", tmp_path, spec=SPEC, gpu=h100).split()[:4] == [
        *("cascade", "build", "--flavor", "tensorrt")
    ]


def test_only_tensorrt_rtx_builds_for_gpus_that_are_not_there(tmp_path):
    assert build_command("tensorrt-rtx", tmp_path) == f"cascade build --flavor tensorrt-rtx --out {tmp_path}"
    assert build_command("tensorrt", tmp_path, gpu=T4) == f"cascade build --flavor tensorrt --out {tmp_path}"


def test_an_engine_is_compatible_with_the_version_and_compute_capability_it_was_built_for():
    assert incompatibility(SPEC, "1.7.1", RTX_3090) is None


def test_an_engine_of_another_version_is_incompatible():
    assert incompatibility(SPEC, "1.8.0", RTX_3090) == "was built by tensorrt-rtx 1.7.1, but 1.8.0 is installed"


def test_an_engine_for_other_compute_capabilities_is_incompatible():
    assert incompatibility(SPEC, "1.7.1", T4) == "requires compute capability 8.6, 12.0, but the Tesla T4 has 7.5"


def test_an_engine_of_tensorrt_is_compatible_only_with_the_gpu_it_was_built_on():
    spec = replace(SPEC, flavor="tensorrt", gpu="NVIDIA RTX A6000", compute_capabilities=["8.6"])
    reason = incompatibility(spec, "1.7.1", RTX_3090)
    assert reason == "was built for the NVIDIA RTX A6000, but this GPU is the NVIDIA GeForce RTX 3090"
    assert incompatibility(spec, "1.7.1", Gpu("NVIDIA RTX A6000", "8.6")) is None


def test_the_default_folder_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name, **options: tmp_path / name)
    assert default_engines_folder() == tmp_path / "cascade" / "engines"
    assert build_command("tensorrt", tmp_path / "cascade" / "engines") == "cascade build --flavor tensorrt"


@pytest.fixture
def no_home(tmp_path):
    """no_home(statements) → what Python prints, for a user without a home: no HOME, and no entry in /etc/passwd."""

    def run(statements):
        program = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n" + statements
        hidden = ("HOME", "XDG_CACHE_HOME", "USERPROFILE")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    return run


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always has a profile")
def test_without_a_home_the_command_line_works(no_home):
    """Importing it raised RuntimeError, even for --help, as in containers that run with an arbitrary user id."""
    assert "predict" in no_home("from cascade.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass")
    assert "ONNX Runtime" in no_home(
        "from cascade.pipeline import Cascade\nprint(Cascade.open(backend='onnxruntime').description)"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always has a profile")
def test_without_a_home_openvino_is_passed_over(monkeypatch, tmp_path):
    """It looks for the home directory when it is imported, and the run ended in its traceback."""
    (tmp_path / "openvino.py").write_text("raise RuntimeError('Could not determine home directory.')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    graphs = {name: find_model(name, BUNDLED_MODELS) for name in ("segmenter", "classifier")}
    with pytest.raises(CascadeError, match="home directory"):
        open_openvino(**graphs)


def test_without_a_home_only_the_default_folder_of_engines_is_an_error(no_home, tmp_path):
    program = """
from cascade.errors import CascadeError
from cascade.runtime.engines import default_engines_folder
try: default_engines_folder()
except CascadeError as error: print(error.problem)
"""
    assert "home directory" in no_home(program)
    assert list(tmp_path.iterdir()) == []  # no folder named "~"


@pytest.mark.parametrize(
    ("gpu", "versions", "reason"),
    [
        (RTX_3090, {"tensorrt-rtx": "1.7.1"}, None),
        (T4, {"tensorrt-rtx": "1.7.1"}, "requires compute capability 8.6, 12.0, but the Tesla T4 has 7.5"),
        (RTX_3090, {"tensorrt-rtx": "1.8"}, "was built by tensorrt-rtx 1.7.1, but 1.8 is installed"),
        (RTX_3090, {}, "tensorrt-rtx is not installed"),
    ],
)
def test_the_engines_of_a_folder_are_listed_with_the_reason_why_one_does_not_fit(folder, graph, gpu, versions, reason):
    """The classifier's engine was not built."""
    graphs = {"segmenter": graph, "classifier": graph}
    assert misfits(folder, graphs, gpu, versions) == {"segmenter.tensorrt-rtx.engine": reason}


def test_a_damaged_engine_is_listed_as_one_that_does_not_fit(folder, graph):
    os.truncate(folder / "segmenter.tensorrt-rtx.engine", 5)
    (reason,) = misfits(folder, {"segmenter": graph}, RTX_3090, {"tensorrt-rtx": "1.7.1"}).values()
    assert "does not match its sidecar" in reason


def test_an_engine_after_a_damaged_one_is_listed_too(folder, graph):
    write_engine(folder, replace(SPEC, name="classifier"))
    os.truncate(folder / "segmenter.tensorrt-rtx.engine", 5)
    reasons = misfits(folder, {"segmenter": graph, "classifier": graph}, RTX_3090, {"tensorrt-rtx": "1.7.1"})
    assert list(reasons) == ["segmenter.tensorrt-rtx.engine", "classifier.tensorrt-rtx.engine"]
    assert reasons["classifier.tensorrt-rtx.engine"] is None
