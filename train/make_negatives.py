"""Slices of a data set with healthy tissue where the tumor was → PNGs to count false alarms on.

    python -m train.make_negatives figshare/ tumor_free/ --split figshare/split.json --part test
    cascade evaluate figshare/ --split figshare/split.json --tumor-free tumor_free/

They are made as training makes its own (train/inpainting.py), always the same ones, from the people of the part alone,
in a folder for each class. Each pixel of SEGMENTER_SIZE is written several times, so that the segmenter sees just that
and nothing smoothed. Some keep a trace of the tumor that its outline left out: oedema, a shifted ventricle, a scar.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from cascade.contract import SLICE_SIZE
from cascade.datasets.split import PARTS, read_split
from train.dataset import SegmenterData, SliceStore, inpainted_copies
from train.png import exit_on_cascade_error, write_png
from train.preprocessing import SEGMENTER_SIZE

EACH_PIXEL = np.ones((SLICE_SIZE // SEGMENTER_SIZE,) * 2, np.uint8)
"""The pixels of a slice that are one of the segmenter's."""


def write_copies(folder: Path, split_file: Path, part: str, out: Path) -> int:
    """How many were written, each under its slice's name, in a folder a class of what was there.

    Raises CascadeError where the data cannot be read.
    """
    items = read_split(split_file).part(part)
    store = SliceStore(folder, items, f"reading {part}")
    copies = inpainted_copies(SegmenterData(store), store.subjects).tensors[0]
    for item, copy in zip(items, copies, strict=True):
        pixels = (copy[0].clamp(0, 1) * 255).round().numpy().astype(np.uint8)
        write_png(out / item.label / f"{item.path}.png", Image.fromarray(np.kron(pixels, EACH_PIXEL)))
    return len(items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labelled data set")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, default="test")
    arguments = parser.parse_args()
    with exit_on_cascade_error():
        print(f"{write_copies(arguments.folder, arguments.split, arguments.part, arguments.out)} slices")


if __name__ == "__main__":
    main()
