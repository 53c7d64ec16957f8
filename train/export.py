"""A checkpoint → an ONNX graph that was seen to compute the same, and its entry in models.json."""

import importlib.metadata
import json
import math
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from cascade import __version__
from cascade.contract import BOX, CLASS_PROBABILITY, PROBABILITY, SLICE
from cascade.datasets.split import PARTS, Split, read_split
from cascade.errors import CascadeError
from cascade.files import sha256_of_bytes, write_atomically
from cascade.runtime.models import CLASSIFIER, SEGMENTER, find_model
from cascade.runtime.onnxruntime import OnnxRuntimeGraph
from train.calibrate import calibrate, presence_threshold
from train.classifier import ClassifierNetwork, draw_masks, validation_logits
from train.dataset import SegmenterData, SliceStore, tumor_free_copies
from train.history import read_history
from train.region import ClassifierGraph, SegmenterGraph
from train.segmenter import presence_logits, segmenter_network
from train.weights import GRAPH, load_fitting, mean_weights

OPSET = 20
TOLERANCE = 1e-3
"""Largest difference in any probability between PyTorch and the exported graph."""

COMPARED_SLICES = 32
"""Taken evenly from the validation part."""

FIGSHARE = "figshare brain tumor dataset by Jun Cheng, doi 10.6084/m9.figshare.1512427, CC BY 4.0"
OTHER_DATA = "other than figshare's; the split's sha256 names it"


def export_model(
    name: str,
    run: Path,
    folder: Path,
    split_file: Path,
    models: Path,
    checkpoint: str = "best",
    mean_with: Sequence[Path] = (),
) -> dict[str, Any]:
    """Writes `name`.onnx and its entry in models.json into the folder `models`; returns that entry.

    name    `segmenter` or `classifier`.
    run     what `train_segmenter` or `train_classifier` left; or an exported graph in a folder of models, to calibrate
            it anew.
    checkpoint  of the run: `best`, or `last`.
    mean_with   checkpoints in the folders of other runs, or exported graphs in folders of models; what is exported is
                the mean of all weights.
    folder  the data set: the validation part's slices are compared with PyTorch and calibrate the model, the
            classifier with the masks of the segmenter that is in `models` already.

    Raises CascadeError, and writes nothing, where the graph and PyTorch differ by more than TOLERANCE or in any class,
    and where the split or its files are not those that the runs were trained with.
    """
    split = read_split(split_file)
    checkpoints = [run if run.suffix == GRAPH else run / f"{checkpoint}.ckpt", *mean_with]
    for checkpoint_file in checkpoints:
        if _settings(checkpoint_file)["split_sha256"] != split.sha256:
            named = checkpoint_file if checkpoint_file.suffix == GRAPH else checkpoint_file.parent
            raise CascadeError(
                f"{named}: was trained on another split than {split_file}",
                fix="give the split it was trained on",
            )
    network = segmenter_network() if name == SEGMENTER else ClassifierNetwork()
    load_fitting(network, mean_weights(checkpoints), str(run))
    round_weights_to_fp16(network)
    store = SliceStore(folder, split.part("validation"), "reading validation")
    network.eval()
    if name == SEGMENTER:
        (graph, calibration), outputs = _calibrated_segmenter(network, store), [PROBABILITY]
    else:
        (graph, calibration), outputs = _calibrated_classifier(network, store, models), [CLASS_PROBABILITY, BOX]
    inputs = _compared(name, store)
    content = to_onnx(graph, inputs, outputs).SerializeToString()
    difference = largest_difference(content, graph, inputs, outputs[0])
    trained = _training(checkpoints[0])
    others = [*trained.pop("mean_with", []), *(_training(other) for other in mean_with)]
    record = {
        "sha256": sha256_of_bytes(content),
        **_origin(split),
        **trained,
        **({"mean_with": others} if others else {}),
        "comparison_with_pytorch": {"slices": len(inputs[SLICE]), "max_abs_difference": difference},
        "calibration": calibration,
    }
    table = models / "models.json"
    entries = json.loads(table.read_text()) if table.exists() else {}
    text = json.dumps({**entries, name: record}, indent=1, allow_nan=False)
    write_atomically(models / f"{name}.onnx", content)
    write_atomically(table, text.encode() + b"\n")
    return record


def _calibrated_segmenter(network: nn.Module, store: SliceStore) -> tuple[nn.Module, dict[str, Any]]:
    """The graph to export, and what models.json says of its threshold."""
    data = SegmenterData(store)
    threshold, calibration = presence_threshold(
        presence_logits(network, data.slices),
        presence_logits(network, tumor_free_copies(data, store.people).tensors[0]),
    )
    return SegmenterGraph(network, threshold).eval(), calibration


def _calibrated_classifier(network: nn.Module, store: SliceStore, models: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The graph to export, and what models.json says of its temperature.

    Set by the slices on which the segmenter in `models` sees a tumor: the classifier is never asked of others.
    """
    segmenter = find_model(SEGMENTER, models)
    masks = draw_masks(store, segmenter)
    seen = masks.flatten(1).any(1)
    if not seen.any():
        raise CascadeError(
            f"{segmenter.path}: sees no tumor in any slice of the validation part", fix="train the segmenter for longer"
        )
    temperature, calibration = calibrate(validation_logits(network, store, masks)[seen], store.labels[seen])
    return ClassifierGraph(network, temperature).eval(), {**calibration, "segmenter_sha256": segmenter.sha256}


def to_onnx(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    """Any batch size; weights stored as FP16, arithmetic in FP32."""
    program = torch.onnx.export(
        graph,
        args=(),
        kwargs={name: value[:2] for name, value in inputs.items()},  # a batch of 1 would be taken for a constant
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes={name: {0: torch.export.Dim("batch", min=1)} for name in inputs},
        opset_version=OPSET,
        dynamo=True,
        # Its rewriting folds BatchNorm into weights that PyTorch never saw, and rounding those to FP16 would put
        # the two more than TOLERANCE apart. Runtimes fold it when they load the graph.
        optimize=False,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    store_weights_as_fp16(model)
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's stack traces, with this machine's paths
    onnx.checker.check_model(model, full_check=True)
    return model


def round_weights_to_fp16(network: nn.Module) -> None:
    """Makes PyTorch compute with the weights of convolutions and linear layers as they will be stored.

    What has one dimension (biases, BatchNorm's four) stays FP32: it weighs nothing, and variances may underflow.
    """
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()


def store_weights_as_fp16(model: onnx.ModelProto) -> None:
    """Halves the file: each FP32 weight becomes FP16 with a cast behind it, which runtimes fold away."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)


def largest_difference(content: bytes, graph: nn.Module, inputs: dict[str, Tensor], output: str) -> float:
    """Between the graph as ONNX Runtime and as PyTorch in FP32 compute `output`, over all slices.

    Raises CascadeError where it is over TOLERANCE, or where a class differs.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "graph.onnx"
        path.write_bytes(content)
        loaded = OnnxRuntimeGraph(path)
        difference, same = 0.0, True
        for start in range(0, len(inputs[SLICE]), 8):
            batch = {name: value[start : start + 8] for name, value in inputs.items()}
            exported = loaded.run(**{name: value.numpy() for name, value in batch.items()})[output]
            with torch.inference_mode():
                result = graph(**batch)
            expected = (result[0] if isinstance(result, tuple) else result).numpy()
            difference = max(difference, float(np.abs(exported - expected).max()))
            same = same and (exported.ndim > 2 or bool((exported.argmax(1) == expected.argmax(1)).all()))
    if difference >= TOLERANCE or not same:
        raise CascadeError(
            f"the exported graph differs from PyTorch: by {difference:.2g} in a probability, classes equal: {same}",
            fix=f"export with other versions of torch and onnx; at most {TOLERANCE:g} and equal classes are accepted",
        )
    return difference


def _compared(name: str, store: SliceStore) -> dict[str, Tensor]:
    """COMPARED_SLICES slices (fewer where there are fewer), for the classifier with their true masks."""
    chosen = slice(None, None, max(1, len(store) // COMPARED_SLICES))
    inputs = {SLICE: store.slices[chosen][:COMPARED_SLICES].float()}
    if name == CLASSIFIER:
        inputs[PROBABILITY] = store.masks[chosen][:COMPARED_SLICES].float()
    return inputs


def _origin(split: Split) -> dict[str, Any]:
    """What models.json says of the data and the packages."""
    figshare = all(item.path.lower().endswith(".mat") for item in split.slices)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "data": FIGSHARE if figshare else OTHER_DATA,
        "slices": {part: len(split.part(part)) for part in PARTS},
        "versions": {
            "cascade": __version__,  # which a checkout that nobody installed has, too
            **{name: importlib.metadata.version(name) for name in ("torch", "torchvision", "onnx")},
        },
    }


def _training(checkpoint: Path) -> dict[str, Any]:
    """What models.json says of the run that left this checkpoint, or said of this graph."""
    if checkpoint.suffix == GRAPH:
        record = find_model(checkpoint.stem, checkpoint.parent).record
        told = {name: record[name] for name in ("checkpoint", "validation", "settings", "mean_with") if name in record}
        return {"graph_sha256": record["sha256"], **told}
    settings = _settings(checkpoint)
    return {
        "checkpoint": checkpoint.stem,
        "validation": _epoch(checkpoint.parent, checkpoint.stem),
        "settings": settings | {"weights": Path(settings["weights"]).name},  # of a file its name, no path
    }


def _settings(checkpoint: Path) -> dict[str, Any]:
    """Of the run that left this checkpoint, or this graph."""
    if checkpoint.suffix == GRAPH:
        return dict(find_model(checkpoint.stem, checkpoint.parent).record["settings"])
    run = checkpoint.parent
    try:
        settings: dict[str, Any] = json.loads((run / "settings.json").read_text())
    except (OSError, ValueError) as error:
        raise CascadeError(
            f"{run}: is not the folder of a training run ({error})", fix="give the --out of a training"
        ) from error
    return settings


def _epoch(run: Path, checkpoint: str) -> dict[str, float]:
    """The row of metrics.csv whose weights best.ckpt or last.ckpt holds, without what is not finite."""
    rows = read_history(run)
    score = "validation_score" if "validation_score" in rows[0] else "validation_f1"
    row = rows[-1] if checkpoint == "last" else max(rows, key=lambda row: row[score])
    return {name: value for name, value in row.items() if math.isfinite(value)}
