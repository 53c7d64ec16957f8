"""How many workers a run on a cluster has, and what they are given. No cluster is started."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from cascade.errors import CascadeError
from cascade.io.image import ImageSource
from cascade.prediction.blocks import BlockQueue
from cascade.prediction.executor import Job

pytest.importorskip("ray", reason="pip install 'cascade-mri[cluster]'")

from ray.exceptions import GetTimeoutError, RayError

from cascade.prediction import cluster, ray_executor
from cascade.prediction.cluster import ClusterOptions
from cascade.prediction.ray_executor import SAME_EVERYWHERE, RayExecutor, Slot
from cascade.prediction.worker import ModelOptions
from cascade.runtime.models import BUNDLED_MODELS


def ignore(argument):
    pass


class StubHead:
    """A head that always answers."""

    def check(self):
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


def test_there_are_as_many_workers_as_fit_beside_what_others_run(monkeypatch):
    """All CPUs of the machines counted. The run waited 10 minutes for workers that could not start, and failed."""
    free = {"busy": {"CPU": 3.0, "GPU": 1.0}, "full": {"memory": 1e9}, "idle": {"CPU": 8.0, "GPU": 4.0}}
    monkeypatch.setattr(cluster, "available_resources_per_node", lambda: free)
    assert cluster._room(ClusterOptions("auto", cpus_per_worker=2)) == 1 + 0 + 4
    assert cluster._room(ClusterOptions("auto", cpus_per_worker=3, gpus_per_worker=1)) == 1 + 0 + 2


def test_a_head_that_is_lost_while_workers_load_the_models_is_an_error(monkeypatch):
    """Nothing looked at it before the first block: the run was silent for 10 minutes, and blamed other runs."""

    def get(references, timeout):
        raise GetTimeoutError

    class LostHead:
        def check(self):
            raise CascadeError("the head is lost", fix="start it")

    monkeypatch.setattr(ray_executor.ray, "get", get)
    with pytest.raises(CascadeError, match="the head is lost"):
        ray_executor._get("reference", LostHead())


def test_workers_that_do_not_start_in_time_are_not_blamed_on_different_versions(monkeypatch):
    def get(references, timeout):
        raise GetTimeoutError

    monkeypatch.setattr(ray_executor.ray, "get", get)
    with pytest.raises(CascadeError, match="10 minutes") as raised:
        ray_executor._get("reference", StubHead())
    assert SAME_EVERYWHERE not in raised.value.fix


@pytest.mark.parametrize("is_lost", [False, True])
def test_workers_are_ended_unless_the_head_is_lost(monkeypatch, is_lost):
    """Without a head, the call that ends a worker does not return."""
    ended = []
    monkeypatch.setattr(ray_executor.ray, "kill", ended.append)
    executor = RayExecutor.__new__(RayExecutor)
    executor._slots, executor._head = [Slot("actor", opened=None)], SimpleNamespace(is_lost=is_lost)
    executor.close()
    assert ended == ([] if is_lost else ["actor"])


def test_a_worker_that_cannot_import_cascade_is_an_error_of_one_line(monkeypatch):
    """Eight lines of traceback with the colors of a terminal were the message."""
    text = (
        "The actor died because of an error raised in its creation task, \x1b[36mray::Worker.__init__()\x1b[39m\n"
        "RuntimeError: The actor with name Worker failed to import on the worker.\n\n"
        '  File "/venv/cascade/__init__.py", line 1, in <module>\n'
        "ModuleNotFoundError: No module named 'cascade'"
    )

    def get(references, timeout):
        raise RayError(text)

    monkeypatch.setattr(ray_executor.ray, "get", get)
    with pytest.raises(CascadeError) as raised:
        ray_executor._get("reference", StubHead())
    assert raised.value.problem == "a worker does not start (ModuleNotFoundError: No module named 'cascade')"


def test_a_worker_that_dies_without_an_exception_has_the_first_line_of_rays_message():
    assert ray_executor._reason(RayError("The actor died unexpectedly.\n\tclass_name: Worker")) == (
        "The actor died unexpectedly."
    )


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_backend_for_gpus_needs_a_gpu_for_each_worker(backend):
    models = ModelOptions(BUNDLED_MODELS, backend)
    with pytest.raises(CascadeError, match=backend) as raised, cluster.open_cluster(ClusterOptions("local"), models):
        pass
    assert "--gpus-per-worker" in raised.value.fix


@pytest.mark.parametrize("options", [{"cpus_per_worker": 0}, {"gpus_per_worker": -1}])
def test_a_worker_of_no_cpu_or_fewer_than_no_gpus_is_refused_with_the_least_that_is_possible(options):
    with pytest.raises(CascadeError, match="is invalid") as raised:
        ClusterOptions("local", **options)
    assert "one CPU" in raised.value.fix
    assert "0 or more GPUs" in raised.value.fix
