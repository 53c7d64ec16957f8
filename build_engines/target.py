"""The installed TensorRT and the GPUs to build engines for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cascade.errors import CascadeError
from cascade.runtime.engines import FLAVORS
from cascade.runtime.gpu import Gpu, find_gpu, select_gpu
from cascade.runtime.tensorrt import import_tensorrt

EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "build"}
"""Extra of this package that installs what a build needs, by flavor."""

ARCHS = ("sm86", "sm89", "sm120")
"""Default architectures: GeForce RTX 30, 40 and 50, and the professional GPUs of the same generations."""


@dataclass(frozen=True)
class Target:
    """What engines are built with and for.

    Attributes:
        flavor: `tensorrt` or `tensorrt-rtx`.
        module: Module tensorrt or tensorrt_rtx.
        gpu: GPU of this machine, or None.
        capabilities: Compute capabilities to build for, as in "8.6".
    """

    flavor: str
    module: Any
    gpu: Gpu | None
    capabilities: list[str]

    @property
    def version(self) -> str:
        """Version of the TensorRT package that builds the engines."""
        return str(self.module.__version__)

    @property
    def can_run_here(self) -> bool:
        """True if the GPU of this machine can run the engines."""
        return self.gpu is not None and self.gpu.compute_capability in self.capabilities


def find_target(flavor: str, archs: Sequence[str] = (), device: int | None = None) -> Target:
    """Find the installed TensorRT and determine the GPUs to build for.

    Args:
        flavor: `tensorrt` builds for the GPU of this machine, `tensorrt-rtx` ahead of time for `archs`.
        archs: Architectures as in "sm86"; empty for ARCHS.
        device: Number of the GPU of this machine; None for the first.

    Raises:
        CascadeError: If TensorRT is not installed, there is no such GPU, `tensorrt` has no GPU to build on, or an
            architecture is unknown.
    """
    if flavor not in FLAVORS:
        raise CascadeError(f"unknown flavor {flavor!r}", fix=f"choose --flavor {' or '.join(FLAVORS)}")
    if flavor == "tensorrt" and archs:
        raise CascadeError(
            "tensorrt builds for the GPU of this machine only", fix="omit --arch, or choose --flavor tensorrt-rtx"
        )
    module = import_tensorrt(flavor, EXTRAS[flavor])
    gpu = find_gpu() if device is None else select_gpu(device)
    if flavor == "tensorrt-rtx":
        return Target(flavor, module, gpu, compute_capabilities(module, archs or ARCHS))
    if gpu is None:
        raise CascadeError(
            "tensorrt must build an engine on the GPU that runs it, and this machine has no NVIDIA GPU",
            fix="build on the machine with the GPU, or build ahead of time with --flavor tensorrt-rtx",
        )
    return Target(flavor, module, gpu, [gpu.compute_capability])


def compute_capabilities(module: Any, archs: Sequence[str]) -> list[str]:
    """Convert architectures to sorted compute capabilities: ["sm86"] → ["8.6"].

    Raises:
        CascadeError: If the installed TensorRT-RTX does not support an architecture.
    """
    members = [name for name in module.ComputeCapability.__members__ if name.startswith("SM")]
    supported = {name.lower(): f"{name[2:-1]}.{name[-1]}" for name in members}
    for arch in archs:
        if arch not in supported:
            raise CascadeError(
                f"tensorrt-rtx cannot build for the architecture {arch!r}",
                fix=f"choose --arch from {','.join(supported)}",
            )
    return sorted({supported[arch] for arch in archs}, key=float)
