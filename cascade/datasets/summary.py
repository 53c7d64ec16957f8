"""Inspect a labeled data set: counts by class, patient and size, and the files that cannot be used."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import PUBLISHED_SLICES, LabeledSlice, subject_id
from cascade.datasets.progress import track
from cascade.datasets.reader import SliceInfo, count_slices, mat_files, scan
from cascade.errors import CascadeError


@dataclass(frozen=True)
class ClassCounts:
    """Number of slices of a class, and of subjects with at least one such slice."""

    slices: int
    subjects: int


@dataclass(frozen=True)
class Inspection:
    """Content of a data set. All counts and ranges refer to the slices that can be used.

    Attributes:
        slices: Number of slices that can be used.
        patients: Number of patient ids as stored.
        subjects: Number of subjects; see `subject_id`.
        by_class: Counts by class name.
        by_patient: Number of slices by patient id.
        by_size: Number of slices by size, "height x width" in pixels.
        intensity_range: Lowest and highest pixel value of all slices.
        highest_intensity: Smallest, median and largest of the slices' highest pixel values. They are far apart if
            each slice was scaled on its own.
        without_spacing: Number of slices with unknown pixel spacing.
        subjects_in_several_classes: Class names by subject, for subjects with slices of more than one class.
        empty_masks: Paths of slices whose mask contains no tumor.
        missing: Names of published figshare files that are missing, if the folder has files of such names.
        broken: Fix by problem of slices that cannot be used, blank ones included; slices with one problem share it.
    """

    slices: int
    patients: int
    subjects: int
    by_class: dict[str, ClassCounts]
    by_patient: dict[str, int]
    by_size: dict[str, int]
    intensity_range: tuple[float, float] | None
    highest_intensity: tuple[float, float, float] | None
    without_spacing: int
    subjects_in_several_classes: dict[str, list[str]]
    empty_masks: list[str]
    missing: list[str]
    broken: dict[str, str]


def inspect_folder(folder: Path) -> Inspection:
    """Read every slice of a data set and count, with a progress bar on stderr.

    Raises:
        CascadeError: The folder contains no data set.
    """
    entries = track(scan(folder), "Reading slices", count_slices(folder))
    return _inspection(entries, missing=_missing(mat_files(folder)))


def _inspection(entries: Iterable[tuple[SliceInfo, LabeledSlice] | CascadeError], missing: list[str]) -> Inspection:
    infos: list[SliceInfo] = []
    sizes: Counter[str] = Counter()
    lows: list[float] = []
    highs: list[float] = []
    without_spacing = 0
    empty_masks: list[str] = []
    broken: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, CascadeError):
            broken[entry.problem] = entry.fix
            continue
        info, labeled = entry
        infos.append(info)
        sizes["{} x {}".format(*labeled.pixels.shape)] += 1
        lows.append(float(labeled.pixels.min()))
        highs.append(float(labeled.pixels.max()))
        without_spacing += labeled.spacing_mm is None
        if not labeled.mask.any():
            empty_masks.append(info.path)
    by_patient = Counter(info.patient for info in infos)
    slices_of_class = Counter(info.label for info in infos)
    classes_of: dict[str, set[str]] = defaultdict(set)
    for info in infos:
        classes_of[subject_id(info.patient)].add(info.label)
    return Inspection(
        slices=len(infos),
        patients=len(by_patient),
        subjects=len(classes_of),
        by_class={
            name: ClassCounts(slices_of_class[name], sum(name in classes for classes in classes_of.values()))
            for name in CLASS_NAMES
        },
        by_patient=dict(by_patient),
        by_size=dict(sizes.most_common()),
        intensity_range=(min(lows), max(highs)) if infos else None,
        highest_intensity=(min(highs), median(highs), max(highs)) if infos else None,
        without_spacing=without_spacing,
        subjects_in_several_classes={
            subject: sorted(classes) for subject, classes in sorted(classes_of.items()) if len(classes) > 1
        },
        empty_masks=empty_masks,
        missing=missing if all(info.mask == "" for info in infos) else [],
        broken=broken,
    )


def _missing(paths: list[Path]) -> list[str]:
    """List the published files that are missing; empty unless all files are named as the published ones."""
    if not paths or not all(path.stem.isdecimal() for path in paths):
        return []
    present = {int(path.stem) for path in paths}
    return [f"{number}.mat" for number in range(1, PUBLISHED_SLICES + 1) if number not in present]
