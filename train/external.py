"""Slices from other scanners to train with: tumor-free ones, tumors with coarse masks, tumors with a class only.

An index CSV lists them, one line a slice; paths are relative to the CSV's folder:

    image       slice, in any format that `cascade predict` reads as one picture.
    class       meningioma, glioma or pituitary tumor; `none` for a tumor-free slice.
    subject     patient id. Slices of one subject are never on two sides of a split.
    mask        mask on the slice's own grid; empty for tumor-free slices and where there is no mask.
    mask_kind   which pixels the mask is certain about (MASK_KINDS); empty means `exact`.
    set         optional: name of the data set, for sampling and for tables. Default: the CSV's folder.
    set_weight  optional: how often the set is drawn, relative to others. Default: square root of its subjects.
    part        optional: train, validation or test. Default: train.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cascade.contract import CLASS_NAMES
from cascade.datasets.split import SUBSETS, Split, subsets_of_buckets
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.files import read_errors, sha256_of, sha256_of_bytes

COLUMNS = ("image", "class", "subject")
"""Columns that an index must have."""

OPTIONAL_COLUMNS = ("mask", "mask_kind", "set", "set_weight", "part")

NEGATIVE = "none"
"""Class of a tumor-free slice."""

MASK_KINDS = {
    "exact": "the outline of the tumor",
    "inside_uncertain": "an area that holds the tumor; all pixels outside are background",
    "outside_uncertain": "a part that is certainly tumor; the tissue around it is uncertain",
}


@dataclass(frozen=True)
class ExternalSlice:
    """One line of an index.

    Attributes:
        path: The slice's file.
        mask: Its mask's file, or None.
        mask_kind: One of MASK_KINDS, or an empty string without a mask.
        label: One of CLASS_NAMES, or NEGATIVE.
        subject: Unique over all sets: the set's name is part of it.
        set_name: The data set.
        set_weight: How often the set is drawn, relative to others; None where the index does not give it.
        part: train, validation or test.
        is_subject_known: Whether `subject` is a person; otherwise it stands for this slice alone.
    """

    path: Path
    mask: Path | None
    mask_kind: str
    label: str
    subject: str
    set_name: str
    set_weight: float | None
    part: str
    is_subject_known: bool = True

    @property
    def name(self) -> str:
        """Name of the file, for messages and tables."""
        return self.path.name


def index_file(path: Path) -> Path:
    """Return the path of an index CSV: the file `index.csv` of a folder."""
    return path / "index.csv" if path.is_dir() else path


def read_index(path: Path) -> list[ExternalSlice]:
    """Read an index CSV, or the file `index.csv` of a folder.

    Raises:
        CascadeError: The file or a column is missing, or a line is invalid; the message names the line.
    """
    table = index_file(path)
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise CascadeError(
                    f"{table}: has no column {', '.join(missing)}", fix=f"write the columns {', '.join(COLUMNS)}"
                )
            items = [_item(row, table, f"{table}, line {rows.line_num}") for row in rows]
    except FileNotFoundError:
        raise CascadeError(f"{table}: there is no such index", fix="give a folder with an index.csv") from None
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise CascadeError(f"{table}: cannot be read ({error})", fix="save it as CSV, UTF-8") from error
    if not items:
        raise CascadeError(f"{table}: lists no slice", fix="write one line for each slice")
    return items


def read_negatives(folder: Path, set_name: str | None = None) -> list[ExternalSlice]:
    """List all slices in a folder as tumor-free slices for training, each as a subject of its own.

    Args:
        folder: The folder.
        set_name: Name of the set; None for that of the folder.

    Raises:
        CascadeError: The folder holds no slice, or a file that cannot be read.
    """
    inputs = find_slices([folder])
    for error in inputs.problems.values():
        raise error
    set_name = set_name or folder.name
    return [
        ExternalSlice(
            inputs.folder / name,
            None,
            "",
            NEGATIVE,
            f"{set_name}/{name}",
            set_name,
            None,
            part="train",
            is_subject_known=False,
        )
        for name in inputs.names
    ]


def _item(row: dict[str, str | None], table: Path, place: str) -> ExternalSlice:
    cell = {name: (row.get(name) or "").strip() for name in (*COLUMNS, *OPTIONAL_COLUMNS)}
    labels = {name.casefold(): name for name in (*CLASS_NAMES, NEGATIVE)}
    label = labels.get(cell["class"].casefold())
    if label is None:
        raise CascadeError(
            f"{place}: class {cell['class']!r} is unknown", fix=f"write one of {', '.join(labels.values())}"
        )
    if not (cell["image"] and cell["subject"]):
        raise CascadeError(f"{place}: image or subject is empty", fix="fill both cells")
    kind = cell["mask_kind"] or ("exact" if cell["mask"] else "")
    if kind and kind not in MASK_KINDS:
        raise CascadeError(f"{place}: mask_kind {kind!r} is unknown", fix=f"write one of {', '.join(MASK_KINDS)}")
    if bool(kind) != bool(cell["mask"]):
        raise CascadeError(f"{place}: has a mask_kind but no mask", fix="fill both cells, or leave both empty")
    if label == NEGATIVE and cell["mask"]:
        raise CascadeError(f"{place}: is tumor-free but has a mask", fix="leave the mask empty, or name the class")
    part = cell["part"] or "train"
    if part not in SUBSETS:
        raise CascadeError(f"{place}: part {part!r} is unknown", fix=f"write one of {', '.join(SUBSETS)}")
    set_name = cell["set"] or table.parent.resolve().name
    return ExternalSlice(
        table.parent / cell["image"],
        table.parent / cell["mask"] if cell["mask"] else None,
        kind,
        label,
        f"{set_name}/{cell['subject']}",
        set_name,
        _weight(cell["set_weight"], place),
        part,
    )


def _weight(text: str, place: str) -> float | None:
    if not text:
        return None
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 < weight < float("inf"):
        raise CascadeError(f"{place}: set_weight {text!r} is not a positive number", fix="write a number such as 2.5")
    return weight


def check_subjects(items: Iterable[ExternalSlice]) -> None:
    """Raise CascadeError if slices of one subject lie in two parts."""
    parts: dict[str, str] = {}
    for item in items:
        if (part := parts.setdefault(item.subject, item.part)) != item.part:
            raise CascadeError(
                f"{item.path}: subject {item.subject} is in {part} and in {item.part}",
                fix="put all slices of a subject into one part",
            )


def check_apart(items: Iterable[ExternalSlice], split: Split) -> None:
    """Check that no external slice is in two parts, or in the data set in another part: it could train what it tests.

    Slices are compared by their files, so different slices of one subject are not noticed.

    Raises:
        CascadeError: If one is, or cannot be read.
    """
    slice_of = {slice_.sha256: slice_ for slice_ in split.slices}
    first_of: dict[str, ExternalSlice] = {}
    for item in items:
        digest = _file_digest(item.path)
        first, same = first_of.setdefault(digest, item), slice_of.get(digest)
        if first.part != item.part:
            raise CascadeError(
                f"{item.path}: is the same file as {first.path}, which is in {first.part}, not in {item.part}",
                fix="list each slice once, in --external or in --negatives",
            )
        if same and same.part != item.part:
            raise CascadeError(
                f"{item.path}: is {same.path} of the data set, which is in {same.part}, not in {item.part}",
                fix="leave the slices of the data set out of the index",
            )


def external_folds(items: Sequence[ExternalSlice], count: int) -> list[list[ExternalSlice]]:
    """Distribute subjects over folds: each is in the test part of one fold.

    Half as many subjects validate each fold, and the rest trains. The parts of the index are not used. Sets, and in
    them subjects with and without a tumor, are distributed one by one: a subject goes where the fewest of their slices
    are, largest subjects first. Slices of unknown subjects train in every fold: tested beside other slices of the same
    head, they would flatter the models.

    Returns:
        For each of `count` folds, all slices with their part in it.

    Raises:
        CascadeError: No slice would train in one of the folds.
    """
    bucket_of: dict[str, int] = {}
    known = [item for item in items if item.is_subject_known]
    with_tumor = {item.subject for item in known if item.label != NEGATIVE}
    for set_name, tumor in dict.fromkeys((item.set_name, item.subject in with_tumor) for item in known):
        sizes = Counter(
            item.subject for item in known if item.set_name == set_name and (item.subject in with_tumor) == tumor
        )
        filled = [0] * (2 * count)
        for subject, size in sorted(sizes.items(), key=lambda each: (-each[1], each[0])):
            bucket_of[subject] = filled.index(min(filled))
            filled[bucket_of[subject]] += size
    folds = []
    for fold in range(count):
        part_of = subsets_of_buckets(fold, count)
        folds.append(
            [
                replace(item, part=part_of.get(bucket_of[item.subject], "train")) if item.is_subject_known else item
                for item in items
            ]
        )
        if items and all(item.part != "train" for item in folds[fold]):
            raise CascadeError(
                f"too few external subjects for {count} folds: none would train in fold {fold}",
                fix="use more --folds, add subjects, or leave --external out",
            )
    return folds


def sha256_of_items(items: Iterable[ExternalSlice]) -> str:
    """Hex digest of the slices' files, masks, classes, subjects, parts and sets with their weights, in their order.

    Raises CascadeError, naming the file, if one cannot be read.
    """
    lines = [
        "|".join(
            [
                *(_file_digest(item.path), _file_digest(item.mask) if item.mask else ""),
                *(item.mask_kind, item.label, item.subject, item.part, item.set_name, str(item.set_weight)),
            ]
        )
        for item in items
    ]
    return sha256_of_bytes("\n".join(lines).encode())


def _file_digest(path: Path) -> str:
    with read_errors(path, lambda error: CascadeError(f"{path}: cannot be read ({error})", fix="check the path")):
        return sha256_of(path)
