"""The first GPU visible to CUDA, queried from the driver without any CUDA package."""

import ctypes
import sys
from dataclasses import dataclass

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


@dataclass(frozen=True)
class Gpu:
    """Name and compute capability of a GPU, both as NVIDIA writes them: "NVIDIA GeForce RTX 3090", "8.6"."""

    name: str
    compute_capability: str


def find_gpu() -> Gpu | None:
    """Return the first GPU, or None without a driver or GPU. CUDA_VISIBLE_DEVICES selects which GPU is the first."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    device, name, major, minor = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    status = (  # each call returns 0 on success; `or` stops at the first failure
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    )
    if status:
        return None
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")
