"""Full disks and closed pipes behind stdout and stderr: a command ends its work, says so, and exits with 1."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")


def start(*arguments, buffered=True, **streams):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    environment |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cascade", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)


def run_into_full_disk(*arguments, stream="stdout", buffered=True):
    """Return the exit code, and what the other stream contains."""
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    with Path("/dev/full").open("w") as full:
        process = start(*arguments, buffered=buffered, **{stream: full, other: subprocess.PIPE})
        printed = process.communicate(timeout=120)
    return process.returncode, printed[other == "stderr"]


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["info", "--json"], ["data", "inspect", "--help"]])
def test_a_full_stdout_is_an_error_and_not_a_traceback(arguments, buffered):
    exit_code, printed = run_into_full_disk(*arguments, buffered=buffered)
    assert exit_code == 1
    assert printed.startswith("error: stdout: ")
    assert "No space left" in printed
    assert "Traceback" not in printed


def test_a_closed_pipe_is_an_error_and_not_a_traceback():
    """As in `cascade --help | head -1`."""
    process = start("--help", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    printed = process.stderr.read()
    assert process.wait(timeout=120) == 1
    assert printed.startswith("error: stdout: ")
    assert "Traceback" not in printed


@pytest.fixture
def scan(tmp_path):
    pixels = np.tile(np.linspace(0, 255, 64), (48, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(("stream", "option"), [("stdout", "--quiet"), ("stderr", "--verbose")])
def test_a_run_saves_everything_before_it_fails(scan, models, tmp_path, stream, option):
    """With stdout full, it ended in a traceback; with stderr full, it ended before it had begun."""
    arguments = ("predict", scan, "--out", tmp_path / "out", "--models", models, "--json", option)
    exit_code, printed = run_into_full_disk(*arguments, stream=stream)
    assert exit_code == 1
    assert "Traceback" not in printed
    content = (tmp_path / "out" / "results.json").read_text()
    assert json.loads(content)["complete"] is True
    assert (tmp_path / "out" / "report.html").exists()
    if stream == "stderr":
        assert printed.strip() == content.strip()
