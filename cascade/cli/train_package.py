"""The package `train` beside cascade, which the commands `cascade train ...` import when they run."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cascade.errors import CascadeError


@contextmanager
def train_packages() -> Iterator[None]:
    """Import the package `train` and torch inside this block.

    Raises:
        CascadeError: A package that training needs is not installed, or another module hides `train`.
    """
    _check_train_package()
    try:
        yield
    except ModuleNotFoundError as error:
        raise CascadeError(
            f"training needs the package {error.name}, which is not installed", fix="pip install 'cascade-mri[train]'"
        ) from error


def _check_train_package() -> None:
    """Check, without importing it, that `train` is the package installed with cascade.

    Raises:
        CascadeError: Another module named `train` comes first on the module search path.
    """
    spec = importlib.util.find_spec("train")
    if spec is None:
        return  # importing it will report the reason
    installed = Path(__file__).resolve().parents[2] / "train"
    if installed not in [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]:
        raise CascadeError(
            f"{spec.origin or 'train'}: is not part of cascade, but hides its package `train`",
            fix="rename it, or remove its folder from PYTHONPATH",
        )
