"""Peak performance of an NVIDIA GPU, measured with cuBLAS."""

import ctypes
import ctypes.util
import multiprocessing
import site
import time
from ctypes import c_float, c_int, c_size_t, c_void_p
from functools import partial
from pathlib import Path

import numpy as np

from cascade.benchmarking.roofline import Roofline
from cascade.errors import CascadeError
from cascade.runtime.gpu import cuda_version

MATRIX_SIZE = 8192
REPEATS = 10
ROUNDS = 3
TIMEOUT_S = 120

# cublas_api.h, library_types.h and driver_types.h
CUDA_R_16F, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT, CUBLAS_OP_N = 2, 68, -1, 0
HOST_TO_DEVICE, DEVICE_TO_DEVICE = 1, 3


def measure_gpu(device: int | None = None) -> Roofline:
    """Measure the peak performance of an NVIDIA GPU with cuBLAS, in FP16 with FP32 sums as in the engines.

    A separate process frees its memory and CUDA context before a backend is measured. cuBLAS is called through ctypes,
    since neither TensorRT nor pycuda offers a matrix product by itself.

    Args:
        device: Number of the GPU; None for the first.

    Raises:
        CascadeError: If there is no GPU or no cuBLAS, or a call fails.
    """
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # terminates the process in the end
            return pool.apply_async(_measure_gpu, [device or 0]).get(TIMEOUT_S)
    # No library, no GPU, a library without the function, or a process that died or hangs.
    except (OSError, RuntimeError, AttributeError, multiprocessing.TimeoutError) as error:
        cuda = (cuda_version() or "13").partition(".")[0]
        packages = [f"nvidia-{name}{'-cu12' if cuda == '12' else ''}" for name in ("cublas", "cuda-runtime")]
        raise CascadeError(
            f"cuBLAS cannot be measured: {str(error) or 'it does not respond'}",
            fix=f"install the toolkit of CUDA {cuda}, or pip install {' '.join(packages)}",
        ) from error


def _measure_gpu(device: int = 0) -> Roofline:
    cuda, cublas = _library("cudart"), _library("cublas")
    _check(cuda.cudaSetDevice(c_int(device)), "cudaSetDevice")
    size, nbytes = MATRIX_SIZE, 2 * MATRIX_SIZE**2
    host = np.random.default_rng(0).random((size, size), np.float32).astype(np.float16)  # zeros would use less power
    left, right, product, handle = (c_void_p() for _ in range(4))
    for pointer in (left, right, product):
        _check(cuda.cudaMalloc(ctypes.byref(pointer), c_size_t(nbytes)), "cudaMalloc")
        source = host.ctypes.data_as(c_void_p)
        _check(cuda.cudaMemcpy(pointer, source, c_size_t(nbytes), c_int(HOST_TO_DEVICE)), "cudaMemcpy")
    _check(cublas.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
    one, zero = ctypes.byref(c_float(1)), ctypes.byref(c_float(0))
    half, none, n = c_int(CUDA_R_16F), c_int(CUBLAS_OP_N), c_int(size)
    operands = (n, n, n, one, left, half, n, right, half, n, zero, product, half, n)
    algorithm = (c_int(CUBLAS_COMPUTE_32F), c_int(CUBLAS_GEMM_DEFAULT))
    multiply = partial(cublas.cublasGemmEx, handle, none, none, *operands, *algorithm)
    copy = partial(cuda.cudaMemcpyAsync, left, right, c_size_t(nbytes), c_int(DEVICE_TO_DEVICE), c_void_p())

    def seconds(operation: "partial[int]") -> float:
        """Seconds of one of REPEATS operations, which are enqueued at once after an untimed one."""
        _check(operation(), operation.func.__name__)
        _check(cuda.cudaDeviceSynchronize(), "cudaDeviceSynchronize")
        start = time.perf_counter()
        for _ in range(REPEATS):
            _check(operation(), operation.func.__name__)
        _check(cuda.cudaDeviceSynchronize(), "cudaDeviceSynchronize")
        return (time.perf_counter() - start) / REPEATS

    gflops = [round(2e-9 * size**3 / seconds(multiply), 1) for _ in range(ROUNDS)]
    gb_per_second = max(round(2e-9 * nbytes / seconds(copy), 1) for _ in range(ROUNDS))
    what = f"FP16 product of two {size} x {size} matrices, summed in FP32, cuBLAS"
    return Roofline(what, max(gflops), gflops, gb_per_second)


def _check(status: int, call: str) -> None:
    if status != 0:
        raise RuntimeError(f"{call} failed with status {status}")


def _library(name: str) -> ctypes.CDLL:
    """Load a CUDA library of the system or of NVIDIA's Python packages."""
    packaged = [path for folder in site.getsitepackages() for path in Path(folder).glob(f"nvidia/*/lib/lib{name}.so.*")]
    path = ctypes.util.find_library(name) or (str(packaged[0]) if packaged else None)
    if path is None:
        raise OSError(f"there is no lib{name}")
    return ctypes.CDLL(path)
