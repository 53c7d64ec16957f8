"""What changes the models' answer on one and the same slice: resolution, noise, field of view and the like.

    python -m train.robustness figshare/ --split figshare/split.json --subset validation [--models MODELS] [--limit 100]

Each slice is predicted as it is and perturbed. The table gives the fraction of slices on which a tumor appears or
disappears, the fraction of those detected in both whose class changes, and the mean Dice coefficient of
both masks on the slice's own grid.
"""

import argparse
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

from cascade.contract import PIXEL_MM, SLICE_SIZE, FloatArray
from cascade.datasets.reader import read_labeled
from cascade.datasets.split import SUBSETS, read_split
from cascade.errors import CascadeError
from cascade.pipeline import Cascade
from cascade.result import Prediction
from cascade.runtime.models import BUNDLED_MODELS
from train.heads import head_mask
from train.png import exit_on_cascade_error


@dataclass(frozen=True)
class Perturbation:
    """A change of a slice, and how to bring a mask of the changed slice back onto its grid.

    Attributes:
        name: Name for the table.
        apply: (H, W) float32 in 0 to 1 → the changed slice, of any size.
        undo: Mask on the changed slice's grid, and the shape (H, W) → mask (H, W); None where the grid stays.
    """

    name: str
    apply: Callable[[FloatArray], FloatArray]
    undo: Callable[[FloatArray, tuple[int, ...]], FloatArray] | None = None


@dataclass(frozen=True)
class Stability:
    """How the answers changed under one perturbation.

    Attributes:
        name: Name of the perturbation.
        detection_changed: Fraction of slices on which a tumor appears or disappears.
        class_changed: Fraction of the slices detected in both whose class changes.
        dice: Mean Dice coefficient of the two masks, over slices detected in both.
    """

    name: str
    detection_changed: float
    class_changed: float
    dice: float


def resized(plane: FloatArray, shape: Sequence[int]) -> FloatArray:
    """Resample (H, W) to another shape, averaging where it gets smaller."""
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(
        image.resize((shape[1], shape[0]), Image.Resampling.BOX if shape[0] < len(plane) else Image.Resampling.BILINEAR)
    )


def coarse(factor: float) -> Perturbation:
    """Pixels `factor` times as large, on a smaller grid."""
    return Perturbation(
        f"{PIXEL_MM * factor:.2f} mm pixels",
        lambda plane: resized(plane, [round(side / factor) for side in plane.shape]),
        lambda mask, shape: (resized(mask, shape) >= 0.5).astype(np.float32),
    )


def jpeg(quality: int) -> Perturbation:
    """Compressed as a JPEG of 8 bits."""

    def apply(plane: FloatArray) -> FloatArray:
        content = io.BytesIO()
        Image.fromarray((plane * 255).round().astype(np.uint8)).save(content, "JPEG", quality=quality)
        return np.asarray(Image.open(content), dtype=np.float32) / 255

    return Perturbation(f"JPEG quality {quality}", apply)


def blurred(sigma: float) -> Perturbation:
    """Blurred by a Gaussian of this standard deviation in pixels."""
    return Perturbation(f"blur, {sigma * PIXEL_MM:.1f} mm", lambda plane: ndimage.gaussian_filter(plane, sigma))


def noisy(level: float) -> Perturbation:
    """Rician noise, as in magnitude images (Gudbjartsson and Patz 1995), relative to the brightest pixel."""

    def apply(plane: FloatArray) -> FloatArray:
        random = np.random.default_rng(0)
        real, imaginary = random.normal(0, level, (2, *plane.shape))
        return np.hypot(plane + real, imaginary).astype(np.float32)

    return Perturbation(f"noise, {level:.0%}", apply)


def gamma(exponent: float) -> Perturbation:
    """Gray values raised to a power."""
    return Perturbation(f"gamma {exponent}", lambda plane: plane**exponent)


def bias(strength: float) -> Perturbation:
    """A bias field that rises from left to right, from 1 - strength to 1 + strength."""
    return Perturbation(
        f"bias field, ±{strength:.0%}",
        lambda plane: (plane * np.linspace(1 - strength, 1 + strength, plane.shape[1])).astype(np.float32),
    )


def padded(share: float) -> Perturbation:
    """A larger field of view: black pixels added on all sides."""

    def apply(plane: FloatArray) -> FloatArray:
        return np.pad(plane, [(round(side * share),) * 2 for side in plane.shape])

    def undo(mask: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        top, left = (round(side * share) for side in shape)
        return mask[top : top + shape[0], left : left + shape[1]]

    return Perturbation(f"field of view +{2 * share:.0%}", apply, undo)


def cropped(share: float) -> Perturbation:
    """A smaller field of view: pixels cut off on all sides."""

    def apply(plane: FloatArray) -> FloatArray:
        top, left = (round(side * share) for side in plane.shape)
        return plane[top : plane.shape[0] - top, left : plane.shape[1] - left]

    def undo(mask: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        return np.pad(mask, [(round(side * share),) * 2 for side in shape])

    return Perturbation(f"field of view -{2 * share:.0%}", apply, undo)


def flipped(name: str, axis: int) -> Perturbation:
    """Mirrored along one axis."""
    return Perturbation(name, lambda plane: np.flip(plane, axis), lambda mask, shape: np.flip(mask, axis))


def stripped(plane: FloatArray, pixel_mm: float | None = None) -> FloatArray:
    """Black outside the head and in a band of 9 mm along its border: about what skull stripping leaves.

    Args:
        plane: (H, W) float32 in 0 to 1.
        pixel_mm: Spacing of the pixels; None takes the field of view of the data set.
    """
    inner = ndimage.distance_transform_edt(head_mask(plane)) * (pixel_mm or PIXEL_MM * SLICE_SIZE / len(plane)) > 9
    return np.where(inner, plane, 0).astype(np.float32)


PERTURBATIONS = (
    coarse(0.6 / PIXEL_MM),
    coarse(0.8 / PIXEL_MM),
    coarse(1.0 / PIXEL_MM),
    blurred(1.0),
    blurred(2.0),
    jpeg(60),
    jpeg(30),
    bias(0.3),
    noisy(0.03),
    noisy(0.06),
    gamma(0.7),
    gamma(1.4),
    cropped(0.05),
    padded(0.1),
    padded(0.25),
    flipped("mirrored left to right", 1),
    flipped("upside down", 0),
    Perturbation("skull stripped", stripped),
)


def measure(cascade: Cascade, slices: Sequence[FloatArray]) -> Iterator[Stability]:
    """Measure each of PERTURBATIONS on slices (H, W) of any range, which may differ in size."""
    planes = [((plane - plane.min()) / (plane.max() - plane.min())).astype(np.float32) for plane in slices]
    plain = [cascade.predict(plane) for plane in track(planes, "as they are", console=Console(stderr=True))]
    for perturbation in PERTURBATIONS:
        changed = [
            cascade.predict(np.ascontiguousarray(perturbation.apply(plane)))
            for plane in track(planes, perturbation.name, console=Console(stderr=True))
        ]
        yield _stability(perturbation, plain, changed)


def _stability(perturbation: Perturbation, plain: list[Prediction], changed: list[Prediction]) -> Stability:
    both = [(a, b) for a, b in zip(plain, changed, strict=True) if a.mask.any() and b.mask.any()]
    return Stability(
        perturbation.name,
        float(np.mean([a.mask.any() != b.mask.any() for a, b in zip(plain, changed, strict=True)])),
        float(np.mean([a.label != b.label for a, b in both])) if both else float("nan"),
        float(np.mean([_dice(perturbation, a, b) for a, b in both])) if both else float("nan"),
    )


def _dice(perturbation: Perturbation, plain: Prediction, changed: Prediction) -> float:
    mask = changed.mask.astype(np.float32)
    back = (perturbation.undo(mask, plain.mask.shape) if perturbation.undo else mask) >= 0.5
    return 2 * np.count_nonzero(plain.mask & back) / (np.count_nonzero(plain.mask) + np.count_nonzero(back))


def stability_table(rows: Sequence[Stability]) -> Table:
    """The rows as a table for the terminal."""
    table = Table(title="Answers that change under a perturbation")
    for name in ("perturbation", "detection changed", "class changed", "Dice of the masks"):
        table.add_column(name, justify="left" if name == "perturbation" else "right")
    for row in rows:
        table.add_row(row.name, f"{row.detection_changed:.3f}", f"{row.class_changed:.3f}", f"{row.dice:.3f}")
    return table


def main() -> None:
    """Measure the models on a subset of a labeled data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labeled data set")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--subset", choices=SUBSETS, default="validation")
    parser.add_argument("--models", type=Path, default=BUNDLED_MODELS)
    parser.add_argument("--limit", type=int, default=0, help="largest number of slices, taken evenly; 0 takes all")
    arguments = parser.parse_args()
    with exit_on_cascade_error():
        items = read_split(arguments.split).subset(arguments.subset)
        if not items:
            raise CascadeError(
                f"{arguments.split}: its {arguments.subset} subset is empty", fix="choose another one with --subset"
            )
        step = -(-len(items) // arguments.limit) if arguments.limit else 1
        slices = [read_labeled(arguments.folder, item).pixels for item in items[::step]]
        rows = list(measure(Cascade.open(arguments.models, "onnxruntime"), slices))
        Console().print(stability_table(rows))


if __name__ == "__main__":
    main()
