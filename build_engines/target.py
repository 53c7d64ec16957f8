"""What engines are built with and for: a TensorRT that is installed here, and GPUs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cascade.errors import CascadeError
from cascade.runtime.engines import FLAVORS, Gpu
from cascade.runtime.gpu import find_gpu
from cascade.runtime.tensorrt import import_tensorrt

EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "build"}
"""Of this package, by flavor: what has to be installed to build."""

ARCHS = ("sm86", "sm89", "sm120")
"""GeForce RTX 30, 40 and 50 and their professional sisters."""


@dataclass(frozen=True)
class Target:
    """module  tensorrt or tensorrt_rtx.  gpu  the one here, None without.  capabilities  to build for, as in "8.6"."""

    flavor: str
    module: Any
    gpu: Gpu | None
    capabilities: list[str]

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def is_here(self) -> bool:
        """Whether the GPU that is here can run the engines."""
        return self.gpu is not None and self.gpu.compute_capability in self.capabilities


def find_target(flavor: str, archs: Sequence[str] = ()) -> Target:
    """The GPU that is here for `tensorrt`, `archs` (as in "sm86"; ARCHS where there are none) for `tensorrt-rtx`.

    Raises CascadeError where it is not installed, there is no GPU to build on, or an architecture is unknown.
    """
    if flavor not in FLAVORS:
        raise CascadeError(f"there is no flavor {flavor!r}", fix=f"give --flavor {' or '.join(FLAVORS)}")
    if flavor == "tensorrt" and archs:
        raise CascadeError(
            "tensorrt builds for the GPU that is here, whatever its architecture",
            fix="leave --arch out, or give --flavor tensorrt-rtx",
        )
    module, gpu = import_tensorrt(flavor, EXTRAS[flavor]), find_gpu()
    if flavor == "tensorrt-rtx":
        return Target(flavor, module, gpu, compute_capabilities(module, archs or ARCHS))
    if gpu is None:
        raise CascadeError(
            "tensorrt builds an engine on the GPU that it is for, and there is none here",
            fix="run this where the GPU and NVIDIA's driver are, or build ahead of time with --flavor tensorrt-rtx",
        )
    return Target(flavor, module, gpu, [gpu.compute_capability])


def compute_capabilities(module: Any, archs: Sequence[str]) -> list[str]:
    """["sm86"] → ["8.6"], sorted. Raises CascadeError for one that this TensorRT-RTX does not know."""
    members = [name for name in module.ComputeCapability.__members__ if name.startswith("SM")]
    known = {name.lower(): f"{name[2:-1]}.{name[-1]}" for name in members}
    for arch in archs:
        if arch not in known:
            raise CascadeError(
                f"tensorrt-rtx cannot build for the architecture {arch!r}", fix=f"give --arch some of {','.join(known)}"
            )
    return sorted({known[arch] for arch in archs}, key=float)
