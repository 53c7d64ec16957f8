"""Kernels that TensorRT-RTX compiled for a GPU, in a file beside the engine. Does not need TensorRT.

TensorRT-RTX compiles the kernels of an engine on the GPU that runs it, at each start unless it finds them here. Kernels
are executable code, like the engine. So a file is used only if it belongs to the engine, the TensorRT version and the
GPU, and if its content has the recorded hash. Otherwise it is ignored, and replaced after the next batch.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from cascade.errors import CascadeError
from cascade.files import sha256_of_bytes, write_atomically
from cascade.runtime.gpu import Gpu

FORMAT = 1
"""Version of the file format: one line of JSON, then the kernels as TensorRT-RTX serialized them."""


@dataclass(frozen=True)
class KernelKey:
    """What the kernels belong to.

    Attributes:
        engine_sha256: Hash of the engine's bytes.
        tensorrt_version: Version of TensorRT-RTX that compiled them.
        gpu: Name of the GPU.
        compute_capability: Of this GPU, as in "8.6".
    """

    engine_sha256: str
    tensorrt_version: str
    gpu: str
    compute_capability: str


@dataclass(frozen=True)
class KernelCache:
    """The file of an engine's kernels.

    Attributes:
        path: The file. Each GPU model has its own, since computers with different GPUs may share the folder.
        key: What its content must belong to.
    """

    path: Path
    key: KernelKey

    def read(self) -> bytes:
        """Return the kernels; empty if there are none for this key, or if the file is damaged or unreadable."""
        try:
            header, _, kernels = self.path.read_bytes().partition(b"\n")
            fits = json.loads(header) == self._header(kernels)
        except (OSError, ValueError):
            return b""
        return kernels if fits else b""

    def write(self, kernels: bytes) -> bool:
        """Replace the file. Returns False if the folder cannot be written, which costs time at the next start only."""
        header = json.dumps(self._header(kernels)).encode()
        try:
            write_atomically(self.path, header + b"\n" + kernels)
        except CascadeError:
            return False
        return True

    def _header(self, kernels: bytes) -> dict[str, object]:
        return {"format": FORMAT, **asdict(self.key), "sha256": sha256_of_bytes(kernels)}


def kernel_cache(engine: Path, engine_sha256: str, tensorrt_version: str, gpu: Gpu) -> KernelCache:
    """Return the file for the kernels of an engine on a GPU: segmenter.tensorrt-rtx.nvidia-rtx-a4000.kernels."""
    gpu_name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    key = KernelKey(engine_sha256, tensorrt_version, gpu.name, gpu.compute_capability)
    return KernelCache(engine.with_suffix(f".{gpu_name}.kernels"), key)
