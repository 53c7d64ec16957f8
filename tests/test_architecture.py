"""Prediction, the command line and what looks at data load neither torch, TensorRT nor Ray.

The import rules themselves are contracts of import-linter in pyproject.toml. They do not tell an import at the top of a
command from one inside it, so fresh processes look at what is loaded.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNTIMES = ("tensorrt", "tensorrt_rtx", "openvino")
HEAVY = ("torch", "torchvision", "lightning", *RUNTIMES, "ray", "train", "build_engines")


@pytest.mark.parametrize(
    "module",
    [
        "cascade.cli",
        "cascade.prediction.run",
        "cascade.evaluation.evaluate",
        "cascade.evaluation.evaluate_volumes",
        "cascade.pipeline",
        "cascade.datasets.split",
        "cascade.datasets.summary",
    ],
)
def test_a_fresh_process_that_imports_it_has_loaded_none_of_the_heavy_packages(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
