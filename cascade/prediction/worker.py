"""What runs in each process of a cluster: the models, on blocks of inputs."""

import os
import platform
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cascade import __version__
from cascade.discovery.store import open_url, store_errors
from cascade.errors import CascadeError
from cascade.io.source import Source
from cascade.pipeline import Cascade
from cascade.prediction.batch import InProcess
from cascade.prediction.executor import Job
from cascade.prediction.failures import failed_source
from cascade.prediction.fetched import fetched
from cascade.prediction.journal import JournalLine, journal_line
from cascade.prediction.output_dir import ACCESS_PREFIX
from cascade.prediction.results import ResultsFolder
from cascade.runtime.gpu import VISIBLE
from cascade.runtime.models import CLASSIFIER, SEGMENTER, find_model
from cascade.volume.finding import VolumeRule


@dataclass(frozen=True)
class ModelOptions:
    """Arguments of `Cascade.open` on each worker, and the number of GPUs that Ray assigns to the worker."""

    models: Path
    backend: str
    engines: Path | None = None
    threads: int | None = None
    gpus: int = 0


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker has loaded.

    Attributes:
        models: Model name → SHA-256 of its ONNX graph.
        description: Description of the backend.
        uncertain_below: A class with a lower probability is marked as uncertain.
        volume_rule: When a component of a volume is a tumor.
        skipped_backends: Faster backends that cannot be used: name → reason.
        version: Version of cascade.
        host: Name of the machine.
        pid: Number of the process on this machine.
    """

    models: dict[str, str]
    description: str
    uncertain_below: float
    volume_rule: VolumeRule
    skipped_backends: dict[str, str]
    version: str = __version__
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)


class Worker:
    """Runs the models in a process of a cluster. One call at a time, except for `stop`."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def open(self, options: ModelOptions) -> WorkerInfo:
        """Load the models.

        A worker with a GPU uses it. One without a GPU sees none, so that it does not use that of another worker.

        Raises:
            CascadeError: The models cannot be loaded, or not on the GPU of the worker.
        """
        if not options.gpus:
            os.environ[VISIBLE] = ""  # Ray leaves it as it is on the machine
        self._executor = InProcess(_open_cascade(options), options.threads)
        executor = self._executor
        return WorkerInfo(
            executor.models,
            executor.description,
            executor.uncertain_below,
            executor.volume_rule,
            executor.skipped_backends,
        )

    def check_access(self, paths: Sequence[Path | str]) -> None:
        """Check that paths exist on this machine, and that it can read URLs.

        Raises:
            CascadeError: One does not, or it cannot.
        """
        for path in paths:
            if not (path.exists() if isinstance(path, Path) else _url_exists(path)):
                folder, is_access_file, _ = str(path).rpartition(f"/{ACCESS_PREFIX}")
                problem = f"{folder}: is missing or another folder" if is_access_file else f"{path}: does not exist"
                raise CascadeError(
                    f"{problem} on {platform.node()}, where a worker runs",
                    fix="put the inputs, --out and, with a URL as --out, the folder for temporary files (TMPDIR) on "
                    "storage that all machines mount at the same path",
                )

    def predict(self, sources: Sequence[Source], folder: ResultsFolder, batch_size: int) -> list[JournalLine]:
        """Predict all slices of the sources, and write masks and overlays.

        Returns:
            The finished inputs: all of them unless the worker was stopped.

        Raises:
            CascadeError: The models computed NaN.
        """
        lines: list[JournalLine] = []
        if self._stop.is_set():
            return lines
        with fetched(sources, folder.store) as problems:
            for source in sources:
                if source.name in problems:
                    lines.append(journal_line(failed_source(folder, source, problems[source.name])))
            there = [source for source in sources if source.name not in problems]
            self._executor.run(there, Job(folder, batch_size, _ignore, lines.extend, _ignore, self._stop))
        return lines

    def stop(self) -> None:
        """Let `predict` return after the current batch. May be called while it runs."""
        self._stop.set()


def _open_cascade(options: ModelOptions) -> Cascade:
    """Load the models. With a GPU, nothing else than the GPU will do: `auto` would take the CPU without a word."""
    device = 0 if options.gpus else None  # Ray shows a worker its own GPUs only
    try:
        return Cascade.open(options.models, options.backend, options.engines, options.threads, device)
    except CascadeError as error:
        if device is None:
            raise
        problem, fix = (
            text.replace("--device 0", f"--gpus-per-worker {options.gpus}").replace("--device", "--gpus-per-worker")
            for text in (error.problem, error.fix)
        )
        raise CascadeError(f"{problem}, on {platform.node()}, where a worker runs", fix=fix) from error


def _url_exists(url: str) -> bool:
    try:
        filesystem, key = open_url(url)
        with store_errors(url):
            return bool(filesystem.exists(key))
    except CascadeError as error:
        raise CascadeError(f"{error.problem}, on {platform.node()}, where a worker runs", fix=error.fix) from error


def check_driver(options: ModelOptions, worker: WorkerInfo) -> None:
    """Check that a worker has the driver's version of cascade, and loaded the models that the driver sees.

    Raises:
        CascadeError: It does not, or the models on the machine of the driver cannot be used.
    """
    models = {name: find_model(name, options.models).sha256 for name in (SEGMENTER, CLASSIFIER)}
    for name, expected in (("version", __version__), ("models", models)):
        if getattr(worker, name) != expected:
            raise _difference(name, expected, f"{platform.node()}, where the run was started", worker)


def check_same(first: WorkerInfo, other: WorkerInfo) -> None:
    """Check that two workers compute the same results.

    Raises:
        CascadeError: Their versions of cascade, models, backends or rules for a finding differ.
    """
    for name in ("version", "models", "description", "uncertain_below", "volume_rule"):
        if getattr(first, name) != getattr(other, name):
            raise _difference(name, getattr(first, name), first.host, other)


def _difference(name: str, expected: object, place: str, worker: WorkerInfo) -> CascadeError:
    """Return the error for a worker that differs from what there is at a place."""
    what, fix = name, "install the same version of cascade and the same models on all machines"
    if name == "description":
        what = "backend on the same type of CPU or GPU"
        fix = f"choose a backend with --backend, or GPUs of one type with {VISIBLE} where Ray is started"
    problem = f"not all have the same {what}: {expected} on {place}, {getattr(worker, name)} on {worker.host}"
    return CascadeError(problem, fix=fix)


def _ignore(argument: object) -> None:
    """Do nothing: the driver keeps the journal and shows the progress."""
