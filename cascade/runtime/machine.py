"""Hardware and software of this machine: processor, memory, GPUs and package versions."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

READERS = ("cascade-mri", "numpy", "pillow", "h5py", "nibabel", "pydicom", "highdicom")
RUNTIMES = (
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "pycuda",
)
"""Packages whose versions are recorded if they are installed."""

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "bf16", "i8mm")
"""Instruction sets that determine the speed of convolutions, as /proc/cpuinfo spells them: x86, then Arm."""

THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Machine:
    """Description of a machine. A value is None if the machine does not report it.

    Attributes:
        cpu: Name of the processor.
        cpu_cores: Number of physical cores.
        cpu_threads: Number of threads that this process may use.
        cpu_instructions: Those of INSTRUCTIONS that the processor has.
        memory_gb: Size of the memory in 10^9 bytes.
        gpus: Name, driver version and memory of each GPU that nvidia-smi lists.
        os: Operating system.
        python: Version of Python.
        load_average: Average number of runnable processes over the last minute. More than 0.5 slow down measurements.
        settings: Environment variables that limit threads.
        versions: Versions of the installed packages.
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
    """Describe this machine. Runs nvidia-smi, which takes up to a second."""
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
    """Number of threads that this process may use, which a container or `taskset` may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nvidia_smi(*fields: str) -> list[str]:
    """Query nvidia-smi.

    Returns:
        One line for each GPU, its fields separated by ", ". Empty if nvidia-smi is missing or fails.
    """
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]


def gpu_memory_in_use_mb() -> float | None:
    """Memory in use by all processes on all GPUs together, in MiB; None without a GPU.

    Its growth is that of the GPU that is used, whose number nvidia-smi does not know.
    """
    lines = nvidia_smi("memory.used")
    try:
        return sum(float(line.split()[0]) for line in lines) if lines else None
    except (IndexError, ValueError):
        return None


def peak_host_mb() -> float | None:
    """Peak memory of this process in MiB, or None on Windows, which reports neither of the two sources."""
    try:  # on Linux; getrusage may include the memory of a parent process at the time of the fork
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _processors() -> list[dict[str, str]]:
    """Parse /proc/cpuinfo into one dictionary for each thread. Empty if the file does not exist."""
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
    """Version of each package in READERS and RUNTIMES that is installed."""
    versions = {}
    for name in (*READERS, *RUNTIMES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
