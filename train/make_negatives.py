"""Write slices of a data set with their tumor removed, as PNGs, to measure the false-positive rate on.

    python -m train.make_negatives figshare/ negatives/ --split figshare/split.json --subset test
    cascade evaluate figshare/ --split figshare/split.json --negatives negatives/

Tumors are removed as in training (train/inpainting.py), with donors from the same subset, and always in the same way.
There is a folder for each class. Each pixel of SEGMENTER_SIZE is repeated, so that the segmenter sees it unsmoothed.
Some slices keep a trace of the tumor that its outline left out: edema, a shifted ventricle, a scar.
"""

import argparse
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from cascade.contract import SLICE_SIZE
from cascade.datasets.split import SUBSETS, read_split
from cascade.errors import CascadeError
from train.dataset import SegmenterData, SliceStore, inpainted_copies
from train.png import exit_on_cascade_error, write_png
from train.preprocessing import SEGMENTER_SIZE

EACH_PIXEL = np.ones((SLICE_SIZE // SEGMENTER_SIZE,) * 2, np.uint8)
"""The pixels of a slice that one pixel of the segmenter's input covers."""


def write_copies(folder: Path, split_file: Path, part: str, out: Path) -> int:
    """Write the slices of a part, each under its own name in the folder of its class, and return their number.

    Raises:
        CascadeError: The data cannot be read.
    """
    items = read_split(split_file).subset(part)
    if not items:
        raise CascadeError(f"{split_file}: its {part} subset is empty", fix="choose another one with --subset")
    targets = [out / item.label / f"{_below(item.path)}.png" for item in items]
    if doubled := [target for target, count in Counter(targets).items() if count > 1]:
        raise CascadeError(f"{doubled[0]}: two slices would have this name", fix="put the table above all its slices")
    store = SliceStore(folder, items, f"reading {part}")
    copies = inpainted_copies(SegmenterData(store), store.subjects).tensors[0]
    for target, copy in zip(targets, copies, strict=True):
        pixels = (copy[0].clamp(0, 1) * 255).round().numpy().astype(np.uint8)
        write_png(target, Image.fromarray(np.kron(pixels, EACH_PIXEL)))
    return len(items)


def _below(path: str) -> PurePosixPath:
    """Return a path without the parts that lead up."""
    return PurePosixPath(*(part for part in PurePosixPath(path).parts if part != ".."))


def main() -> None:
    """Parse the command line and write the copies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labeled data set")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--subset", choices=SUBSETS, default="test")
    arguments = parser.parse_args()
    with exit_on_cascade_error():
        print(f"{write_copies(arguments.folder, arguments.split, arguments.subset, arguments.out)} slices")


if __name__ == "__main__":
    main()
