"""All that a GPU machine can tell, in one JSON: what installs, the GPU tests, both engines, the benchmark.

    make gpu-check          leaves gpu-check/gpu-check.json

Nothing that fails ends it: the JSON says what failed and how.
"""

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cascade.gpu import find_gpu

ROOT = Path(__file__).parents[1]
OUT = ROOT / "gpu-check"
PACKAGES = ("pycuda", "tensorrt", "tensorrt-rtx-cu13", "openvino")
TAIL = 2000
"""Characters of a command's output that are kept."""


def main() -> int:
    OUT.mkdir(exist_ok=True)
    gpu = find_gpu()
    report: dict[str, Any] = {
        "format": "cascade gpu check 1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": {"name": gpu.name, "compute_capability": gpu.compute_capability} if gpu else None,
    }
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / ".ci" / "constraints.txt")]
    report["installed"] = {package: run([*pip, package]) for package in PACKAGES}
    report["tests"] = run([sys.executable, "-m", "pytest", "-m", "gpu", f"--junitxml={OUT / 'tests.xml'}"])
    report["tests"]["cases"] = cases(OUT / "tests.xml")
    report["built"] = {"tensorrt": build("tensorrt")}
    if gpu:
        arch = f"sm{gpu.compute_capability.replace('.', '')}"
        report["built"]["tensorrt-rtx"] = build("tensorrt-rtx", "--arch", arch)
    benchmark = ["benchmark", "--engines", str(OUT / "engines"), "--out", str(OUT / "benchmark")]
    report["benchmark"] = run([sys.executable, "-m", "cascade", *benchmark])
    measured = OUT / "benchmark" / "benchmark.json"
    report["benchmark"]["figures"] = json.loads(measured.read_text()) if measured.exists() else None
    path = OUT / "gpu-check.json"
    path.write_text(json.dumps(report, indent=1))
    print(f"see {path}", file=sys.stderr)
    return 0 if gpu and report["tests"]["exit_code"] == 0 else 1


def build(flavor: str, *options: str) -> dict[str, Any]:
    """What `cascade build` said, and the sidecars that it left without their lists of layers."""
    engines = OUT / "engines"
    command = [sys.executable, "-m", "cascade", "build", "--flavor", flavor, *options]
    result = run([*command, "--out", str(engines), "--check", str(ROOT / "samples")])
    sidecars = {path.name: json.loads(path.read_text()) for path in sorted(engines.glob(f"*.{flavor}.json"))}
    result["sidecars"] = {
        name: {key: value for key, value in sidecar.items() if key != "layers"} for name, sidecar in sidecars.items()
    }
    return result


def run(command: list[str]) -> dict[str, Any]:
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = round(time.monotonic() - began, 1)
    return {"exit_code": done.returncode, "seconds": seconds, "output": done.stdout[-TAIL:]}


def cases(path: Path) -> dict[str, str]:
    """Of pytest's XML report: test → `passed`, or why it was skipped or failed."""
    if not path.exists():
        return {}
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        reasons = [
            f"{item.tag}: {item.get('message', '')}" for item in case if item.tag in ("skipped", "failure", "error")
        ]
        found[case.get("name", "")] = reasons[0] if reasons else "passed"
    return found


if __name__ == "__main__":
    sys.exit(main())
