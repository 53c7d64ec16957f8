"""Segment and classify brain tumors in T1-weighted contrast-enhanced MRI slices. For research only.

Example:
    >>> from cascade import Cascade
    >>> prediction = Cascade.open().predict("slice.png")
    >>> prediction.label, prediction.probabilities, prediction.mask.sum()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade.errors import CascadeError
    from cascade.io.slices import Slice
    from cascade.pipeline import Cascade
    from cascade.prediction.run import predict_paths
    from cascade.prediction.run_options import RunOptions
    from cascade.prediction.run_result import RunResult
    from cascade.result import Prediction, VolumePrediction
    from cascade.volume.finding import VolumeFinding

__version__ = "0.2.0"

__all__ = [
    "Cascade",
    "CascadeError",
    "Prediction",
    "RunOptions",
    "RunResult",
    "Slice",
    "VolumeFinding",
    "VolumePrediction",
    "predict_paths",
]

_MODULES = {
    "Cascade": "pipeline",
    "CascadeError": "errors",
    "Prediction": "result",
    "RunOptions": "prediction.run_options",
    "RunResult": "prediction.run_result",
    "Slice": "io.slices",
    "VolumeFinding": "volume.finding",
    "VolumePrediction": "result",
    "predict_paths": "prediction.run",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `cascade --help` does not wait for NumPy."""
    if name not in _MODULES:
        raise AttributeError(f"module 'cascade' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"cascade.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
