"""The GPUs visible to CUDA, queried from the driver without any CUDA package.

CUDA numbers the visible GPUs from 0. CUDA_VISIBLE_DEVICES selects and orders them, so a number here may differ from the
one that nvidia-smi prints.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cascade.errors import CascadeError

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: As NVIDIA writes it: "NVIDIA GeForce RTX 3090".
        compute_capability: As NVIDIA writes it: "8.6".
        number: Its number among the visible GPUs, from 0.
        memory_mb: Size of its memory in MiB; None if the driver does not report it.
    """

    name: str
    compute_capability: str
    number: int = 0
    memory_mb: int | None = None


def find_gpus() -> list[Gpu]:
    """List the visible GPUs in the order of their numbers. Empty without a driver or GPU."""
    cuda, count = _driver(), ctypes.c_int()
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [gpu for number in range(count.value) if (gpu := _describe(cuda, number))]


def find_gpu(device: int = 0) -> Gpu | None:
    """Return a visible GPU by its number, or None if no GPU has this number."""
    return next((gpu for gpu in find_gpus() if gpu.number == device), None)


def select_gpu(device: int | None = None) -> Gpu:
    """Return a visible GPU by its number, or the first one.

    Raises:
        CascadeError: If there is no such GPU.
    """
    gpus = find_gpus()
    for gpu in gpus:
        if gpu.number == (device or 0):
            return gpu
    if not gpus:
        fix = "use the backend onnxruntime or openvino" if device is None else "omit --device, which chooses a GPU"
        raise CascadeError(_without_gpu(), fix=fix)
    listed = ", ".join(f"{gpu.number} ({gpu.name})" for gpu in gpus)
    visible = f", in the order of {VISIBLE}={os.environ[VISIBLE]}" if VISIBLE in os.environ else ""
    raise CascadeError(f"--device {device}: there is no such GPU", fix=f"choose one of {listed}{visible}")


def _without_gpu() -> str:
    hidden = f", or {VISIBLE}={os.environ[VISIBLE]} hides it" if VISIBLE in os.environ else ""
    return f"there is no usable NVIDIA GPU{hidden}"


def cuda_version() -> str | None:
    """Newest version of CUDA that the driver supports, as in "13.0", or None without a driver."""
    cuda, version = _driver(), ctypes.c_int()
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


@contextmanager
def current_gpu(gpu: Gpu | None) -> Iterator[None]:
    """Let libraries that use the current GPU of the thread, such as TensorRT's builder, use this one in the block.

    The first GPU is the current one by default, so nothing is done for it.

    Raises:
        CascadeError: If the GPU cannot be used, for example because another process has it for itself.
    """
    if gpu is None or gpu.number == 0 or (cuda := _driver()) is None:
        yield
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    status = (
        cuda.cuDeviceGet(ctypes.byref(device), gpu.number)
        or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        or cuda.cuCtxPushCurrent_v2(context)
    )
    if status:
        raise CascadeError(
            f"--device {gpu.number}: the {gpu.name} cannot be used (CUDA error {status})", fix="choose another GPU"
        )
    try:
        yield
    finally:
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
        cuda.cuDevicePrimaryCtxRelease_v2(device)


def _driver() -> ctypes.CDLL | None:
    """Return the driver's library, ready for use, or None without a driver or GPU."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    return None if cuda.cuInit(0) else cuda


def _describe(cuda: ctypes.CDLL, number: int) -> Gpu | None:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    status = (  # each call returns 0 on success; `or` stops at the first failure
        cuda.cuDeviceGet(ctypes.byref(device), number)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    )
    if status:
        return None
    has_memory = not cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(
        name.value.decode(errors="replace"),
        f"{major.value}.{minor.value}",
        number,
        memory.value // 2**20 if has_memory else None,
    )
