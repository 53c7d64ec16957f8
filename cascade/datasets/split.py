"""Patient-level split of a data set into train, validation and test, written once to a file and never changed."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import subject_id
from cascade.datasets.progress import track
from cascade.datasets.reader import SliceInfo, count_slices, scan
from cascade.errors import CascadeError
from cascade.files import sha256_of, write_atomically

SUBSETS = ("train", "validation", "test")

FRACTIONS = {"test": 0.15, "validation": 0.15}
"""Target fraction of the slices of each class; the remaining slices train."""

SCHEMA = "cascade split 2"


@dataclass(frozen=True)
class SplitSlice(SliceInfo):
    """A slice of the data set with its subset of the split.

    Attributes:
        part: One of SUBSETS; named as in the split files, whose hash covers it.
        sha256: SHA-256 of the slice file.
        mask_sha256: SHA-256 of the mask file; empty for a .mat, which contains its mask.
    """

    part: str
    sha256: str
    mask_sha256: str = ""


@dataclass(frozen=True)
class Split:
    """A split of a data set.

    Attributes:
        slices: All slices of the data set, in the order of `scan`.
        sha256: SHA-256 of `slices` as canonical JSON; identifies the split in models and metrics.
    """

    slices: tuple[SplitSlice, ...]
    sha256: str

    def subset(self, name: str) -> list[SplitSlice]:
        """Return the slices of one of SUBSETS."""
        return [item for item in self.slices if item.part == name]


def assign_subsets(infos: list[SliceInfo], seed: int) -> list[str]:
    """Assign slices to subsets by subject, stratified by class.

    At least one subject of each class trains. Of two subjects, one trains and one tests; from three on, every subset
    gets at least one. A subject with slices of several classes is assigned with the first of them in CLASS_NAMES.
    Subjects are ordered by a hash of seed and subject instead of a library's random numbers, which change between
    versions.

    Args:
        infos: Slices of the data set.
        seed: Seed of the random order of the subjects.

    Returns:
        One of SUBSETS for each slice.
    """
    subset_of: dict[str, str] = {}
    for label in CLASS_NAMES:
        counts = Counter(subject_id(info.patient) for info in infos if info.label == label)
        unassigned = sorted(
            counts.keys() - subset_of.keys(), key=lambda subject: hashlib.sha256(f"{seed}:{subject}".encode()).digest()
        )
        total, free = sum(counts.values()), len(unassigned)
        filled = {subset_of[subject] for subject in counts if subject in subset_of}
        for later, (subset, fraction) in zip((("validation", "train"), ("train",)), FRACTIONS.items(), strict=True):
            reserved = max("train" not in filled, min(len(set(later) - filled), free - 1))
            assigned = sum(count for subject, count in counts.items() if subset_of.get(subject) == subset)
            while len(unassigned) > reserved and assigned < fraction * total:
                subject = unassigned.pop()
                subset_of[subject] = subset
                assigned += counts[subject]
        subset_of.update(dict.fromkeys(unassigned, "train"))
    return [subset_of[subject_id(info.patient)] for info in infos]


def make_split(folder: Path, seed: int, *, all_train: bool = False) -> tuple[Split, list[CascadeError]]:
    """Split the data set in a folder, with a progress bar on stderr.

    Args:
        folder: Folder of the data set.
        seed: Seed of `assign_subsets`.
        all_train: Assign every subject to the training subset, see `train_on_all`.

    Returns:
        The split, and one error for each slice that was left out because it cannot be used or is a copy.

    Raises:
        CascadeError: No slice can be used, or there are too few subjects to fill every subset.
    """
    info_of: dict[str, SliceInfo] = {}  # by SHA-256 of the slice
    problems = []
    for entry in track(scan(folder), "Reading slices", count_slices(folder)):
        if isinstance(entry, CascadeError):
            problems.append(entry)
            continue
        info = entry[0]
        first = info_of.setdefault(sha256_of(folder / info.path), info)
        if first is not info:
            problems.append(
                CascadeError(
                    f"{folder / info.path}: is a copy of {first.path} of patient {first.patient}",
                    fix="remove one of them",
                )
            )
    if not info_of:
        raise CascadeError(
            f"{folder}: none of its slices can be read", fix="run `cascade data inspect` to see the reasons"
        )
    subsets = assign_subsets(list(info_of.values()), seed)
    slices = tuple(
        SplitSlice(
            **asdict(info),
            part=subset,
            sha256=sha256,
            mask_sha256=sha256_of(folder / info.mask) if info.mask else "",
        )
        for (sha256, info), subset in zip(info_of.items(), subsets, strict=True)
    )
    check_leakage(slices)
    if all_train:
        return train_on_all(_split_of(slices)), problems
    if empty := _empty_subsets(slices):
        subjects = len({subject_id(item.patient) for item in slices})
        unused = f"; {len(problems):,} slices cannot be used, the first: {problems[0].problem}" if problems else ""
        raise CascadeError(
            f"{folder}: {subjects} subjects are too few, {' and '.join(empty)} would be empty{unused}",
            fix="add patients: a class with three subjects fills every subset",
        )
    return _split_of(slices), problems


def make_folds(split: Split, count: int, *, keep_train: bool = False) -> list[Split]:
    """Make the splits of a cross-validation, by subject and stratified by class.

    The slices of each class are divided into 2 * `count` buckets of about equal size, see `subsets_of_buckets`.

    Args:
        split: Lists the slices; its subsets are not used, except by `keep_train`.
        count: Number of folds.
        keep_train: Whether the split's train subset trains in every fold, and only the others are tested.

    Returns:
        One split for each fold. Every subject, except those kept, is in the test subset of exactly one of them.

    Raises:
        CascadeError: There are too few subjects to fill every subset of every fold.
    """
    bucket_of: dict[str, int] = {}
    distributed = [item for item in split.slices if not (keep_train and item.part == "train")]
    for label in CLASS_NAMES:
        counts = Counter(subject_id(item.patient) for item in distributed if item.label == label)
        sizes = [0] * (2 * count)
        for subject, slice_count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            bucket = bucket_of.setdefault(subject, sizes.index(min(sizes)))
            sizes[bucket] += slice_count
    folds = []
    for fold in range(count):
        subset_of = subsets_of_buckets(fold, count)
        slices = tuple(
            replace(item, part=subset_of.get(bucket_of.get(subject_id(item.patient), -1), "train"))
            for item in split.slices
        )
        if empty := _empty_subsets(slices):
            raise CascadeError(
                f"too few subjects for {count} folds: {' and '.join(empty)} would be empty in fold {fold}",
                fix="use fewer --folds",
            )
        folds.append(_split_of(slices))
    return folds


def subsets_of_buckets(fold: int, count: int) -> dict[int, str]:
    """Return which of the 2 * `count` buckets a fold of a cross-validation does not train on: bucket → subset.

    Fold i tests on buckets 2i and 2i + 1, and validates on 2i + 2, the first one that the next fold tests on.
    """
    return {2 * fold: "test", 2 * fold + 1: "test", (2 * fold + 2) % (2 * count): "validation"}


def train_on_all(split: Split) -> Split:
    """Assign every subject to the training subset, for final models. Nothing is left to validate or test them on."""
    return _split_of(tuple(replace(item, part="train") for item in split.slices))


def check_is_new(path: Path) -> None:
    """Raise CascadeError if a split file exists: one that models were trained on must not change."""
    if path.exists():
        raise CascadeError(f"{path}: the split file exists already", fix="use it, or name another file with --out")


def write_split(split: Split, path: Path, seed: int) -> None:
    """Write a split as JSON.

    Raises:
        CascadeError: The file exists, see `check_is_new`.
    """
    check_is_new(path)
    content = {
        "schema": SCHEMA,
        "sha256": split.sha256,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "slices": [asdict(item) for item in split.slices],
    }
    write_atomically(path, json.dumps(content, indent=1).encode())


def read_split(path: Path) -> Split:
    """Read a split that `write_split` wrote.

    Raises:
        CascadeError: The file is missing, is not a split or was edited, or a subject is in several subsets.
    """
    try:
        content = json.loads(path.read_text())
        slices = tuple(SplitSlice(**{name: str(value) for name, value in item.items()}) for item in content["slices"])
        recorded, computed = content["sha256"], _digest(content["slices"])
    except FileNotFoundError:
        raise CascadeError(
            f"{path}: there is no such split file", fix="write one with `cascade data split DIR`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CascadeError(
            f"{path}: is not a split file ({error})", fix="write one with `cascade data split DIR`"
        ) from error
    check_leakage(slices)
    if computed != recorded:
        raise CascadeError(f"{path}: was edited after it was written", fix="restore it, or write a new split")
    return Split(slices, recorded)


def check_leakage(slices: Iterable[SplitSlice]) -> None:
    """Check that no subject and no file is in several subsets of a split.

    Raises:
        CascadeError: Slices of one subject, or copies of one slice, are in several subsets, or a subset is unknown.
    """
    subset_of_subject: dict[str, str] = {}
    subset_of_file: dict[str, str] = {}
    for item in slices:
        if item.part not in SUBSETS:
            raise CascadeError(f"{item.path}: unknown subset {item.part!r}", fix=f"use one of {', '.join(SUBSETS)}")
        first = subset_of_subject.setdefault(subject_id(item.patient), item.part)
        if first != item.part:
            raise CascadeError(
                f"patient {item.patient} is in {first} and in {item.part}: metrics of such a split are biased",
                fix="write a new split with `cascade data split DIR`",
            )
        first = subset_of_file.setdefault(item.sha256, item.part)
        if first != item.part:
            raise CascadeError(
                f"{item.path} of patient {item.patient} is in {item.part}, a copy of it in {first}",
                fix="write a new split with `cascade data split DIR`",
            )


def check_files(folder: Path, slices: Iterable[SplitSlice]) -> None:
    """Check that the files of a data set are those that it was split with.

    Raises:
        CascadeError: A file of `slices` is missing or has another SHA-256. Names the first such file.
    """
    for item in slices:
        for name, sha256 in ((item.path, item.sha256), (item.mask, item.mask_sha256)):
            if not name:
                continue
            path = folder / name
            if not path.is_file():
                raise CascadeError(
                    f"{path}: is in the split but not in the folder",
                    fix="give the folder that the split was made from",
                )
            if sha256_of(path) != sha256:
                raise CascadeError(
                    f"{path}: has changed since the split was made", fix="restore it, or write a new split"
                )


def _split_of(slices: tuple[SplitSlice, ...]) -> Split:
    return Split(slices, _digest([asdict(item) for item in slices]))


def _empty_subsets(slices: Iterable[SplitSlice]) -> list[str]:
    used = {item.part for item in slices}
    return [subset for subset in SUBSETS if subset not in used]


def _digest(slices: list[dict[str, str]]) -> str:
    return hashlib.sha256(json.dumps(slices, sort_keys=True).encode()).hexdigest()
