"""A labelled data set on disk → `Record`s: figshare's folders of N.mat, or pictures with masks and a CSV."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import LabelledSlice, read_mat
from cascade.errors import CascadeError
from cascade.io.image import read_gray, read_slice
from cascade.io.slices import BoolArray, check_pixels

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
        labelled = read_mat(path)
        check_pixels(labelled.pixels, str(path))
        return labelled
    found = read_slice(path)
    mask = read_mask(folder / record.mask)
    if mask.shape != found.pixels.shape:
        raise CascadeError(
            f"{folder / record.mask}: mask {mask.shape} and slice {found.pixels.shape} differ in size",
            fix="draw the mask on the slice's own pixel grid",
        )
    return LabelledSlice(found.pixels, mask, record.label, record.patient, found.spacing_mm)


def read_mask(path: Path) -> BoolArray:
    """A picture of 0 and one other value.

    JPEG's false edges and maps of several tissues would pass as tumor: they are refused.
    """
    values = read_gray(path)
    if not np.isin(values, (0, values.max())).all():
        raise CascadeError(
            f"{path}: holds more than two grey levels", fix="save it without loss, 0 off the tumor and one value on it"
        )
    return values > 0


def scan(folder: Path) -> Iterator[tuple[Record, LabelledSlice] | CascadeError]:
    """Every slice of the data set, opened; in place of one that cannot be used, the reason.

    A CSV in `folder` with the columns path, mask, label, patient is the list of slices, whatever else lies there;
    without one, every N.mat below `folder` is. Raises CascadeError where there is neither.
    """
    for found in _listed(folder):
        if isinstance(found, CascadeError):
            yield found
            continue
        try:
            labelled = read_labelled(folder, found)
        except CascadeError as error:
            yield error
        else:
            yield Record(found.path, found.mask, labelled.label, labelled.patient), labelled


def count_slices(folder: Path) -> int:
    """How many items `scan` will give; opens none of them. Raises CascadeError as `scan` does."""
    return len(_listed(folder))


def mat_files(folder: Path) -> list[Path]:
    """Every .mat below the folder, its zips' sub-folders one after the other and each in the order of its numbers."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() == ".mat" and not path.name.startswith("."))
    return sorted(paths, key=lambda path: (path.parent, len(path.stem), path.stem))


def _listed(folder: Path) -> list[Record | CascadeError]:
    """What the data set says it holds. Label and patient of a .mat stand inside it and are empty here."""
    if not folder.is_dir():
        raise CascadeError(f"{folder}: there is no such folder", fix="give the folder of the unpacked data set")
    columns = {path: _columns(path) for path in sorted(folder.glob("*.csv")) if path.is_file()}
    tables = [path for path, names in columns.items() if names >= set(COLUMNS)]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise CascadeError(f"{folder}: holds several tables of slices ({names})", fix="keep one of them in the folder")
    if tables:
        return _rows(tables[0])
    paths = mat_files(folder)
    if not paths:
        others = "".join(f"; {path.name} has other columns" for path in columns)
        raise CascadeError(
            f"{folder}: holds no N.mat and no CSV with the columns {', '.join(COLUMNS)}{others}",
            fix="unpack the figshare zips there, or write such a CSV, with commas between its cells",
        )
    return [Record(path.relative_to(folder).as_posix(), "", "", "") for path in paths]


def _columns(table: Path) -> set[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            return set(next(csv.reader(lines), []))
    except (OSError, csv.Error) as error:
        raise CascadeError(f"{table}: cannot be read ({error})", fix="mend it or move it out of the folder") from error


def _rows(table: Path) -> list[Record | CascadeError]:
    records: list[Record | CascadeError] = []
    seen: set[str] = set()
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            for row in rows:
                try:
                    record = _record(row, f"{table}, line {rows.line_num}")
                    if record.path in seen:
                        raise CascadeError(
                            f"{table}, line {rows.line_num}: lists {record.path} again", fix="keep one line a slice"
                        )
                    seen.add(record.path)
                    records.append(record)
                except CascadeError as error:
                    records.append(error)
    except (OSError, csv.Error) as error:
        raise CascadeError(f"{table}: cannot be read ({error})", fix="mend it or move it out of the folder") from error
    except UnicodeDecodeError as error:
        raise CascadeError(f"{table}: is not UTF-8 text ({error})", fix="save it as CSV UTF-8") from error
    if not records:
        raise CascadeError(f"{table}: lists no slice", fix="write one line a slice")
    return records


def _record(row: dict[str, str | None], place: str) -> Record:
    path, mask, label, patient = ((row[column] or "").strip() for column in COLUMNS)
    if path.lower().endswith(".mat"):
        raise CascadeError(
            f"{place}: {path} holds its own mask, label and patient",
            fix="list pictures only; a folder of .mat needs no CSV",
        )
    if not (path and mask and patient):
        raise CascadeError(f"{place}: has an empty cell", fix="fill path, mask and patient")
    if Path(path).is_absolute() or Path(mask).is_absolute():
        raise CascadeError(
            f"{place}: {path} or its mask is an absolute path", fix="write paths relative to the table's folder"
        )
    known = {name.casefold(): name for name in CLASS_NAMES}
    if label.casefold() not in known:
        raise CascadeError(f"{place}: label {label!r} is no class", fix=f"write one of {', '.join(CLASS_NAMES)}")
    return Record(path, mask, known[label.casefold()], patient)
