"""OpenVINO on the CPU, in BF16 where the processor has it."""

from pathlib import Path
from typing import Any

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.runtime.cpu import HostBackend
from cascade.runtime.models import Graph


def open_openvino(segmenter: Graph, classifier: Graph, *, only_low_precision: bool = False) -> HostBackend:
    """Asks the runtime what the processor can do, and takes BF16 if it is among that.

    Raises CascadeError where OpenVINO is not installed, a graph cannot be loaded, or, with `only_low_precision`, where
    it would compute in FP32 and so be no faster than ONNX Runtime.
    """
    try:
        import openvino
    except ImportError as error:
        raise CascadeError("OpenVINO is not installed", fix="pip install 'cascade-mri[openvino]'") from error
    core = openvino.Core()
    low_precision = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if only_low_precision and not low_precision:
        raise CascadeError("OpenVINO has no BF16 on this processor", fix="ask for it with --backend openvino")
    precision = "bf16" if low_precision else "f32"
    version = openvino.__version__.split("-")[0]
    return HostBackend(
        OpenVinoGraph(core, segmenter.path, precision),
        OpenVinoGraph(core, classifier.path, precision),
        f"OpenVINO {version}, CPU, {'BF16' if low_precision else 'FP32'}",
    )


class OpenVinoGraph:
    """Takes any batch; uses all cores.

    precision  `f32` or `bf16`, of the network. What comes before its first convolution counts pixels and stays FP32.
    """

    def __init__(self, core: Any, path: Path, precision: str) -> None:
        try:
            model = core.read_model(path)
            self._outputs = [output.any_name for output in model.outputs]
            stages = {"f32": model} if precision == "f32" else cut_before_network(model)
            self._stages = [
                (
                    [each.any_name for each in stage.inputs],
                    core.compile_model(stage, "CPU", {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}),
                    [each.any_name for each in stage.outputs],  # compiling may add names
                )
                for hint, stage in stages.items()
            ]
        except RuntimeError as error:
            raise CascadeError(f"{path}: OpenVINO cannot load it ({error})", fix="export the model again") from error

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        tensors = inputs
        for taken, compiled, given in self._stages:
            found = compiled([tensors[name] for name in taken], share_inputs=True)
            tensors = tensors | {name: found[place] for place, name in enumerate(given)}
        return {name: tensors[name] for name in self._outputs}


def cut_before_network(model: Any) -> dict[str, Any]:
    """A model → what leads to the tensor that its first convolution takes, for FP32, and the rest, for BF16.

    In BF16 OpenVINO would also do the sums over pixels, less exactly and 8 times slower (2026.4, 4.3 against 0.5 ms of
    the classifier's 7.7 a slice). The rest takes the model's own inputs as well, since shapes are derived from them.
    """
    import openvino
    from openvino import opset13

    ordered = model.get_ordered_ops()
    place = {each.get_friendly_name(): index for index, each in enumerate(ordered)}
    taken = [each.input_value(0) for each in ordered if each.get_type_name() == "Convolution"]
    if not taken:
        return {"bf16": model}
    # Not the first convolution's own: of two networks on the same planes one may begin by taking them apart.
    planes = min(taken, key=lambda tensor: place[tensor.get_node().get_friendly_name()])
    users = planes.get_target_inputs()
    behind = {user.get_node().get_friendly_name() for user in users}
    for each in ordered:
        if any(source.get_node().get_friendly_name() in behind for source in each.input_values()):
            behind.add(each.get_friendly_name())
    before = [each for each in model.get_results() if each.get_friendly_name() not in behind]
    after = [each for each in model.get_results() if each.get_friendly_name() in behind]

    entry = opset13.parameter(planes.get_partial_shape(), planes.get_element_type())
    entry.output(0).set_names({planes.any_name})
    for user in users:
        user.replace_source_output(entry.output(0))
    inputs = model.get_parameters()
    return {
        "f32": openvino.Model([*before, opset13.result(planes)], inputs),
        "bf16": openvino.Model(after, [*inputs, entry]),
    }
