"""All builders and runtimes of TensorRT use one logger."""

import pytest
import tiny_models

from build_engines.builder import build_engine
from build_engines.precision import load_engine
from cascade.errors import CascadeError
from cascade.runtime.sidecar import BatchProfile


def test_failed_builds_and_runtimes_share_one_logger(tensorrt, monkeypatch):
    """Each had its own. TensorRT kept that of a failed build, and used it after Python had freed it."""
    loggers = []
    for name in ("Builder", "Runtime"):
        create = getattr(tensorrt, name)
        monkeypatch.setattr(tensorrt, name, lambda logger, create=create: loggers.append(logger) or create(logger))
    for _ in range(2):
        with pytest.raises(CascadeError, match="is not fp16"):
            build_engine(tensorrt, tiny_models.segmenter().SerializeToString(), BatchProfile())
    with pytest.raises(CascadeError, match="cannot load the engine"):
        load_engine(tensorrt, b"not an engine" * 50)
    assert len(loggers) == 3
    assert len({id(logger) for logger in loggers}) == 1
