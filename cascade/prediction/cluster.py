"""Connect to a Ray cluster, on this machine or on many, and start workers in it."""

import logging
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from cascade.errors import CascadeError
from cascade.prediction.ray_address import check_address
from cascade.prediction.ray_executor import CONTROL, SAME_EVERYWHERE, RayExecutor
from cascade.prediction.worker import ModelOptions, Worker
from cascade.runtime.engines import FLAVORS
from cascade.runtime.machine import usable_threads

LOCAL = "local"

MAX_TRIES = 3
"""How often Ray is started on this machine before the run is given up."""


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster to use, and what a worker takes of it.

    Attributes:
        address: "local" starts a cluster on this machine, "auto" uses the one that runs on it, HOST:PORT any other.
        gpus_per_worker: GPUs of a worker; 0 for workers that compute on the CPU.
        cpus_per_worker: CPUs of a worker, which is also the number of its threads.
    """

    address: str = LOCAL
    gpus_per_worker: int = 0
    cpus_per_worker: int = 1

    def __post_init__(self) -> None:
        if self.gpus_per_worker < 0 or self.cpus_per_worker < 1:
            raise CascadeError(
                f"a worker with {self.cpus_per_worker} CPUs and {self.gpus_per_worker} GPUs is invalid",
                fix="choose at least one CPU, and 0 or more GPUs",
            )


@contextmanager
def open_cluster(
    options: ClusterOptions, models: ModelOptions, worker_class: type[Worker] = Worker
) -> Iterator[RayExecutor]:
    """Connect to a cluster, start as many workers as it has room for, and wait until they have loaded the models.

    A cluster that is started here ends with the block; of another one, only the workers do.

    Args:
        options: The cluster.
        models: The models, in folders that exist on all machines.
        worker_class: What runs in each worker.

    Raises:
        CascadeError: There is no such cluster, it has no room for a worker, or driver and workers differ.
    """
    if models.backend in FLAVORS and not options.gpus_per_worker:
        raise CascadeError(f"--backend {models.backend} needs a GPU for each worker", fix="add --gpus-per-worker 1")
    _connect(options.address)
    try:
        count = _room(options)
        if not count:
            raise CascadeError(
                f"--cluster {options.address}: no machine has {_size(options)} free for a worker",
                fix="give the workers fewer CPUs or GPUs, or wait until the cluster is less busy",
            )
        threads = None if options.gpus_per_worker else options.cpus_per_worker
        models = replace(models, threads=threads, gpus=options.gpus_per_worker)
        actor_class = ray.remote(concurrency_groups={CONTROL: 1})(worker_class).options(
            num_cpus=options.cpus_per_worker, num_gpus=options.gpus_per_worker, scheduling_strategy="SPREAD"
        )
        with closing(RayExecutor(actor_class, count, models)) as executor:
            yield executor
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    """Connect to a cluster, or start one that sends no usage statistics."""
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    logging.getLogger("ray").setLevel(logging.ERROR)  # else it warns of its defaults on the terminal
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "600")  # else it ends us while tables are written
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address == LOCAL:
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            _start_cluster(quiet)
        else:
            check_address(address)
            ray.init(address, **quiet)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray's handler would end the run without its tables
    except CascadeError:
        raise
    except Exception as error:  # Ray also raises errors of this type itself
        if "AuthenticationError" in "".join(traceback.format_exception(error)):  # as its cause, or in its text
            raise CascadeError(
                f"--cluster {address}: the cluster wants a token that this machine or process does not give",
                fix="copy ~/.ray/auth_token from the head of the cluster to all machines, and set RAY_AUTH_MODE=token",
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CascadeError(
            f"--cluster {address}: cannot be used ({reason})",
            fix="start the command on a machine of the cluster, or use --cluster local; if the versions differ, "
            + SAME_EVERYWHERE,
        ) from error


def _start_cluster(options: dict[str, Any]) -> None:
    """Start a cluster on this machine. Ray gives up after 30 s, also if a busy machine is to blame: try again then."""
    for remaining in reversed(range(MAX_TRIES)):
        try:
            ray.init(
                LOCAL,
                num_cpus=usable_threads(),
                include_dashboard=False,
                object_store_memory=256 * 2**20,  # blocks are small; the default is a third of the memory
                _node_ip_address="127.0.0.1",
                **options,
            )
            return
        except Exception:
            if not remaining:
                raise
            ray.shutdown()


def _room(options: ClusterOptions) -> int:
    """Return how many workers the machines of the cluster have room for, beside what others run on them."""
    machines = available_resources_per_node().values()
    return sum(
        min(
            int(machine.get(resource, 0) // amount)
            for resource, amount in (("CPU", options.cpus_per_worker), ("GPU", options.gpus_per_worker))
            if amount
        )
        for machine in machines
    )


def _size(options: ClusterOptions) -> str:
    gpus = f" and {options.gpus_per_worker} GPUs" if options.gpus_per_worker else ""
    return f"{options.cpus_per_worker} CPUs{gpus}"
