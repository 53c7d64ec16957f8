"""Engine files: what vouches for one, and what is said where nothing does."""

import json
import os
from dataclasses import asdict, replace

import pytest

from cascade.errors import CascadeError
from cascade.files import sha256_of
from cascade.runtime.engines import (
    Batches,
    Engine,
    EngineTensor,
    Gpu,
    Layer,
    Recipe,
    Sidecar,
    Verification,
    build_command,
    engine_path,
    find_engine,
    read_sidecar,
    sidecar_path,
    why_unfit,
)
from cascade.runtime.models import SHIPPED, Graph

PLAN = b"the bytes of an engine"
RECIPE = Recipe(
    name="segmenter",
    flavor="tensorrt-rtx",
    tensorrt_version="1.7.1",
    gpu=None,
    compute_capabilities=["8.6", "12.0"],
    onnx_sha256="a" * 64,
    fp16_sha256="b" * 64,
    batches=Batches(),
)
RTX_3090 = Gpu("NVIDIA GeForce RTX 3090", "8.6")
T4 = Gpu("Tesla T4", "7.5")


def sidecar(recipe=RECIPE, engine_sha256="c" * 64):
    return Sidecar(
        recipe=recipe,
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
    return Graph(SHIPPED / "segmenter.onnx", RECIPE.onnx_sha256, {})


@pytest.fixture
def folder(tmp_path):
    """Holds the segmenter's engine."""
    path = engine_path("segmenter", tmp_path, "tensorrt-rtx")
    path.write_bytes(PLAN)
    sidecar_path("segmenter", tmp_path, "tensorrt-rtx").write_bytes(sidecar(engine_sha256=sha256_of(path)).to_json())
    return tmp_path


def rewrite(folder, **changes):
    path = sidecar_path("segmenter", folder, "tensorrt-rtx")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_sidecar_reads_as_it_was_written(tmp_path):
    (tmp_path / "some.json").write_bytes(sidecar().to_json())
    assert read_sidecar(tmp_path / "some.json") == sidecar()


def test_an_engine_whose_sidecar_vouches_for_it_is_found(folder, graph):
    found = find_engine("segmenter", folder, "tensorrt-rtx", graph)
    assert isinstance(found, Engine)
    assert found.path == folder / "segmenter.tensorrt-rtx.engine"
    assert found.sidecar.recipe == RECIPE


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda folder: os.truncate(folder / "segmenter.tensorrt-rtx.engine", 5), "was cut short, changed or half"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.engine").write_bytes(b"evil"), "is not the file that its"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.engine").unlink(), r"engine: there is no such file"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.json").unlink(), r"json: there is no such file"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.json").write_text("{"), "is not the sidecar of an engine"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.json").write_bytes(b"\xff"), "is not the sidecar of an"),
        (lambda folder: (folder / "segmenter.tensorrt-rtx.json").write_text("[]"), "is not the sidecar of an engine"),
        (lambda folder: rewrite(folder, format=0), "is of format 0, not 1"),
        (lambda folder: rewrite(folder, layers=[{"name": "conv"}]), "is not the sidecar of an engine"),
        (lambda folder: rewrite(folder, recipe=asdict(replace(RECIPE, name="classifier"))), "that of the classifier"),
        (lambda folder: rewrite(folder, recipe=asdict(replace(RECIPE, flavor="tensorrt"))), "for tensorrt\n"),
        (lambda folder: rewrite(folder, recipe=asdict(replace(RECIPE, onnx_sha256="e" * 64))), "from another segmente"),
    ],
)
def test_anything_else_is_no_engine_and_the_fix_is_the_command_that_builds_it(folder, graph, harm, problem):
    harm(folder)
    with pytest.raises(CascadeError, match=problem) as error:
        find_engine("segmenter", folder, "tensorrt-rtx", graph)
    assert error.value.fix.startswith(f"cascade build --flavor tensorrt-rtx --out {folder}")


def test_the_command_repeats_how_the_engine_was_built(tmp_path):
    recipe = replace(RECIPE, batches=Batches(2, 4, 16))
    assert build_command("tensorrt-rtx", tmp_path / "my engines", tmp_path, recipe) == (
        f"cascade build --flavor tensorrt-rtx --out '{tmp_path}/my engines' --models {tmp_path} --arch sm86,sm120 "
        "--min-batch 2 --opt-batch 4 --max-batch 16"
    )


def test_the_command_is_short_where_all_is_as_usual(tmp_path):
    assert build_command("tensorrt", tmp_path) == f"cascade build --flavor tensorrt --out {tmp_path}"


def test_the_command_builds_for_the_gpu_that_is_here(tmp_path):
    assert build_command("tensorrt-rtx", tmp_path, recipe=RECIPE, gpu=T4).endswith("--arch sm75")


def test_an_engine_fits_the_version_and_the_compute_capability_it_was_built_for():
    assert why_unfit(RECIPE, "1.7.1", RTX_3090) is None


def test_an_engine_of_another_version_does_not_fit():
    assert why_unfit(RECIPE, "1.8.0", RTX_3090) == "was built by tensorrt-rtx 1.7.1, here is 1.8.0"


def test_an_engine_for_other_compute_capabilities_does_not_fit():
    assert why_unfit(RECIPE, "1.7.1", T4) == "runs on compute capability 8.6, 12.0, the Tesla T4 has 7.5"


def test_an_engine_of_tensorrt_fits_only_the_gpu_it_was_built_on():
    recipe = replace(RECIPE, flavor="tensorrt", gpu="NVIDIA RTX A6000", compute_capabilities=["8.6"])
    assert why_unfit(recipe, "1.7.1", RTX_3090) == "was built on a NVIDIA RTX A6000, here is a NVIDIA GeForce RTX 3090"
    assert why_unfit(recipe, "1.7.1", Gpu("NVIDIA RTX A6000", "8.6")) is None
