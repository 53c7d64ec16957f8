"""What can run the two graphs; `open_backend` chooses a runtime and loads both."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cascade.contract import FloatArray
from cascade.engines import ENGINES
from cascade.errors import CascadeError
from cascade.files import without_home
from cascade.graphs import CLASSIFIER, SEGMENTER, SHIPPED, Graph, find_graph

BACKENDS = ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")
"""Fastest first: the order in which `auto` tries them."""

AUTO = "auto"


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


@dataclass(frozen=True)
class Choice:
    """A backend that runs, the graphs in it, and what `auto` passed over on its way there: name → reason."""

    name: str
    backend: Backend
    graphs: dict[str, Graph]
    passed_over: dict[str, str] = field(default_factory=dict)


def open_backend(name: str = AUTO, models: Path = SHIPPED, engines: Path = ENGINES) -> Choice:
    """Loads both graphs of a models folder into the backend `name`; `auto` takes the first of BACKENDS that can run.

    engines  folder of the engines that `cascade build` made; only the TensorRT backends look there.

    Raises CascadeError for an unknown backend, one that cannot run here, and models models.json does not vouch for.
    """
    if name not in (AUTO, *BACKENDS):
        raise CascadeError(f"there is no backend {name!r}", fix=f"choose one of {', '.join((AUTO, *BACKENDS))}")
    graphs = {each: find_graph(each, models) for each in (SEGMENTER, CLASSIFIER)}
    if name != AUTO:
        return Choice(name, _open(name, graphs, engines), graphs)
    passed_over: dict[str, str] = {}
    for candidate in BACKENDS[:-1]:
        try:
            return Choice(candidate, _open(candidate, graphs, engines, worth_it=True), graphs, passed_over)
        except CascadeError as error:
            passed_over[candidate] = without_home(error.problem)
    return Choice(BACKENDS[-1], _open(BACKENDS[-1], graphs, engines), graphs, passed_over)


def _open(name: str, graphs: dict[str, Graph], engines: Path, *, worth_it: bool = False) -> Backend:
    """worth_it  refuse where the runtime works but would be no faster than the next."""
    segmenter, classifier = graphs[SEGMENTER], graphs[CLASSIFIER]
    if name == "openvino":
        from cascade.backends.openvino import open_openvino

        return open_openvino(segmenter, classifier, only_low_precision=worth_it)
    if name == "onnxruntime":
        from cascade.backends.onnxruntime import open_onnxruntime

        return open_onnxruntime(segmenter, classifier)
    from cascade.backends.tensorrt import open_tensorrt

    return open_tensorrt(name, segmenter, classifier, engines)
