"""Compile pycuda without the CUDA toolkit, and without a driver or GPU.

There are no wheels of pycuda. Its source needs two headers of CUDA, which NVIDIA publishes as small wheels, and the
driver's library, for which a stub of the same name stands in. Only a C++ compiler must be installed.
"""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError

PYCUDA = "pycuda>=2024.1"

HEADERS = {
    12: ("nvidia-cuda-runtime-cu12", "nvidia-cuda-profiler-api-cu12"),
    13: ("nvidia-cuda-runtime", "nvidia-cuda-profiler-api"),
}
"""Packages with cuda.h and cudaProfiler.h, by major version of CUDA."""

LIBRARY = "libcuda.so.1"
"""The driver's library, as the loader knows it."""

COMPILER_FLAGS = ["-O1", "-g0", "-w"]
"""pycuda only hands calls on to the driver. Higher levels take longer to compile and make nothing faster."""


def build_pycuda(cuda: int, folder: Path) -> Path:
    """Build a wheel of pycuda for this Python, in two to three minutes on two cores.

    Args:
        cuda: Major version of CUDA. The wheel works with all drivers that support it.
        folder: Folder for the wheel.

    Returns:
        The wheel.

    Raises:
        CascadeError: If the compiler or Python's headers are missing, or pip or the compiler fails.
    """
    check_compiler()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pycuda-") as scratch:
        headers, library, source = (Path(scratch) / name for name in ("headers", "lib", "source"))
        _install_headers(cuda, headers)
        _make_stub(library)
        _write_settings(_download_source(source), headers, library)
        run_pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    return max(folder.glob("pycuda-*.whl"), key=lambda path: path.stat().st_mtime)


def check_compiler() -> None:
    """Check that C++ extensions of this Python can be compiled.

    Raises:
        CascadeError: If the compiler or Python's headers are missing.
    """
    if not shutil.which("c++"):
        raise CascadeError("pycuda is compiled, and there is no C++ compiler", fix="apt-get install g++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        package = "python{}.{}-dev".format(*sys.version_info)
        raise CascadeError(f"{header}: there is no such file", fix=f"apt-get install {package}")


def run_pip(*arguments: str) -> None:
    """Run pip for this Python, and show what it prints only if it fails.

    Raises:
        CascadeError: If it fails.
    """
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        problem = "\n".join(result.stdout.splitlines()[-30:])
        raise CascadeError(f"pip {' '.join(arguments)} failed\n{problem}", fix="read the last lines of pip's output")


def _install_headers(cuda: int, folder: Path) -> None:
    """Install the headers of the oldest version, since newer ones may ask for functions that a driver does not have."""
    run_pip("install", "--no-deps", "--target", str(folder), *(f"{name}=={cuda}.0.*" for name in HEADERS[cuda]))


def _make_stub(folder: Path) -> None:
    """Make a libcuda.so for the linker; the loader takes the driver's own.

    One function is enough. Without any, the linker would not record that pycuda needs the library.
    """
    folder.mkdir()
    source = folder / "stub.cpp"
    source.write_text('extern "C" int cuInit(unsigned) { return 0; }\n')
    command = ["c++", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", "-o", str(folder / "libcuda.so"), str(source)]
    subprocess.run(command, check=True)


def _download_source(folder: Path) -> Path:
    """Download the source of pycuda and unpack it into a folder."""
    run_pip("download", "--no-deps", "--no-binary", "pycuda", "--dest", str(folder.parent), PYCUDA)
    (archive,) = folder.parent.glob("pycuda-*.tar.gz")
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
    with tarfile.open(archive) as file:
        file.extractall(folder.parent, **options)
    return (folder.parent / archive.name.removesuffix(".tar.gz")).rename(folder)


def _write_settings(source: Path, headers: Path, library: Path) -> None:
    """Write the settings that pycuda's set-up reads.

    cuRAND is left out: its library has 77 MB, and would have to be found whenever pycuda is imported.
    """
    settings = {
        "CUDA_INC_DIR": [str(path) for path in sorted(headers.glob("nvidia/*/include"))],
        "CUDADRV_LIB_DIR": [str(library)],
        "CUDA_ENABLE_CURAND": False,
        "CXXFLAGS": COMPILER_FLAGS,
    }
    (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
