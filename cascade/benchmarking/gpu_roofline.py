"""What an NVIDIA GPU can do at best, with cuBLAS: FP16 in and out, summed in FP32, as the engines compute.

Called through ctypes, for neither TensorRT nor pycuda multiplies matrices by itself. Runs in a process of its own, so
that its memory and its context are gone before a backend is measured.
"""

import ctypes
import ctypes.util
import multiprocessing
import site
import time
from ctypes import c_float, c_int, c_size_t, c_void_p
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from cascade.benchmarking.roofline import Limit
from cascade.errors import CascadeError

SIZE = 8192
REPEATS = 10
ROUNDS = 3
SECONDS_TO_ANSWER = 120

# cublas_api.h, library_types.h and driver_types.h
CUDA_R_16F, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT, CUBLAS_OP_N = 2, 68, -1, 0
HOST_TO_DEVICE, DEVICE_TO_DEVICE = 1, 3


def gpu_limit() -> Limit:
    """Raises CascadeError where there is no GPU or no cuBLAS, or where it fails."""
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True, name="benchmark GPU limit")
    process.start()
    theirs.close()
    try:
        answer = connection.recv() if connection.poll(SECONDS_TO_ANSWER) else "it did not answer"
    except EOFError:
        answer = "the process died"
    finally:
        process.kill()
        process.join()
    if not isinstance(answer, Limit):
        raise CascadeError(
            f"cuBLAS cannot be measured: {answer}", fix="install the CUDA toolkit, or pip install nvidia-cublas"
        )
    return answer


def _serve(connection: Connection) -> None:
    try:
        connection.send(_measure())
    except (OSError, RuntimeError, AttributeError) as error:  # no library, no GPU, or a library without the function
        connection.send(str(error))


def _measure() -> Limit:
    runtime, cublas = _library("cudart"), _library("cublas")
    nbytes = 2 * SIZE * SIZE
    host = np.random.default_rng(0).random((SIZE, SIZE), np.float32).astype(np.float16)  # zeros would cost less power
    left, right, product = (c_void_p() for _ in range(3))
    for pointer in (left, right, product):
        _check(runtime.cudaMalloc(ctypes.byref(pointer), c_size_t(nbytes)), "cudaMalloc")
        source = host.ctypes.data_as(c_void_p)
        _check(runtime.cudaMemcpy(pointer, source, c_size_t(nbytes), c_int(HOST_TO_DEVICE)), "cudaMemcpy")
    handle = c_void_p()
    _check(cublas.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
    one, zero = c_float(1), c_float(0)
    half, none, size = c_int(CUDA_R_16F), c_int(CUBLAS_OP_N), c_int(SIZE)
    multiply = partial(
        cublas.cublasGemmEx,
        *(handle, none, none, size, size, size),
        *(ctypes.byref(one), left, half, size, right, half, size),
        *(ctypes.byref(zero), product, half, size),
        *(c_int(CUBLAS_COMPUTE_32F), c_int(CUBLAS_GEMM_DEFAULT)),
    )
    copy = partial(runtime.cudaMemcpyAsync, left, right, c_size_t(nbytes), c_int(DEVICE_TO_DEVICE), c_void_p())
    gflops = [round(2e-9 * SIZE**3 / _seconds(runtime, multiply), 1) for _ in range(ROUNDS)]
    gb_per_second = [round(2e-9 * nbytes / _seconds(runtime, copy), 1) for _ in range(ROUNDS)]
    what = f"FP16 product of two {SIZE} x {SIZE} matrices, summed in FP32, cuBLAS"
    return Limit(what, max(gflops), gflops, max(gb_per_second))


def _seconds(runtime: ctypes.CDLL, start: "partial[int]") -> float:
    """Of one of REPEATS, after one untimed; the queue is filled at once, so the calls themselves cost nothing."""
    _check(start(), start.func.__name__)
    _check(runtime.cudaDeviceSynchronize(), "cudaDeviceSynchronize")
    began = time.perf_counter()
    for _ in range(REPEATS):
        _check(start(), start.func.__name__)
    _check(runtime.cudaDeviceSynchronize(), "cudaDeviceSynchronize")
    return (time.perf_counter() - began) / REPEATS


def _check(status: int, call: str) -> None:
    if status != 0:
        raise RuntimeError(f"{call} failed with status {status}")


def _library(name: str) -> ctypes.CDLL:
    """Of the system, or of NVIDIA's Python packages. Raises OSError where there is neither."""
    packaged = [path for folder in site.getsitepackages() for path in Path(folder).glob(f"nvidia/*/lib/lib{name}.so.*")]
    found = ctypes.util.find_library(name) or (str(packaged[0]) if packaged else None)
    if found is None:
        raise OSError(f"there is no lib{name}")
    return ctypes.CDLL(found)
