"""What the executor of a cluster hands out to its workers. No cluster is started."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from cascade.io.image import ImageSource
from cascade.prediction.blocks import BlockQueue
from cascade.prediction.executor import Job

pytest.importorskip("ray", reason="pip install 'cascade-mri[cluster]'")

from cascade.prediction.ray_executor import RayExecutor, Slot


def ignore(argument):
    pass


class StubActor:
    """A worker that finishes nothing."""

    def __init__(self):
        self.predict = SimpleNamespace(remote=lambda sources, folder, batch_size: object())


def hand_out_again(ready, other):
    """Let an input fail on a worker, and hand out what is in the queue then."""
    queue = BlockQueue([ImageSource("a.png", Path("/scans/a.png"))], 8, 2)
    block = queue.take(ready)
    assert queue.retry(block, block.sources, ready)
    executor = RayExecutor.__new__(RayExecutor)
    executor._slots = [ready, other]
    executor._hand_out(queue, Job(SimpleNamespace(), 8, ignore, ignore, ignore, threading.Event()))


def test_an_input_that_fails_while_the_only_other_worker_is_replaced_is_tried_again_at_once():
    """Its worker did not count as the last. Where there was no room for another one, the run never ended."""
    ready, pending = Slot(StubActor(), opened=None), Slot(StubActor(), opened="reference")
    hand_out_again(ready, pending)
    assert len(ready.blocks) == 1


def test_an_input_that_fails_waits_for_another_worker_that_is_busy():
    ready, busy = Slot(StubActor(), opened=None), Slot(StubActor(), opened=None)
    busy.blocks = {"reference": SimpleNamespace(alone=True)}
    hand_out_again(ready, busy)
    assert not ready.blocks
