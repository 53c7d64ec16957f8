"""A labelled data set on disk → `Record`s: figshare's folders of N.mat, or pictures with masks and a CSV."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.contract import CLASS_NAMES
from cascade.errors import CascadeError
from cascade.figshare import LabelledSlice, read_mat
from cascade.slices import read_grey, read_slice

COLUMNS = ("path", "mask", "label", "patient")


@dataclass(frozen=True)
class Record:
    """Where one labelled slice lies, and what must be known of it without opening it.

    path, mask  relative to the data set's folder; mask is empty for a .mat, which holds its own.
    label       one of CLASS_NAMES.
    patient     the id as stored.
    """

    path: str
    mask: str
    label: str
    patient: str


def read_labelled(folder: Path, record: Record) -> LabelledSlice:
    """Raises CascadeError, naming the file, for a slice or mask that cannot be used."""
    path = folder / record.path
    if path.suffix.lower() == ".mat":
        return read_mat(path)
    found = read_slice(path)
    mask = read_grey(folder / record.mask) > 0
    if mask.shape != found.pixels.shape:
        raise CascadeError(
            f"{folder / record.mask}: mask {mask.shape} and slice {found.pixels.shape} differ in size",
            fix="draw the mask on the slice's own pixel grid",
        )
    return LabelledSlice(found.pixels, mask, record.label, record.patient, found.spacing_mm)


def scan(folder: Path) -> Iterator[tuple[Record, LabelledSlice] | CascadeError]:
    """Every slice of the data set, opened; in place of one that cannot be used, the reason.

    A CSV in `folder` with the columns path, mask, label, patient is the list of slices; without one, every
    N.mat below `folder` is. Raises CascadeError where there is neither.
    """
    if not folder.is_dir():
        raise CascadeError(f"{folder}: there is no such folder", fix="give the folder of the unpacked data set")
    tables = sorted(path for path in folder.glob("*.csv") if _columns(path) >= set(COLUMNS))
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise CascadeError(f"{folder}: holds several tables of slices ({names})", fix="keep one of them in the folder")
    if tables:
        yield from _scan_table(folder, tables[0])
        return
    paths = sorted(folder.rglob("*.mat"), key=lambda path: (path.parent, len(path.stem), path.stem))
    if not paths:
        raise CascadeError(
            f"{folder}: holds no N.mat and no CSV with the columns {', '.join(COLUMNS)}",
            fix="unpack the figshare zips there, or write such a CSV",
        )
    for path in paths:
        try:
            labelled = read_mat(path)
        except CascadeError as error:
            yield error
        else:
            yield Record(path.relative_to(folder).as_posix(), "", labelled.label, labelled.patient), labelled


def _columns(table: Path) -> set[str]:
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        return set(next(csv.reader(lines), []))


def _scan_table(folder: Path, table: Path) -> Iterator[tuple[Record, LabelledSlice] | CascadeError]:
    with table.open(newline="", encoding="utf-8-sig") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=2):
            record = Record(*((row[column] or "").strip() for column in COLUMNS))
            try:
                if record.label not in CLASS_NAMES:
                    raise CascadeError(
                        f"{table}, line {number}: label {record.label!r} is no class", fix=f"write one of {', '.join(CLASS_NAMES)}"
                    )
                if not (record.path and record.mask and record.patient):
                    raise CascadeError(f"{table}, line {number}: has an empty cell", fix="fill path, mask and patient")
                yield record, read_labelled(folder, record)
            except CascadeError as error:
                yield error


def pixel_range(labelled: LabelledSlice) -> tuple[float, float]:
    """Lowest and highest intensity."""
    return float(np.min(labelled.pixels)), float(np.max(labelled.pixels))
