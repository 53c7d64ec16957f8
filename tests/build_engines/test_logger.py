"""All builds of a process use one TensorRT logger."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models

from build_engines.builder import build_engine
from build_engines.precision import load_engine
from cascade.errors import CascadeError
from cascade.runtime.sidecar import BatchProfile

ROOT = Path(__file__).parents[2]
REPORT_AN_ERROR_AFTER_TWO_FAILED_BUILDS = """
import gc
import tensorrt_rtx
import tiny_models
from build_engines.builder import build_engine
from cascade.errors import CascadeError
from cascade.runtime.sidecar import BatchProfile

failed = []
for _ in range(2):
    try:
        build_engine(tensorrt_rtx, tiny_models.segmenter().SerializeToString(), BatchProfile())
    except CascadeError as error:
        failed.append(error)  # its traceback keeps the builder
del failed[0]
gc.collect()
reused = [bytearray(size) for size in range(16, 4096)]  # the memory of what was freed
tensorrt_rtx.get_plugin_registry().load_library("missing.so")
"""


def test_failed_builds_and_runtimes_share_one_logger(tensorrt, monkeypatch):
    loggers = []
    for name in ("Builder", "Runtime"):
        create = getattr(tensorrt, name)
        monkeypatch.setattr(tensorrt, name, lambda logger, create=create: loggers.append(logger) or create(logger))
    for _ in range(2):
        with pytest.raises(CascadeError, match="is not fp16"):
            build_engine(tensorrt, tiny_models.segmenter().SerializeToString(), BatchProfile())
    with pytest.raises(CascadeError, match="cannot load the engine") as raised:
        load_engine(tensorrt, b"not an engine" * 50)
    assert "CUDA_VISIBLE_DEVICES= cascade build" in raised.value.fix  # it is built without a GPU just as well
    assert len(loggers) == 3
    assert len({id(logger) for logger in loggers}) == 1


def test_tensorrt_can_report_an_error_after_a_failed_build(tensorrt):
    """Each build had its own logger. TensorRT kept the first, called it after Python had freed it, and crashed."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", REPORT_AN_ERROR_AFTER_TWO_FAILED_BUILDS]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
