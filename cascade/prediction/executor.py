"""The interface between a run and what executes it: this process, or the workers of a cluster."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cascade.io.source import Source
from cascade.prediction.journal import JournalLine
from cascade.prediction.results import ResultsFolder
from cascade.volume.finding import VolumeRule


@dataclass(frozen=True)
class Job:
    """What an executor does with each input.

    Attributes:
        folder: Where masks and overlays go.
        batch_size: Number of slices that go through the models at once.
        on_begin: Called with inputs before the first file of theirs is written.
        on_finished: Called with inputs that have just been finished, or have failed; once with each input.
        on_progress: Called with the number of slices that have just been finished.
        stop: Set when the executor should finish what it has begun, and return.
    """

    folder: ResultsFolder
    batch_size: int
    on_begin: Callable[[Sequence[Source]], object]
    on_finished: Callable[[Sequence[JournalLine]], object]
    on_progress: Callable[[int], object]
    stop: threading.Event


class Executor(Protocol):
    """Both models, and the processes that run them on the slices of inputs.

    Attributes:
        models: Model name → SHA-256 of its ONNX graph.
        uncertain_below: A class with a lower probability is marked as uncertain.
        volume_rule: When a component of a volume is a tumor.
        skipped_backends: Faster backends that cannot be used: name → reason.
        is_remote: True if the workers may run on other machines.
    """

    models: dict[str, str]
    uncertain_below: float
    volume_rule: VolumeRule
    skipped_backends: dict[str, str]
    is_remote: bool

    @property
    def description(self) -> str:
        """The runtime, its version, its device and precision."""
        ...

    def check_access(self, paths: Sequence[Path | str]) -> None:
        """Check that all workers see these paths and URLs, before any result is written.

        Raises:
            CascadeError: One does not exist on the machine of a worker.
        """
        ...

    def run(self, sources: Sequence[Source], job: Job) -> None:
        """Predict all slices of the sources, and write masks and overlays.

        A slice that cannot be read or written becomes a row with status "error", and stops nothing.

        Raises:
            CascadeError: The models computed NaN, or all workers are lost.
        """
        ...
