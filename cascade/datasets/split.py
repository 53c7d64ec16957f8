"""Which slices train, which tune and which test: decided once, written to a file, never again."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cascade.contract import CLASS_NAMES
from cascade.datasets.dataset import Record, count_slices, scan
from cascade.datasets.figshare import person
from cascade.datasets.progress import track
from cascade.errors import CascadeError
from cascade.files import sha256_of, write_atomically

PARTS = ("train", "validation", "test")
SHARES = {"test": 0.15, "validation": 0.15}


@dataclass(frozen=True)
class SplitSlice(Record):
    """A slice of the data set with its side of the split and the hashes of its files' bytes.

    mask_sha256  empty for a .mat, which holds its own mask.
    """

    part: str
    sha256: str
    mask_sha256: str = ""


@dataclass(frozen=True)
class Split:
    """slices   every slice of the data set, in its folder's order.
    sha256      of the canonical JSON of the file's `slices`: names the split in models and metrics.
    """

    slices: tuple[SplitSlice, ...]
    sha256: str

    def part(self, name: str) -> list[SplitSlice]:
        """The slices of `train`, `validation` or `test`."""
        return [item for item in self.slices if item.part == name]


def assign_parts(records: list[Record], seed: int) -> list[str]:
    """A part for each record: by person, stratified by class, SHARES of each class's slices (the rest trains).

    The last person of a class trains: of two, one trains and one tests, and of more, some are in each part. A person
    with slices of two classes goes where the first of CLASS_NAMES sends them. People are ordered by a hash of seed and
    id, not by a library's random numbers: those change between versions.
    """
    part_of: dict[str, str] = {}
    for label in CLASS_NAMES:
        counts: dict[str, int] = {}
        for record in records:
            if record.label == label:
                counts[person(record.patient)] = counts.get(person(record.patient), 0) + 1
        waiting = sorted(
            counts.keys() - part_of.keys(), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()
        )
        total = sum(counts.values())
        for parts_to_come, (part, share) in zip((2, 1), SHARES.items(), strict=True):
            kept = max(1, min(parts_to_come, len(counts) - 1))
            taken = sum(count for name, count in counts.items() if part_of.get(name) == part)
            while len(waiting) > kept and taken < share * total:
                name = waiting.pop()
                part_of[name] = part
                taken += counts[name]
        part_of.update(dict.fromkeys(waiting, "train"))
    return [part_of[person(record.patient)] for record in records]


def make_split(folder: Path, seed: int) -> tuple[Split, list[CascadeError]]:
    """The split of the data set in `folder`, and the reason for each slice that had to be left out.

    Shows its progress on stderr. Raises CascadeError where too few people are there to fill every part.
    """
    first_with: dict[str, Record] = {}  # by the slice's hash
    problems = []
    for found in track(scan(folder), "Reading the slices", count_slices(folder)):
        if isinstance(found, CascadeError):
            problems.append(found)
            continue
        record = found[0]
        first = first_with.setdefault(sha256_of(folder / record.path), record)
        if first is not record:
            problems.append(
                CascadeError(
                    f"{folder / record.path}: is a copy of {first.path}, patient {first.patient}",
                    fix="keep one of them",
                )
            )
    if not first_with:
        raise CascadeError(f"{folder}: no slice of it can be read", fix="see `cascade data inspect` for the reasons")
    records = list(first_with.values())
    slices = tuple(
        SplitSlice(
            **asdict(record),
            part=part,
            sha256=sha256,
            mask_sha256=sha256_of(folder / record.mask) if record.mask else "",
        )
        for (sha256, record), part in zip(first_with.items(), assign_parts(records, seed), strict=True)
    )
    check_leakage(slices)
    if lacking := [part for part in PARTS if part not in {item.part for item in slices}]:
        people = len({person(item.patient) for item in slices})
        raise CascadeError(
            f"{folder}: of its {people} people none is left for {' and '.join(lacking)}",
            fix="add patients: a class fills all parts from three on",
        )
    return Split(slices, _digest([asdict(item) for item in slices])), problems


def make_folds(split: Split, count: int) -> list[Split]:
    """As many splits of the same slices, by person: everyone is in the test part of one, 1 / count of each class.

    Half as many validate each, and the rest trains. Raises CascadeError where too few people are there.
    """
    bucket_of: dict[str, int] = {}
    for label in CLASS_NAMES:
        counts = Counter(person(item.patient) for item in split.slices if item.label == label)
        filled = [0] * (2 * count)
        for name, slice_count in sorted(counts.items(), key=lambda each: (-each[1], each[0])):
            emptiest = bucket_of.setdefault(name, filled.index(min(filled)))
            filled[emptiest] += slice_count
    folds = []
    for number in range(count):
        part_of = {2 * number: "test", 2 * number + 1: "test", (2 * number + 2) % (2 * count): "validation"}
        slices = tuple(
            replace(item, part=part_of.get(bucket_of[person(item.patient)], "train")) for item in split.slices
        )
        if lacking := [part for part in PARTS if part not in {item.part for item in slices}]:
            raise CascadeError(
                f"there are too few people for {count} folds: fold {number} has none for {' and '.join(lacking)}",
                fix="ask for fewer --folds",
            )
        folds.append(Split(slices, _digest([asdict(item) for item in slices])))
    return folds


def write_split(split: Split, path: Path, seed: int) -> None:
    """Raises CascadeError where `path` exists: a split that models were trained on must not change under them."""
    if path.exists():
        raise CascadeError(
            f"{path}: exists, and a split is written once", fix="use it, or name another file with --out"
        )
    content = {
        "format": "cascade split 1",
        "sha256": split.sha256,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "slices": [asdict(item) for item in split.slices],
    }
    write_atomically(path, json.dumps(content, indent=1).encode())


def read_split(path: Path) -> Split:
    """Raises CascadeError for a file that is not a split, was edited, or has a person on two sides."""
    try:
        content = json.loads(path.read_text())
        slices = tuple(SplitSlice(**{name: str(value) for name, value in item.items()}) for item in content["slices"])
        recorded, found = content["sha256"], _digest(content["slices"])
    except FileNotFoundError:
        raise CascadeError(
            f"{path}: there is no such split file", fix="write one with `cascade data split DIR`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CascadeError(
            f"{path}: is not a split file ({error})", fix="write one with `cascade data split DIR`"
        ) from error
    check_leakage(slices)
    if found != recorded:
        raise CascadeError(f"{path}: was changed after it was written", fix="restore it, or write a new split")
    return Split(slices, recorded)


def check_leakage(slices: Iterable[SplitSlice]) -> None:
    """Raises CascadeError where one person's slices, or copies of one slice, lie in two parts."""
    part_of: dict[str, str] = {}
    part_of_file: dict[str, str] = {}
    for item in slices:
        if item.part not in PARTS:
            raise CascadeError(f"{item.path}: part {item.part!r} is unknown", fix=f"use one of {', '.join(PARTS)}")
        first = part_of.setdefault(person(item.patient), item.part)
        if first != item.part:
            raise CascadeError(
                f"patient {item.patient} is in {first} and in {item.part}: figures from such a split are worthless",
                fix="write a new split with `cascade data split DIR`",
            )
        if part_of_file.setdefault(item.sha256, item.part) != item.part:
            raise CascadeError(
                f"{item.path} of patient {item.patient} is in {item.part}, a copy of it in {part_of_file[item.sha256]}",
                fix="write a new split with `cascade data split DIR`",
            )


def check_files(folder: Path, slices: Iterable[SplitSlice]) -> None:
    """Raises CascadeError for the first file that is missing or is not the one the split was made of."""
    for item in slices:
        for name, sha256 in ((item.path, item.sha256), (item.mask, item.mask_sha256)):
            if not name:
                continue
            path = folder / name
            if not path.is_file():
                raise CascadeError(
                    f"{path}: is in the split but not in the folder", fix="give the folder the split was made of"
                )
            if sha256_of(path) != sha256:
                raise CascadeError(
                    f"{path}: is not the file the split was made of", fix="restore it, or write a new split"
                )


def _digest(slices: list[dict[str, str]]) -> str:
    return hashlib.sha256(json.dumps(slices, sort_keys=True).encode()).hexdigest()
