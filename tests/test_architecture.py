"""Imports point one way: train → cascade ← build_engines; prediction loads neither torch nor TensorRT."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "lightning", "tensorrt", "tensorrt_rtx", "openvino", "train", "build_engines")


def imported_at_module_level(source):
    """Names of the top packages that importing the module imports: not those in functions or for the types alone."""
    names = set()
    waiting = list(ast.parse(source).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or ".").split(".")[0])
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return names


def modules_of(package):
    return sorted((ROOT / package).rglob("*.py"))


def test_the_walk_sees_imports_in_branches_but_not_in_functions_or_for_types():
    source = "import a\nif a:\n    from b.c import d\nclass K:\n    import e\ndef f():\n    import g\n"
    types = "if TYPE_CHECKING:\n    import h\nelse:\n    import i\n"
    assert imported_at_module_level(source + types) == {"a", "b", "e", "i"}


@pytest.mark.parametrize("path", modules_of("cascade"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_of_cascade_imports_training_or_engine_building(path):
    assert not imported_at_module_level(path.read_text()) & {"torch", "lightning", "train", "build_engines"}


@pytest.mark.parametrize("path", modules_of("build_engines"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_of_build_engines_imports_torch_or_training(path):
    names = {
        alias
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names])
    }
    assert not {name.split(".")[0] for name in names} & {"torch", "lightning", "train"}


@pytest.mark.parametrize(
    "module", ["cascade.pipeline", "cascade.datasets.split", "cascade.datasets.summary", "cascade.cli"]
)
def test_a_fresh_process_that_imports_it_has_loaded_none_of_the_heavy_packages(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
