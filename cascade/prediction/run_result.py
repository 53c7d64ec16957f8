"""Outcome of a run: its rows, which are read from the journal, and its exit code."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cascade.prediction.journal import Entry
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run.

    Attributes:
        rows: One row per slice of each finished input, and one per input that could not be opened, in the order of the
            tables. They are read from the journal at each access.
        seconds: Time from the first slice read to the last result written, without loading the models.
        remaining: Number of slices that were not processed; above 0 only after Ctrl-C.
        resumed_rows: How many of the rows an earlier run has produced.
        entries: Returns the finished inputs, in the same order.
        left_out: Absolute path → reason, for files and folders in the inputs that were not used.
        dropped: Inputs that an earlier run has finished and that are no longer there; their results were removed.
        volumes: One row per volume that is finished or could not be opened. Read from the journal as `rows` are.
    """

    rows: Sequence[SliceResult]
    seconds: float
    remaining: int = 0
    resumed_rows: int = 0
    entries: Callable[[], Iterable[Entry]] = tuple
    left_out: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    volumes: Sequence[VolumeResult] = ()

    @property
    def interrupted(self) -> bool:
        """True if the run ended before all slices were predicted."""
        return self.remaining > 0

    @cached_property
    def statuses(self) -> Counter[str]:
        """Status → number of rows."""
        return Counter(row.status for row in self.rows)

    @cached_property
    def failed(self) -> list[SliceResult]:
        """Results of the slices that could not be read, predicted or written."""
        return [row for row in self.rows if row.status == "error"] if self.statuses["error"] else []

    @property
    def exit_code(self) -> int:
        """0: all succeeded, 1: all failed, 2: some failed, 130: interrupted (128 + SIGINT, as in a shell)."""
        if self.interrupted:
            return 130
        if not self.failed:
            return 0
        return 1 if len(self.failed) == len(self.rows) else 2
