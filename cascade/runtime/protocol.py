"""Interfaces that every runtime implements: `Backend` for both graphs, `LoadedGraph` for one graph on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from cascade.contract import FloatArray

T = TypeVar("T")


@dataclass(frozen=True, eq=False)  # eq=False: arrays do not compare to one bool
class Outputs:
    """Outputs of both graphs for a batch of N slices. All arrays are float32.

    Attributes:
        probability: (N, 1, SLICE_SIZE, SLICE_SIZE), tumor probability of each pixel, 0 to 1.
        class_probability: (N, 3), rows sum to 1. A row is zero where no pixel reaches THRESHOLD and the classifier
            was skipped.
        box: (N, 4), the classifier's crop: left, top, right, bottom in pixels. Rows are zero likewise.
        stages_ms: Duration of each stage for the whole batch, in milliseconds. On a GPU, measured with CUDA events.
    """

    probability: FloatArray
    class_probability: FloatArray
    box: FloatArray
    stages_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Future(Generic[T]):
    """A submitted batch. `concurrent.futures.Future` needs a thread for each batch, which a GPU stream does not.

    Attributes:
        result: Waits for the batch and returns its outputs. Call it once.
    """

    result: Callable[[], T]


class Backend(Protocol):
    """Both graphs, loaded into one runtime.

    Slices are raw intensities, (N, 1, SLICE_SIZE, SLICE_SIZE) float32, with N >= 1.
    """

    @property
    def description(self) -> str:
        """Name and version of the runtime, the device, and the precision."""
        ...

    def submit(self, slices: FloatArray) -> Future[Outputs]:
        """Start both graphs on a batch.

        A GPU computes while the caller prepares the next batch. Submit that batch before waiting for this one. At most
        two batches may be in flight.
        """
        ...

    def segment(self, slices: FloatArray) -> FloatArray:
        """Run only the segmenter. Returns the tumor probability of each pixel, in the shape of `slices`."""
        ...

    def classify(self, slices: FloatArray, probability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Run only the classifier.

        Args:
            slices: (N, 1, SLICE_SIZE, SLICE_SIZE) float32.
            probability: Probabilities or masks of the same shape.

        Returns:
            Class probabilities (N, 3) and boxes (N, 4).
        """
        ...


class LoadedGraph(Protocol):
    """One graph on the CPU, called with named arrays."""

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        """Run the graph. All arrays are float32 and have the batch as their first dimension."""
        ...
