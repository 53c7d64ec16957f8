"""`make gpu-check` on a simulated machine: its commands are replaced by their exit codes."""

import json

import gpu_check
import pytest

from build_engines.gpu_setup import STEPS
from cascade.runtime.gpu import Gpu

H100 = Gpu("NVIDIA H100", "9.0")
CASE = '<testsuite><testcase name="parity">{}</testcase></testsuite>'
SKIPPED = '<skipped message="pycuda is not installed"/>'


@pytest.fixture
def check(tmp_path, monkeypatch):
    """check(case, codes) → exit code and JSON; `codes` maps a word to the exit code of commands that contain it."""

    def check(case, codes=(), gpu=H100, commands=None):
        def run(command):
            if commands is not None:
                commands.append(command)
            for word in command:
                if word.startswith("--junitxml="):
                    (tmp_path / "out" / "tests.xml").write_text(case)
            code = next((code for word, code in dict(codes).items() if word in command), 0)
            return {"exit_code": code, "seconds": 0.1, "output": "said"}

        monkeypatch.setattr(gpu_check, "OUT", tmp_path / "out")
        monkeypatch.setattr(gpu_check, "run", run)
        monkeypatch.setattr(gpu_check, "find_gpu", lambda: gpu)
        return gpu_check.main(), json.loads((tmp_path / "out" / "gpu-check.json").read_text())

    return check


def test_every_step_is_in_the_report(check):
    code, report = check(CASE.format(""))
    assert code == 0
    assert report["gpu"] == {"name": "NVIDIA H100", "compute_capability": "9.0"}
    assert report["tests"]["cases"] == {"parity": "passed"}
    assert {"install", "install pycuda", "build tensorrt", "build tensorrt-rtx", "benchmark"} <= set(report)


@pytest.mark.parametrize(
    ("case", "codes", "gpu"),
    [
        (CASE.format(SKIPPED), {}, H100),
        (CASE.format(""), {"pytest": 1}, H100),
        (CASE.format(""), {"build": 1}, H100),
        (CASE.format(""), {"benchmark": 1}, H100),
        (CASE.format(""), {}, None),
    ],
    ids=["no test ran", "a test failed", "no engine", "no benchmark", "no GPU"],
)
def test_the_check_fails_if_the_gpu_did_not_work(check, case, codes, gpu):
    assert check(case, codes, gpu)[0] == 1


def test_an_incomplete_test_report_does_not_end_the_check(check):
    code, report = check("<testsuite><testca")
    assert code == 1
    assert "ParseError" in report["tests"]["report"]
    assert report["tests"]["output"] == "said"  # by pytest, which may say why
    assert report["benchmark"]["exit_code"] == 0


def test_packages_are_installed_by_the_script_of_make_gpu(check):
    """Else the check would pass on machines with the CUDA toolkit only."""
    assert set(gpu_check.PACKAGES) < set(STEPS)
    commands = []
    check(CASE.format(""), commands=commands)
    for package in gpu_check.PACKAGES:
        assert any(command[1:] == ["-m", "build_engines.gpu_setup", package] for command in commands)


def test_results_of_an_earlier_check_are_not_reported(check, tmp_path):
    engines = tmp_path / "out" / "engines"
    engines.mkdir(parents=True)
    (engines / "segmenter.tensorrt.json").write_text("{}")
    assert check(CASE.format(""))[1]["build tensorrt"]["sidecars"] == {}


def test_a_command_that_hangs_is_killed_and_its_output_kept(monkeypatch):
    monkeypatch.setattr(gpu_check, "TIMEOUT_S", 0.5)
    result = gpu_check.run(["sh", "-c", "echo begun; sleep 60"])
    assert result["exit_code"] is None
    assert result["output"] == "begun\n"
