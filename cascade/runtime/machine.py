"""The machine: processor, memory, GPUs and the versions of the packages that matter, as far as it tells."""

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    *("cascade", "numpy", "pillow", "h5py", "nibabel", "pydicom", "highdicom"),
    *("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx-cu13", "pycuda"),
)
"""Whose versions are told, where they are installed: what reads slices, and what runs models."""

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "bf16", "i8mm")
"""Those that decide how fast convolutions go, by their names in /proc/cpuinfo: x86, then Arm."""

THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Machine:
    """None where the machine does not tell.

    cpu_cores      physical.
    cpu_threads    that this process may run on.
    memory_gb      of 10^9 bytes.
    gpus           name, driver and memory of each, as nvidia-smi tells; empty without one.
    load_average   processes that wanted to run, over the minute before the start: more than 0.5 slow what is measured.
    settings       environment variables that limit threads, where they are set.
    versions       of the packages that are installed.
    """

    cpu: str
    cpu_cores: int | None
    cpu_threads: int
    cpu_instructions: list[str]
    memory_gb: float | None
    gpus: list[str]
    os: str
    python: str
    load_average: float | None
    settings: dict[str, str]
    versions: dict[str, str]


def this_machine() -> Machine:
    """Takes a moment where there is a GPU."""
    processors = _processors()
    first = processors[0] if processors else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    return Machine(
        cpu=first.get("model name") or platform.processor() or platform.machine(),
        cpu_cores=len({(item["physical id"], item["core id"]) for item in processors if "core id" in item}) or None,
        cpu_threads=usable_threads(),
        cpu_instructions=[name for name in INSTRUCTIONS if name in flags],
        memory_gb=_memory_gb(),
        gpus=nvidia_smi("name", "driver_version", "memory.total"),
        os=platform.platform(),
        python=platform.python_version(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        settings={name: os.environ[name] for name in THREAD_SETTINGS if name in os.environ},
        versions=installed_versions(),
    )


def usable_threads() -> int:
    """What a container or `taskset` leaves of the processor."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nvidia_smi(*fields: str) -> list[str]:
    """A line for each GPU, its fields separated by ", "; empty where nvidia-smi is missing or fails."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()]


def gpu_memory_in_use_mb() -> float | None:
    """In MiB, by all programs, of the first GPU; None without one."""
    lines = nvidia_smi("memory.used")
    try:
        return float(lines[0].split()[0])
    except (IndexError, ValueError):
        return None


def _processors() -> list[dict[str, str]]:
    """/proc/cpuinfo, a dict for each thread; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    blocks = (block.splitlines() for block in text.strip().split("\n\n"))
    return [
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block)} for block in blocks
    ]


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def installed_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
