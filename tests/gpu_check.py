"""Check cascade on a machine with a GPU: installation, GPU tests, both engines, and the benchmark.

    make gpu-check          writes gpu-check/gpu-check.json

A failed step does not end the check. The JSON is saved after each step and contains its output. Without a network the
check uses the Python that it was started with. It exits with 0 if GPU tests passed, an engine was built and the
benchmark ran.
"""

import json
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cascade.runtime.gpu import find_gpu

ROOT = Path(__file__).parents[1]
OUT = ROOT / "gpu-check"
PACKAGES = ("pycuda", "tensorrt", "tensorrt-rtx")
"""Steps of build_engines.gpu_setup that install something."""

MAX_OUTPUT = 2000
"""Number of last characters of a command's output that are kept."""

TIMEOUT_S = 1800
"""Timeout of a command."""


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    gpu = find_gpu()
    report: dict[str, Any] = {
        "format": "cascade gpu check 1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": {"name": gpu.name, "compute_capability": gpu.compute_capability} if gpu else None,
    }

    def step(name: str, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        print(f"{name} ...", file=sys.stderr)
        try:
            report[name] = action()
        except Exception as error:  # the other steps are still useful
            report[name] = {"exit_code": None, "output": repr(error)}
        (OUT / "gpu-check.json").write_text(json.dumps(report, indent=1))
        result: dict[str, Any] = report[name]
        return result

    installed = step("install", lambda: run(["make", ".venv/all", f"PYTHON={sys.executable}"]))
    python = str(ROOT / ".venv/bin/python") if installed["exit_code"] == 0 else sys.executable
    for package in PACKAGES:
        step(f"install {package}", lambda package=package: run([python, "-m", "build_engines.gpu_setup", package]))
    tests = step("tests", lambda: gpu_tests(python))
    arch = ["--arch", f"sm{gpu.compute_capability.replace('.', '')}"] if gpu else []
    built = [
        step("build tensorrt", lambda: build(python, "tensorrt")),
        step("build tensorrt-rtx", lambda: build(python, "tensorrt-rtx", *arch)),
    ]
    measured = step("benchmark", lambda: benchmark(python))
    print(f"see {OUT / 'gpu-check.json'}", file=sys.stderr)
    passed = tests["exit_code"] == 0 and "passed" in tests.get("cases", {}).values()
    return 0 if gpu and passed and 0 in [item["exit_code"] for item in built] and measured["exit_code"] == 0 else 1


def gpu_tests(python: str) -> dict[str, Any]:
    result = run(
        [python, "-m", "pytest", "-m", "gpu", "tests/runtime/test_on_gpu.py", f"--junitxml={OUT / 'tests.xml'}"]
    )
    try:
        return result | {"cases": cases(OUT / "tests.xml")}
    except (OSError, ElementTree.ParseError) as error:  # pytest could not start, or was killed; its output says why
        return result | {"cases": {}, "report": repr(error)}


def build(python: str, flavor: str, *options: str) -> dict[str, Any]:
    """Run `cascade build`. The result includes the sidecars, without their lists of layers."""
    engines = OUT / "engines"
    command = [python, "-m", "cascade", "build", "--flavor", flavor, *options]
    result = run([*command, "--out", str(engines), "--verify-slices", str(ROOT / "samples")])
    sidecars = {path.name: json.loads(path.read_text()) for path in sorted(engines.glob(f"*.{flavor}.json"))}
    for sidecar in sidecars.values():
        del sidecar["layers"]
    return result | {"sidecars": sidecars}


def benchmark(python: str) -> dict[str, Any]:
    result = run(
        [python, "-m", "cascade", "benchmark", "--engines", str(OUT / "engines"), "--out", str(OUT / "benchmark")]
    )
    figures = OUT / "benchmark" / "benchmark.json"
    return result | {"figures": json.loads(figures.read_text()) if figures.exists() else None}


def run(command: list[str]) -> dict[str, Any]:
    """Run a command. After TIMEOUT_S it is killed, and its exit code is None."""
    start = time.monotonic()
    try:
        completed = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S
        )
        code, output = completed.returncode, completed.stdout
    except subprocess.TimeoutExpired as error:
        code, output = None, error.stdout or b""
    text = output.decode(errors="replace")[-MAX_OUTPUT:]
    return {"exit_code": code, "seconds": round(time.monotonic() - start, 1), "output": text}


def cases(path: Path) -> dict[str, str]:
    """Read pytest's XML report: test → `passed`, or why it was skipped or failed."""
    outcomes = {}
    for case in ElementTree.parse(path).iter("testcase"):
        reasons = [
            f"{item.tag}: {item.get('message', '')}" for item in case if item.tag in ("skipped", "failure", "error")
        ]
        outcomes[case.get("name", "")] = reasons[0] if reasons else "passed"
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
