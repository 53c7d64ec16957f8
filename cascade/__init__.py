"""Find brain tumors in T1-weighted contrast-enhanced MRI slices and name them. For research only.

from cascade import Cascade

found = Cascade.open().predict("slice.png")  # or an array, a volume's slices with predict_volume
print(found.label, found.probabilities, found.mask.sum())
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade.errors import CascadeError
    from cascade.io.slices import Slice
    from cascade.pipeline import Cascade, Prediction
    from cascade.prediction.run import RunOptions, predict_paths

__version__ = "0.2.0"

__all__ = ["Cascade", "CascadeError", "Prediction", "RunOptions", "Slice", "predict_paths"]

_MODULES = {
    "Cascade": "pipeline",
    "CascadeError": "errors",
    "Prediction": "pipeline",
    "RunOptions": "prediction.run",
    "Slice": "io.slices",
    "predict_paths": "prediction.run",
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for: a command's --help shall not wait for NumPy."""
    if name not in _MODULES:
        raise AttributeError(f"module 'cascade' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"cascade.{_MODULES[name]}"), name)
