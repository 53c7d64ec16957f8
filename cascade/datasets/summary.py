"""What lies in a labelled data set: counts by class, patient and size, and by name all that is amiss."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cascade.contract import CLASS_NAMES
from cascade.datasets.dataset import Record, count_slices, mat_files, scan
from cascade.datasets.figshare import PUBLISHED_SLICES, LabelledSlice, person
from cascade.datasets.progress import track
from cascade.errors import CascadeError


@dataclass(frozen=True)
class Inspection:
    """What can be used, and what cannot.

    slices             that can be used; all counts and ranges are of these.
    patients, people   ids as stored; and once the MR ids that differ by a trailing letter are joined.
    by_class           class name → (slices, people).
    by_patient         patient id → slices.
    by_size            "height x width" in pixels → slices.
    intensity_range    lowest and highest pixel of all slices.
    highest_intensity  of a slice: smallest, median and largest; far apart, the slices are scaled one by one.
    without_spacing    slices whose size in mm is not known.
    of_two_classes     person → class names, where they are more than one.
    empty_masks        slices on whose mask there is no tumor.
    missing            of 1.mat to 3064.mat, in a folder of such names.
    broken             what is wrong, naming the file → the fix. Blank slices and missing pictures are here.
    """

    slices: int
    patients: int
    people: int
    by_class: dict[str, tuple[int, int]]
    by_patient: dict[str, int]
    by_size: dict[str, int]
    intensity_range: tuple[float, float] | None
    highest_intensity: tuple[float, float, float] | None
    without_spacing: int
    of_two_classes: dict[str, list[str]]
    empty_masks: list[str]
    missing: list[str]
    broken: dict[str, str]


def inspect_folder(folder: Path) -> Inspection:
    """Opens every slice, with a progress bar on stderr. Raises CascadeError where the folder holds no data set."""
    found = track(scan(folder), "Opening the slices", count_slices(folder))
    return _inspection(found, missing=_missing(mat_files(folder)))


def _inspection(found: Iterable[tuple[Record, LabelledSlice] | CascadeError], missing: list[str]) -> Inspection:
    records: list[Record] = []
    sizes: Counter[str] = Counter()
    lows: list[float] = []
    highs: list[float] = []
    without_spacing = 0
    empty_masks: list[str] = []
    broken: dict[str, str] = {}
    for item in found:
        if isinstance(item, CascadeError):
            broken[item.problem] = item.fix
            continue
        record, labelled = item
        records.append(record)
        sizes["{} x {}".format(*labelled.pixels.shape)] += 1
        lows.append(float(labelled.pixels.min()))
        highs.append(float(labelled.pixels.max()))
        without_spacing += labelled.spacing_mm is None
        if not labelled.mask.any():
            empty_masks.append(record.path)
    by_patient = Counter(record.patient for record in records)
    classes_of: dict[str, set[str]] = defaultdict(set)
    for record in records:
        classes_of[person(record.patient)].add(record.label)
    slices_of_class = Counter(record.label for record in records)
    return Inspection(
        slices=len(records),
        patients=len(by_patient),
        people=len(classes_of),
        by_class={
            name: (slices_of_class[name], sum(name in own for own in classes_of.values())) for name in CLASS_NAMES
        },
        by_patient=dict(by_patient),
        by_size=dict(sizes.most_common()),
        intensity_range=(min(lows), max(highs)) if records else None,
        highest_intensity=(min(highs), median(highs), max(highs)) if records else None,
        without_spacing=without_spacing,
        of_two_classes={name: sorted(own) for name, own in sorted(classes_of.items()) if len(own) > 1},
        empty_masks=empty_masks,
        missing=missing if all(record.mask == "" for record in records) else [],
        broken=broken,
    )


def _missing(paths: list[Path]) -> list[str]:
    """The published slices that are not there; none where the files are not named as the published ones are."""
    if not paths or not all(path.stem.isdecimal() for path in paths):
        return []
    there = {int(path.stem) for path in paths}
    return [f"{number}.mat" for number in range(1, PUBLISHED_SLICES + 1) if number not in there]
