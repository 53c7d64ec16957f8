"""What every runtime offers: both graphs as a `Backend`, or one graph on the CPU as a `LoadedGraph`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cascade.contract import FloatArray


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Outputs:
    """What both graphs computed for N slices; all arrays float32.

    probability        (N, 1, SLICE_SIZE, SLICE_SIZE), of each pixel being tumor.
    class_probability  (N, 3), rows sum to 1; rows of zeros where no pixel reaches THRESHOLD and nobody asked.
    box                (N, 4), where the classifier looked; zeros likewise.
    stages_ms          milliseconds of the batch by stage; on a GPU by its own clock.
    """

    probability: FloatArray
    class_probability: FloatArray
    box: FloatArray
    stages_ms: dict[str, float] = field(default_factory=dict)


Pending = Callable[[], Outputs]
"""Waits for a batch that was begun and returns what came of it; to be called once."""


class Backend(Protocol):
    """Both graphs, loaded into one runtime.

    Slices are raw, (N, 1, SLICE_SIZE, SLICE_SIZE) float32; N may be any number above 0.
    """

    @property
    def description(self) -> str:
        """The runtime, its version, what it computes on and in which precision."""
        ...

    def begin(self, slices: FloatArray) -> Pending:
        """Starts both graphs. A GPU works on while the caller prepares the next batch; begin that one before waiting.

        At most two batches may be under way.
        """
        ...

    def segment(self, slices: FloatArray) -> FloatArray:
        """The segmenter alone: slices → probability, same shape."""
        ...

    def classify(self, slices: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The classifier alone, with probabilities or masks given: → (N, 3) by class, (N, 4) boxes."""
        ...


class LoadedGraph(Protocol):
    """One graph on the CPU: named arrays in, named arrays out."""

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        """All arrays are float32 and share their first length, the batch."""
        ...
