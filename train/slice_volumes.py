"""Cut volumes of tumor-free heads into slices, for the option `--negatives` of `cascade train` and `cascade evaluate`.

    python -m train.slice_volumes OUT VOLUME.nii.gz ...

Volumes of healthy heads, of any sequence, come with many packages: docs/data.md. Needs nibabel.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cascade.errors import CascadeError
from train.png import exit_on_cascade_error, write_png

VIEWS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Views and the axis across their slices, in a volume oriented right, anterior, superior."""

INSIDE = (0.15, 0.88)
"""Slices are taken between these fractions of the head's extent: beyond them there is little brain."""

THICK_MM = 4.0
"""A volume with voxels of at least this size along an axis is cut only across that axis."""


def slices_of(
    volume: NDArray[np.float32], spacing_mm: tuple[float, float, float], count: int
) -> dict[str, Image.Image]:
    """Cut a volume (X, Y, Z) into `count` slices of each view: name → square 8-bit picture with square pixels."""
    tissue = volume[volume > volume.mean()]
    low, high = volume.min(), np.percentile(tissue, 99.7)
    volume = np.clip((volume - low) / (high - low), 0, 1)
    views = {name: axis for name, axis in VIEWS.items() if max(np.delete(spacing_mm, axis)) < THICK_MM}
    found = {}
    for name, axis in views.items():
        head = np.flatnonzero((volume > 0.15).any(axis=tuple({0, 1, 2} - {axis})))
        first, last = (head[0] + share * (head[-1] - head[0]) for share in INSIDE)
        across, up = np.delete(spacing_mm, axis)
        for place in np.unique(np.linspace(first, last, count).round().astype(int)):
            plane = np.take(volume, place, axis).T[::-1]
            found[f"{name}{place:03d}"] = _square(plane, float(across), float(up))
    return found


def _square(plane: NDArray[np.float32], across: float, up: float) -> Image.Image:
    """Resample a plane to square pixels, and center it on a square filled with the gray value of its corners."""
    smallest = min(across, up)
    size = (round(plane.shape[1] * across / smallest), round(plane.shape[0] * up / smallest))
    picture = Image.fromarray((plane * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    corners = int(np.median([picture.getpixel((x, y)) for x in (0, size[0] - 1) for y in (0, size[1] - 1)]))
    square = Image.new("L", (max(size), max(size)), corners)
    square.paste(picture, ((max(size) - size[0]) // 2, (max(size) - size[1]) // 2))
    return square


def check_names(paths: list[Path]) -> None:
    """Raise CascadeError if the slices of two volumes would get the same names."""
    first: dict[str, Path] = {}
    for path in paths:
        if (other := first.setdefault(_stem(path), path)) != path:
            raise CascadeError(
                f"{other} and {path}: their slices would have the same names",
                fix="rename one of them, or write each into a folder of its own",
            )


def _stem(path: Path) -> str:
    """The beginning of the names of its slices."""
    return Path(path.name.removesuffix(".gz")).stem


def write_slices(path: Path, out: Path, count: int) -> int:
    """Write the slices of a volume as PNGs and return their number.

    Raises:
        CascadeError: The file is not a volume, or all its voxels are equal.
    """
    import nibabel

    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        volume = np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32))
    except Exception as error:  # nibabel's readers share no base class
        raise CascadeError(f"{path}: cannot be read as a volume ({error})", fix="give NIfTI files") from error
    volume = volume[..., 0] if volume.ndim == 4 else volume
    if volume.min() == volume.max():
        raise CascadeError(f"{path}: every voxel has the same value", fix="leave it out")
    pictures = slices_of(volume, tuple(float(size) or 1.0 for size in image.header.get_zooms()[:3]), count)
    for name, picture in pictures.items():
        write_png(out / f"{_stem(path)}-{name}.png", picture)
    return len(pictures)


def main() -> None:
    """Parse the command line and write the slices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("volumes", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=16, help="slices of each view")
    arguments = parser.parse_args()
    with exit_on_cascade_error():
        check_names(arguments.volumes)
        for path in arguments.volumes:
            print(f"{path}: {write_slices(path, arguments.out, arguments.count)} slices")


if __name__ == "__main__":
    main()
