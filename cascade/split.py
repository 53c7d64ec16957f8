"""Which slices train, which tune and which test: decided once, written to a file, never again."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cascade.contract import CLASS_NAMES
from cascade.dataset import Record, scan
from cascade.errors import CascadeError
from cascade.figshare import person
from cascade.files import sha256_of, write_atomically

PARTS = ("train", "validation", "test")
SHARES = {"test": 0.15, "validation": 0.15}


@dataclass(frozen=True)
class SplitSlice(Record):
    """A slice of the data set with its side of the split and the hash of its file's bytes."""

    part: str
    sha256: str


@dataclass(frozen=True)
class Split:
    """slices   every slice of the data set, in its folder's order.
    sha256      of the canonical JSON of `slices`: names the split in models and metrics.
    """

    slices: tuple[SplitSlice, ...]
    sha256: str

    def part(self, name: str) -> list[SplitSlice]:
        """The slices of `train`, `validation` or `test`."""
        return [item for item in self.slices if item.part == name]


def assign_parts(records: list[Record], seed: int) -> list[str]:
    """A part for each record: by person, stratified by class, SHARES of each class's slices (the rest trains).

    People are ordered by a hash of seed and id, not by a library's random numbers: those change between versions.
    """
    part_of: dict[str, str] = {}
    for label in CLASS_NAMES:
        counts: dict[str, int] = {}
        for record in records:
            if record.label == label:
                counts[person(record.patient)] = counts.get(person(record.patient), 0) + 1
        waiting = sorted(counts.keys() - part_of.keys(), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
        total = sum(counts.values())
        for part, share in SHARES.items():
            taken = sum(count for name, count in counts.items() if part_of.get(name) == part)
            while waiting and taken < share * total:
                name = waiting.pop()
                part_of[name] = part
                taken += counts[name]
        part_of.update(dict.fromkeys(waiting, "train"))
    return [part_of[person(record.patient)] for record in records]


def make_split(folder: Path, seed: int) -> tuple[Split, list[CascadeError]]:
    """The split of the data set in `folder`, and the reason for each slice that had to be left out."""
    records, problems = [], []
    for found in scan(folder):
        if isinstance(found, CascadeError):
            problems.append(found)
        else:
            records.append(found[0])
    if not records:
        raise CascadeError(f"{folder}: no slice of it can be read", fix="see `cascade data inspect` for the reasons")
    slices = tuple(
        SplitSlice(**asdict(record), part=part, sha256=sha256_of(folder / record.path))
        for record, part in zip(records, assign_parts(records, seed), strict=True)
    )
    check_leakage(slices)
    return Split(slices, _digest(slices)), problems


def write_split(split: Split, path: Path, seed: int) -> None:
    """Raises CascadeError where `path` exists: a split that models were trained on must not change under them."""
    if path.exists():
        raise CascadeError(f"{path}: exists, and a split is written once", fix="use it, or name another file with --out")
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
        slices = tuple(SplitSlice(**item) for item in content["slices"])
        recorded = content["sha256"]
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such split file", fix="write one with `cascade data split DIR`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CascadeError(f"{path}: is not a split file ({error})", fix="write one with `cascade data split DIR`") from error
    check_leakage(slices)
    if _digest(slices) != recorded:
        raise CascadeError(f"{path}: was changed after it was written", fix="restore it, or write a new split")
    return Split(slices, recorded)


def check_leakage(slices: Iterable[SplitSlice]) -> None:
    """Raises CascadeError where one person's slices lie in two parts."""
    part_of: dict[str, str] = {}
    for item in slices:
        if item.part not in PARTS:
            raise CascadeError(f"{item.path}: part {item.part!r} is unknown", fix=f"use one of {', '.join(PARTS)}")
        first = part_of.setdefault(person(item.patient), item.part)
        if first != item.part:
            raise CascadeError(
                f"patient {item.patient} is in {first} and in {item.part}: figures from such a split are worthless",
                fix="write a new split with `cascade data split DIR`",
            )


def check_files(folder: Path, slices: Iterable[SplitSlice]) -> None:
    """Raises CascadeError for the first file that is missing or is not the one the split was made of."""
    for item in slices:
        path = folder / item.path
        if not path.is_file():
            raise CascadeError(f"{path}: is in the split but not in the folder", fix="give the folder the split was made of")
        if sha256_of(path) != item.sha256:
            raise CascadeError(f"{path}: is not the file the split was made of", fix="restore it, or write a new split")


def _digest(slices: tuple[SplitSlice, ...]) -> str:
    return hashlib.sha256(json.dumps([asdict(item) for item in slices], sort_keys=True).encode()).hexdigest()
