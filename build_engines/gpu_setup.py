"""Set up a machine with an NVIDIA GPU: TensorRT, pycuda, the engines, and a first prediction with them.

    python -m build_engines.gpu_setup               all steps, for the GPU of this machine
    python -m build_engines.gpu_setup pycuda        one step: pycuda, tensorrt, tensorrt-rtx, engines or predict

The steps install into the environment of the Python that runs them, in which cascade is installed. Neither the CUDA
toolkit nor root is needed. The steps pycuda, tensorrt-rtx and engines need neither a driver nor a GPU. `make gpu`,
`make gpu-check` and the image of .docker/Dockerfile use this script.
"""

import argparse
import importlib
import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from build_engines.pycuda_wheel import HEADERS, build_pycuda, run_pip
from cascade.errors import CascadeError
from cascade.runtime.engines import FLAVORS, RTX_CAPABILITIES
from cascade.runtime.gpu import Gpu, cuda_version, find_gpus

STEPS = ("pycuda", *FLAVORS, "engines", "predict")

PREPARE = "python -m build_engines.gpu_setup pycuda tensorrt-rtx engines"
"""What needs neither a driver nor a GPU."""

MIN_VERSION = {"tensorrt": "10.12", "tensorrt-rtx": "1.3"}

MIN_CUDA = (12, 2)
"""CUDA of the oldest driver that TensorRT supports, 535."""

SAMPLES = Path(__file__).parents[1] / "samples"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"{', '.join(STEPS)}; default: what the GPU needs")
    parser.add_argument("--flavor", choices=FLAVORS, help="default: tensorrt-rtx if it supports the GPU")
    parser.add_argument("--cuda", type=int, choices=HEADERS, help="major version of CUDA; default: that of the driver")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the prediction")
    options = parser.parse_args(arguments)
    try:
        if unknown := set(options.steps) - set(STEPS):
            raise CascadeError(f"unknown step {', '.join(sorted(unknown))}", fix=f"choose from {', '.join(STEPS)}")
        gpus = find_gpus()
        if not gpus and not options.steps:
            raise CascadeError(
                "there is no usable NVIDIA GPU on this machine",
                fix=f"install its driver; to prepare an image, name the steps: {PREPARE}",
            )
        named = set(options.steps) & set(FLAVORS)
        flavor = options.flavor or (named.pop() if len(named) == 1 else flavor_for(gpus))
        cuda = options.cuda or cuda_major(cuda_version())
        for step in options.steps or default_steps(flavor):
            print(f"{step} ...", file=sys.stderr, flush=True)
            run_step(step, flavor, cuda, gpus, options.out)
    except CascadeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def default_steps(flavor: str) -> list[str]:
    """Return all steps that a machine with a GPU needs. A prediction needs the samples, which only a checkout has."""
    return ["pycuda", flavor, "engines", *(["predict"] if SAMPLES.is_dir() else [])]


def flavor_for(gpus: Sequence[Gpu]) -> str:
    """Return the flavor of TensorRT for the GPUs. TensorRT-RTX is smaller, and builds for several GPUs and without one.

    The first GPU decides, since it is the one that is used by default.
    """
    return "tensorrt" if gpus and gpus[0].compute_capability not in RTX_CAPABILITIES else "tensorrt-rtx"


def cuda_major(driver: str | None) -> int:
    """Return the major version of CUDA for a driver, given the newest version that the driver supports.

    Raises:
        CascadeError: If the driver is too old.
    """
    newest = max(HEADERS)
    version = tuple(map(int, driver.split("."))) if driver else (newest, 0)
    if version < MIN_CUDA:
        raise CascadeError(f"the GPU driver supports CUDA {driver} only", fix="install driver 535 or newer")
    return min(version[0], newest)


def run_step(step: str, flavor: str, cuda: int, gpus: Sequence[Gpu], out: Path) -> None:
    """Run one of STEPS.

    Raises:
        CascadeError: If it fails.
    """
    if step == "pycuda":
        install_pycuda(cuda)
    elif step in FLAVORS:
        install_tensorrt(step, cuda)
    elif step == "engines":
        capabilities = sorted({gpu.compute_capability for gpu in gpus} & set(RTX_CAPABILITIES), key=float)
        archs = ",".join(f"sm{capability.replace('.', '')}" for capability in capabilities)
        _run_cascade("build", "--flavor", flavor, *(["--arch", archs] if archs and flavor == "tensorrt-rtx" else []))
    else:
        _run_cascade("predict", str(SAMPLES), "--backend", flavor, "--out", str(out), "--overwrite")


def install_pycuda(cuda: int) -> None:
    """Compile and install pycuda, unless it can be imported already.

    Raises:
        CascadeError: If it cannot be compiled or installed.
    """
    try:
        importlib.import_module("pycuda.driver")
    except (ImportError, OSError):  # missing, or compiled for another machine
        with tempfile.TemporaryDirectory() as folder:
            wheel = build_pycuda(cuda, Path(folder))
            run_pip("install", str(wheel))
            run_pip("install", "--no-deps", "--force-reinstall", str(wheel))  # over one of the same version


def install_tensorrt(flavor: str, cuda: int) -> None:
    """Install TensorRT for a major version of CUDA.

    Packages for another version consist of the same files. Where one was installed, the package for this version may
    be there with files of the other one, and would lose them with it. So both are removed first.

    Raises:
        CascadeError: If pip fails.
    """
    packages = {major: [f"{flavor}-cu{major}{part}" for part in ("", "-bindings", "-libs")] for major in HEADERS}
    if any(_is_installed(name) for major, names in packages.items() if major != cuda for name in names):
        run_pip("uninstall", "--yes", *chain.from_iterable(packages.values()))
    run_pip("install", "onnx>=1.17", f"{flavor}-cu{cuda}>={MIN_VERSION[flavor]}")


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _run_cascade(*arguments: str) -> None:
    if code := subprocess.run([sys.executable, "-m", "cascade", *arguments]).returncode:
        raise CascadeError(f"cascade {arguments[0]} failed with exit code {code}", fix="see the message above")


if __name__ == "__main__":
    sys.exit(main())
