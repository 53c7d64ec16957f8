"""What can run the two graphs; `open_backend` chooses a runtime and loads both."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.errors import CascadeError
from cascade.files import without_home
from cascade.runtime.engines import ENGINES
from cascade.runtime.models import CLASSIFIER, SEGMENTER, SHIPPED, Graph, find_graph

if TYPE_CHECKING:  # loads NumPy, which a command's --help does not need
    from cascade.runtime.protocol import Backend

BACKENDS = ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")
"""Fastest first: the order in which `auto` tries them."""

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """A backend that runs, the graphs in it, and what `auto` passed over on its way there: name → reason."""

    name: str
    backend: "Backend"
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


def _open(name: str, graphs: dict[str, Graph], engines: Path, *, worth_it: bool = False) -> "Backend":
    """worth_it  refuse where the runtime works but would be no faster than the next."""
    segmenter, classifier = graphs[SEGMENTER], graphs[CLASSIFIER]
    if name == "openvino":
        from cascade.runtime.openvino import open_openvino

        return open_openvino(segmenter, classifier, only_low_precision=worth_it)
    if name == "onnxruntime":
        from cascade.runtime.onnxruntime import open_onnxruntime

        return open_onnxruntime(segmenter, classifier)
    from cascade.runtime.tensorrt import open_tensorrt

    return open_tensorrt(name, segmenter, classifier, engines)
