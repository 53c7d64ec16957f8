"""The machine is described as its system reports it. What the system does not report is None, never a guess."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.runtime import machine
from cascade.runtime.machine import gpu_memory_in_use_mb, nvidia_smi, this_machine, usable_threads

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
    found = this_machine()
    assert found.gpus == []
    assert gpu_memory_in_use_mb() is None
    assert found.cpu
    assert found.cpu_threads >= 1
    assert {"cascade-mri", "numpy", "onnxruntime"} <= set(found.versions)


def test_gpus_are_described_by_nvidia_smi(monkeypatch):
    printed = "NVIDIA RTX A4000, 570.86, 16376 MiB\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=printed))
    assert this_machine().gpus == ["NVIDIA RTX A4000, 570.86, 16376 MiB"]


def test_the_gpu_memory_in_use_is_that_of_all_gpus(monkeypatch):
    """The GPU that is used may not be the one that nvidia-smi lists first."""
    printed = "100 MiB\n2000 MiB\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=printed))
    assert gpu_memory_in_use_mb() == 2100


def processor(physical, core):
    return f"model name\t: Abacus 2\nphysical id\t: {physical}\ncore id\t\t: {core}\nflags\t\t: fpu amx_bf16 avx2 x2"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """cpuinfo(text): what /proc/cpuinfo contains. The machine has no GPU."""
    monkeypatch.setattr(machine, "Path", lambda name: tmp_path / name.strip("/").replace("/", "-"))
    monkeypatch.setattr(machine, "nvidia_smi", lambda *fields: [])
    return (tmp_path / "proc-cpuinfo").write_text


def test_processor_memory_and_load_are_those_that_linux_reports(cpuinfo, monkeypatch):
    """Two processors with three cores and four threads: the two threads of core 0 are one core."""
    cpuinfo("\n\n".join([processor(0, 0), processor(0, 0), processor(0, 1), processor(1, 0)]) + "\n")
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4_000_000}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.456, 1.5, 2.5))
    found = this_machine()
    assert (found.cpu, found.cpu_cores) == ("Abacus 2", 3)
    assert found.cpu_instructions == ["avx2", "amx_bf16"]  # in the order of INSTRUCTIONS
    assert found.memory_gb == 16.4  # 4096 * 4,000,000 / 10^9 = 16.384
    assert found.load_average == 0.46


def test_an_arm_processor_lists_its_instructions_as_features(cpuinfo):
    cpuinfo("Features\t: fp asimd i8mm bf16\n")
    found = this_machine()
    assert found.cpu_instructions == ["asimd", "bf16", "i8mm"]
    assert found.cpu_cores is None
    assert found.cpu == (platform.processor() or platform.machine())


def test_without_cpuinfo_the_processor_has_the_name_that_python_knows(cpuinfo):
    found = this_machine()
    assert found.cpu == (platform.processor() or platform.machine())
    assert (found.cpu_cores, found.cpu_instructions) == (None, [])


@pytest.mark.parametrize("error", [AttributeError, ValueError, OSError])
def test_a_system_that_does_not_report_its_memory_has_none(cpuinfo, monkeypatch, error):
    """Windows has no sysconf, and other systems may lack these two names."""

    def sysconf(name):
        raise error(name)

    monkeypatch.setattr(os, "sysconf", sysconf)
    assert this_machine().memory_gb is None


def test_a_system_without_load_or_affinity_reports_no_load_and_the_number_of_its_processors(cpuinfo, monkeypatch):
    monkeypatch.delattr(os, "getloadavg")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert (this_machine().load_average, usable_threads()) == (None, 12)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_threads() == 1


def test_the_threads_of_this_process_are_counted_and_not_those_of_the_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert usable_threads() == 3


def test_settings_and_versions_are_those_that_are_there(cpuinfo, monkeypatch):
    def version(name):
        if name not in ("numpy", "openvino"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = this_machine()
    assert found.settings == {"OMP_NUM_THREADS": "3"}
    assert found.versions == {"numpy": "2.0", "openvino": "2.0"}


@pytest.mark.parametrize("error", [FileNotFoundError("nvidia-smi"), subprocess.TimeoutExpired("nvidia-smi", 30)])
def test_without_an_answer_of_nvidia_smi_no_gpu_is_listed(monkeypatch, error):
    def run(*arguments, **options):
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert nvidia_smi("name") == []


@pytest.mark.parametrize(
    ("lines", "mb"), [([], None), (["1000 MiB", "1100 MiB"], 2100.0), (["[N/A]"], None), ([""], None)]
)
def test_the_memory_of_all_gpus_is_added_up_if_each_of_them_reports_it(monkeypatch, lines, mb):
    monkeypatch.setattr(machine, "nvidia_smi", lambda *fields: lines)
    assert gpu_memory_in_use_mb() == mb
