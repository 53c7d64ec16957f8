"""What happens to skull-stripped heads: whether they are recognized, and how many subjects have a finding.

    python -m train.stripped_volumes MODELS INDEX [INDEX ...] [--every 3] [--csv FILE]

The indexes are those of train/calibrate_volumes.py, and so are the stacks. Each slice is stripped as in
train/robustness.py: a band of 9 mm along the border of the head becomes black, with the air around it. That leaves more
than a brain, so "noted as stripped" counts volumes as they are: sets with stripped heads show what is recognized, and
the others what is noted wrongly.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cascade.files import write_atomically
from cascade.io.arrays import ArrayVolume
from cascade.io.open import open_source
from cascade.io.slices import BlankSlice, Slice
from cascade.io.source import SliceReader
from cascade.pipeline import Cascade
from cascade.volume.finding import VolumeFinding
from cascade.volume.stripped import is_stripped, looks_stripped
from train.calibrate_volumes import LabeledVolume, labeled_volumes, supports_as_csv
from train.external import read_index
from train.png import exit_on_cascade_error
from train.robustness import stripped


@dataclass(frozen=True)
class Outcome:
    """What was found in a volume.

    Attributes:
        volume: The volume.
        noted: Whether it is recognized as skull-stripped as it is.
        stripped: The finding of the volume after stripping.
    """

    volume: LabeledVolume
    noted: bool
    stripped: VolumeFinding


def strip_volume(cascade: Cascade, volume: LabeledVolume, every: int = 1) -> Outcome:
    """Predict a volume after stripping its slices.

    Args:
        cascade: Loaded models.
        volume: A volume file, or a stack of pictures.
        every: Take every n-th slice of a volume file; a stack of pictures stays whole.
    """
    spacing_mm = None
    if len(volume.paths) > 1:
        stack = ArrayVolume(volume.paths)
        slices = [_read(stack, index) for index in range(stack.count)]
    else:
        with closing(open_source(volume.paths[0])) as source:
            slices = [_read(source, index) for index in range(0, source.count, every)]
            in_plane = next(slice_.spacing_mm for slice_ in slices if slice_.spacing_mm)
            spacing_mm = (source.slab_mm[0] * every, *in_plane) if source.slab_mm else None
    noted = is_stripped(looks_stripped(slice_.pixels, slice_.spacing_mm) for slice_ in slices)
    finding = cascade.predict_volume([stripped_slice(slice_) for slice_ in slices], spacing_mm=spacing_mm).finding
    return Outcome(volume, noted, finding)


def _read(source: SliceReader, index: int) -> Slice:
    try:
        return source.read(index)
    except BlankSlice as error:
        return Slice(np.zeros(error.shape, np.float32))


def stripped_slice(slice_: Slice) -> Slice:
    """Return a slice, scaled to 0 to 1, without the border of the head."""
    pixels = slice_.pixels - slice_.pixels.min()
    pixel_mm = slice_.spacing_mm[0] if slice_.spacing_mm else None
    return Slice(stripped(pixels / (pixels.max() or 1), pixel_mm), slice_.spacing_mm)


def outcome_table(outcomes: Iterable[Outcome]) -> Table:
    """Count subjects by set, part and whether they have a tumor: all, those with a note and those with a finding."""
    groups: dict[tuple[str, str, bool], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.volume.set_name, outcome.volume.part, outcome.volume.tumor].append(outcome)
    table = Table("set", "part", "tumor", title="Skull-stripped volumes")
    for name in ("subjects", "noted as stripped", "finding after stripping"):
        table.add_column(name, justify="right")
    for (set_name, part, tumor), group in sorted(groups.items()):
        subjects = (
            {outcome.volume.subject for outcome in group},
            {outcome.volume.subject for outcome in group if outcome.noted},
            {outcome.volume.subject for outcome in group if outcome.stripped.label},
        )
        table.add_row(set_name, part, "yes" if tumor else "no", *(str(len(names)) for names in subjects))
    return table


def main() -> None:
    """Strip the volumes of some indexes, and count the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of both graphs and models.json")
    parser.add_argument("index", type=Path, nargs="+", help="tables of slices and volumes")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--every", type=int, default=3, help="take every n-th slice of a volume file")
    parser.add_argument("--csv", type=Path, help="write the support of each stripped volume to this file")
    options = parser.parse_args()
    with exit_on_cascade_error():
        cascade = Cascade.open(options.models, options.backend)
        volumes = labeled_volumes(item for index in options.index for item in read_index(index))
        progress = track(volumes, "predicting volumes", console=Console(stderr=True))
        outcomes = [strip_volume(cascade, volume, options.every) for volume in progress]
        if options.csv:
            supports = [(outcome.volume, outcome.stripped.support) for outcome in outcomes]
            write_atomically(options.csv, supports_as_csv(supports).encode())
        Console().print(outcome_table(outcomes))


if __name__ == "__main__":
    main()
