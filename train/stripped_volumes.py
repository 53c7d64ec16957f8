"""How many subjects have a finding once their heads are skull-stripped: volumes and stacks of an index.

    python -m train.stripped_volumes MODELS INDEX [INDEX ...] [--every 3] [--csv FILE]

The indexes are those of train/calibrate_volumes.py, and so are the stacks. Each slice is stripped as in
train/robustness.py: a band of 9 mm along the border of the head becomes black, with the air around it.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cascade.files import write_atomically
from cascade.io.image import read_slice
from cascade.io.open import open_source
from cascade.io.slices import BlankSlice, Slice, SliceReader
from cascade.pipeline import Cascade
from cascade.volume.finding import VolumeFinding
from train.calibrate_volumes import LabeledVolume, labeled_volumes, supports_as_csv
from train.external import read_index
from train.png import exit_on_cascade_error
from train.robustness import stripped


def stripped_finding(cascade: Cascade, volume: LabeledVolume, every: int = 1) -> VolumeFinding:
    """Return the finding of a skull-stripped volume.

    Args:
        cascade: Loaded models.
        volume: A volume file, or a stack of pictures.
        every: Take every n-th slice of a volume file; a stack of pictures stays whole.
    """
    if len(volume.paths) > 1:
        return cascade.predict_volume([stripped_slice(read_slice(path)) for path in volume.paths]).finding
    with closing(open_source(volume.paths[0])) as source:
        slices = [_read_stripped(source, index) for index in range(0, source.count, every)]
        spacing_mm = next(slice_.spacing_mm for slice_ in slices if slice_.spacing_mm)
        distance_mm = source.slab_mm[0] * every if source.slab_mm else None
    return cascade.predict_volume(slices, spacing_mm=(distance_mm, *spacing_mm) if distance_mm else None).finding


def _read_stripped(source: SliceReader, index: int) -> Slice:
    try:
        return stripped_slice(source.read(index))
    except BlankSlice as error:
        return Slice(np.zeros(error.shape, np.float32))


def stripped_slice(slice_: Slice) -> Slice:
    """Return a slice, scaled to 0 to 1, without the border of the head."""
    pixels = slice_.pixels - slice_.pixels.min()
    pixel_mm = slice_.spacing_mm[0] if slice_.spacing_mm else None
    return Slice(stripped(pixels / pixels.max(), pixel_mm), slice_.spacing_mm)


def findings_table(found: Iterable[tuple[LabeledVolume, VolumeFinding]]) -> Table:
    """Count subjects, and those with a finding in any volume, by set, part and whether they have a tumor."""
    groups: dict[tuple[str, str, bool], dict[str, bool]] = defaultdict(dict)
    for volume, finding in found:
        group = groups[volume.set_name, volume.part, volume.tumor]
        group[volume.subject] = group.get(volume.subject, False) or finding.label is not None
    table = Table("set", "part", "tumor", "subjects", "with a finding", title="Skull-stripped volumes")
    for (set_name, part, tumor), subjects in sorted(groups.items()):
        table.add_row(set_name, part, "yes" if tumor else "no", str(len(subjects)), str(sum(subjects.values())))
    return table


def main() -> None:
    """Strip the volumes of some indexes, and count the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of both graphs and models.json")
    parser.add_argument("index", type=Path, nargs="+", help="tables of slices and volumes")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--every", type=int, default=3, help="take every n-th slice of a volume file")
    parser.add_argument("--csv", type=Path, help="write the support of each volume to this file")
    options = parser.parse_args()
    with exit_on_cascade_error():
        cascade = Cascade.open(options.models, options.backend)
        volumes = labeled_volumes(item for index in options.index for item in read_index(index))
        progress = track(volumes, "predicting volumes", console=Console(stderr=True))
        found = [(volume, stripped_finding(cascade, volume, options.every)) for volume in progress]
        if options.csv:
            supports = [(volume, finding.support) for volume, finding in found]
            write_atomically(options.csv, supports_as_csv(supports).encode())
        Console().print(findings_table(found))


if __name__ == "__main__":
    main()
