"""Description of the machine and of the memory in use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cascade.runtime import machine as machine_module
from cascade.runtime.machine import this_machine

ROOT = Path(__file__).parents[2]


def test_peak_memory_is_unknown_where_python_has_no_module_resource():
    """Windows has neither it nor /proc. Importing the benchmark failed there with a traceback."""
    program = """
import sys
sys.modules["resource"] = None
from pathlib import Path
from cascade.benchmarking import timing
from cascade.runtime import machine
def no_proc(path): raise FileNotFoundError(path)
Path.read_text = no_proc
print(machine.peak_host_mb())
"""
    printed = subprocess.check_output([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert printed.split() == [b"None"]


def test_the_machine_is_described_without_a_gpu(monkeypatch):
    def no_such_program(*arguments, **options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", no_such_program)
    machine = this_machine()
    assert machine.gpus == []
    assert machine_module.gpu_memory_in_use_mb() is None
    assert machine.cpu
    assert machine.cpu_threads >= 1
    assert {"cascade-mri", "numpy", "onnxruntime"} <= set(machine.versions)


def test_gpus_are_described_by_nvidia_smi(monkeypatch):
    printed = "NVIDIA RTX A4000, 570.86, 16376 MiB\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=printed))
    assert this_machine().gpus == ["NVIDIA RTX A4000, 570.86, 16376 MiB"]


def test_the_gpu_memory_in_use_is_that_of_all_gpus(monkeypatch):
    """The GPU that is used may not be the one that nvidia-smi lists first."""
    printed = "100 MiB\n2000 MiB\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=printed))
    assert machine_module.gpu_memory_in_use_mb() == 2100
