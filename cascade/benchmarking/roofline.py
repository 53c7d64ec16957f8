"""What the machine can do at best: a large matrix product for its arithmetic, a large copy for its memory.

The product is what convolutions come down to, at a size at which nothing else counts; a backend's share of it says how
much there is left to win.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cascade.runtime.machine import usable_threads

PRODUCT_SIZE = 4096
COPY_MB = 256


@dataclass(frozen=True)
class Limit:
    """Measured in the same run as what is held against it.

    what              was multiplied, and by what: it names the precision.
    gflops            10^9 floating point operations a second, the best round.
    gflops_by_round   tell a machine that drifts.
    gb_per_second     10^9 bytes a second, read and written, the best round.
    """

    what: str
    gflops: float
    gflops_by_round: list[float]
    gb_per_second: float


class CpuLimit:
    """`measure` once a round, then `best`. Uses all cores."""

    def __init__(self, size: int = PRODUCT_SIZE, copy_mb: int = COPY_MB) -> None:
        random = np.random.default_rng(0)
        self._left, self._right = (random.random((size, size), np.float32) for _ in range(2))
        self._product = np.empty((size, size), np.float32)
        self._source = np.ones(copy_mb * 2**18, np.float32)
        self._target = np.zeros_like(self._source)
        self._gflops: list[float] = []
        self._gb_per_second: list[float] = []

    def measure(self) -> None:
        """One product untimed, for the cores to wake up."""
        np.matmul(self._left, self._right, out=self._product)
        began = time.perf_counter()
        np.matmul(self._left, self._right, out=self._product)
        self._gflops.append(round(2e-9 * len(self._left) ** 3 / (time.perf_counter() - began), 1))
        threads = usable_threads()
        parts = zip(np.array_split(self._target, threads), np.array_split(self._source, threads), strict=True)
        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(*pair), parts))  # without Python's lock
            seconds = time.perf_counter() - began
        self._gb_per_second.append(round(2e-9 * self._source.nbytes / seconds, 1))

    def best(self) -> Limit:
        size = len(self._left)
        what = f"FP32 product of two {size} x {size} matrices, NumPy {np.__version__}"
        return Limit(what, max(self._gflops), self._gflops, max(self._gb_per_second))
