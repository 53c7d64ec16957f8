"""OpenVINO on the CPU, in BF16 where the processor supports it."""

from pathlib import Path
from typing import Any

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.runtime.cpu import CpuBackend
from cascade.runtime.models import ExportedModel


def open_openvino(
    segmenter: ExportedModel,
    classifier: ExportedModel,
    *,
    only_if_faster: bool = False,
    threads: int | None = None,
) -> CpuBackend:
    """Load both graphs, in BF16 if the runtime reports that the processor supports it, else in FP32.

    Args:
        segmenter: The segmenter's graph.
        classifier: The classifier's graph.
        only_if_faster: Refuse FP32, in which OpenVINO is no faster than ONNX Runtime.
        threads: Number of threads that compute; None for one per core.

    Raises:
        CascadeError: If OpenVINO is not installed, a graph cannot be loaded, or `only_if_faster` is set and the
            processor has no BF16.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise CascadeError("OpenVINO is not installed", fix="pip install 'cascade-mri[openvino]'") from error
    except ImportError as error:
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):  # its extension module converts it
            raise KeyboardInterrupt from error
        raise CascadeError(
            f"OpenVINO cannot be imported ({error})", fix="pip install --force-reinstall openvino"
        ) from error
    except RuntimeError as error:  # its telemetry looks for the home directory, whether it may send anything or not
        raise CascadeError(f"OpenVINO cannot be imported ({error})", fix="set HOME to a folder") from error
    core = openvino.Core()
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if only_if_faster and not has_bf16:
        raise CascadeError(
            "OpenVINO is no faster here: this processor has no BF16", fix="select it with --backend openvino"
        )
    precision = "bf16" if has_bf16 else "f32"
    version = openvino.__version__.split("-")[0]
    return CpuBackend(
        OpenVinoGraph(core, segmenter.path, precision, threads),
        OpenVinoGraph(core, classifier.path, precision, threads),
        f"OpenVINO {version}, CPU, {'BF16' if has_bf16 else 'FP32'}",
    )


class OpenVinoGraph:
    """A `LoadedGraph` for batches of any size.

    Args:
        core: openvino.Core.
        path: ONNX file.
        precision: Precision of the network, `f32` or `bf16`. Nodes before the first convolution count pixels and stay
            in FP32.
        threads: Number of threads that compute; None for one per core.

    Raises:
        CascadeError: If the graph cannot be loaded.
    """

    def __init__(self, core: Any, path: Path, precision: str, threads: int | None = None) -> None:
        # A thread that is pinned to a core waits there for the readers and writers, and for other programs.
        settings = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
        settings |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
        try:
            model = core.read_model(path)
            self._outputs = [output.any_name for output in model.outputs]
            stages = {"f32": model} if precision == "f32" else split_before_network(model)
            self._stages = [
                (
                    [tensor.any_name for tensor in stage.inputs],
                    core.compile_model(stage, "CPU", {"INFERENCE_PRECISION_HINT": hint, **settings}),
                    [tensor.any_name for tensor in stage.outputs],  # compiling may add names
                )
                for hint, stage in stages.items()
            ]
        except RuntimeError as error:
            raise CascadeError(f"{path}: OpenVINO cannot load it ({error})", fix="export the model again") from error

    def run(self, **inputs: FloatArray) -> dict[str, FloatArray]:
        """Run the stages one after the other, see `LoadedGraph.run`."""
        tensors = inputs
        for input_names, compiled, output_names in self._stages:
            outputs = compiled([tensors[name] for name in input_names], share_inputs=True)
            tensors = tensors | {name: outputs[index] for index, name in enumerate(output_names)}
        return {name: tensors[name] for name in self._outputs}


def split_before_network(model: Any) -> dict[str, Any]:
    """Split a model at the input of its first convolution.

    In BF16 OpenVINO would also compute the sums over pixels, less exactly and 8 times slower (2026.4: 4.3 instead of
    0.5 ms of the classifier's 7.7 ms a slice).

    Args:
        model: openvino.Model, modified in place.

    Returns:
        `f32`, the nodes before the network, and `bf16`, the rest. The second part also takes the model's own inputs,
        since shapes are derived from them. A model without convolutions is returned whole as `bf16`.
    """
    import openvino
    from openvino import opset13

    ordered = model.get_ordered_ops()
    position = {node.get_friendly_name(): index for index, node in enumerate(ordered)}
    conv_inputs = [node.input_value(0) for node in ordered if node.get_type_name() == "Convolution"]
    if not conv_inputs:
        return {"bf16": model}
    # The input that is computed first, not that of the first convolution: one of two networks with the same input may
    # begin with other nodes.
    cut = min(conv_inputs, key=lambda tensor: position[tensor.get_node().get_friendly_name()])
    readers = cut.get_target_inputs()
    downstream = {reader.get_node().get_friendly_name() for reader in readers}
    for node in ordered:
        if any(source.get_node().get_friendly_name() in downstream for source in node.input_values()):
            downstream.add(node.get_friendly_name())
    before = [result for result in model.get_results() if result.get_friendly_name() not in downstream]
    after = [result for result in model.get_results() if result.get_friendly_name() in downstream]

    entry = opset13.parameter(cut.get_partial_shape(), cut.get_element_type())
    entry.output(0).set_names({cut.any_name})
    for reader in readers:
        reader.replace_source_output(entry.output(0))
    inputs = model.get_parameters()
    return {
        "f32": openvino.Model([*before, opset13.result(cut)], inputs),
        "bf16": openvino.Model(after, [*inputs, entry]),
    }
