"""The CSV table of a data set: one row per slice or volume, with mask, label and patient."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from cascade.contract import CLASS_NAMES
from cascade.discovery.filters import AFFINE, Format, detect_format
from cascade.errors import CascadeError

COLUMNS = ("path", "mask", "label", "patient")
"""Columns that the table must have."""


@dataclass(frozen=True)
class Row:
    """A row of the table. All cells are stripped, and may be empty.

    Attributes:
        place: Table and line, for error messages.
        path: File or folder, relative to the folder of the table.
        mask: File of the mask, relative to the same folder.
        label: Name of the class.
        patient: Patient id.
    """

    place: str
    path: str
    mask: str
    label: str
    patient: str

    def class_name(self, allowed: Sequence[str] = CLASS_NAMES) -> str:
        """Return the label as it is spelled in `allowed`, whatever its case.

        Raises:
            CascadeError: The label is another one.
        """
        names = {name.casefold(): name for name in allowed}
        if self.label.casefold() not in names:
            raise CascadeError(f"{self.place}: unknown label {self.label!r}", fix=f"use one of {', '.join(allowed)}")
        return names[self.label.casefold()]

    def check_cells(self, **cells: str) -> None:
        """Check that cells are filled in, and that no path is absolute.

        Raises:
            CascadeError: One of them is empty or absolute.
        """
        if not all(cells.values()):
            names = " and ".join(", ".join(cells).rsplit(", ", 1))
            raise CascadeError(f"{self.place}: has an empty cell", fix=f"fill in {names}")
        if Path(self.path).is_absolute() or Path(self.mask).is_absolute():
            raise CascadeError(
                f"{self.place}: {self.path} or its mask is an absolute path",
                fix="write paths relative to the folder of the table",
            )


class HasPath(Protocol):
    """What a row stands for."""

    @property
    def path(self) -> str:
        """File or folder, relative to the folder of the table."""
        ...


T = TypeVar("T", bound=HasPath)


def find_table(folder: Path) -> Path | None:
    """Return the CSV in a folder that has all COLUMNS, or None.

    Raises:
        CascadeError: Several have them, or a CSV cannot be read.
    """
    tables = [path for path in csv_files(folder) if _read_columns(path) >= set(COLUMNS)]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise CascadeError(
            f"{folder}: contains several tables of slices or volumes ({names})",
            fix="keep only one of them in the folder",
        )
    return tables[0] if tables else None


def csv_files(folder: Path) -> list[Path]:
    """List the CSV files in a folder, sorted."""
    return [path for path in sorted(folder.glob("*.csv")) if path.is_file()]


def _read_columns(table: Path) -> set[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            return set(next(csv.reader(lines), []))
    except (OSError, csv.Error) as error:
        raise CascadeError(
            f"{table}: cannot be read ({error})", fix="repair it or move it out of the folder"
        ) from error


def read_rows(table: Path) -> list[Row]:
    """Read all rows of a table.

    Raises:
        CascadeError: It cannot be read, or has no rows.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            rows = [
                Row(f"{table}, line {reader.line_num}", *((row[column] or "").strip() for column in COLUMNS))
                for row in reader
            ]
    except (OSError, csv.Error) as error:
        raise CascadeError(
            f"{table}: cannot be read ({error})", fix="repair it or move it out of the folder"
        ) from error
    except UnicodeDecodeError as error:
        raise CascadeError(f"{table}: is not UTF-8 text ({error})", fix="save it as CSV UTF-8") from error
    if not rows:
        raise CascadeError(f"{table}: lists no slices or volumes", fix="write one line for each")
    return rows


def parse_rows(rows: Sequence[Row], parse: Callable[[Row], T]) -> list[T | CascadeError]:
    """Parse rows.

    Args:
        rows: The rows.
        parse: Returns what a row stands for, or raises CascadeError.

    Returns:
        One entry for each row; an error for a row that cannot be used, or whose path was listed before.
    """
    entries: list[T | CascadeError] = []
    seen: set[str] = set()
    for row in rows:
        try:
            info = parse(row)
            if info.path in seen:
                raise CascadeError(
                    f"{row.place}: {info.path} is listed a second time", fix="remove one of the two lines"
                )
            seen.add(info.path)
            entries.append(info)
        except CascadeError as error:
            entries.append(error)
    return entries


def names_volumes(folder: Path, rows: Sequence[Row]) -> bool:
    """Return True if the rows name volumes: folders, DICOM files, or files of one volume each.

    Args:
        folder: Folder of the table.
        rows: Its rows.

    Raises:
        CascadeError: Some rows name volumes and others slices.
    """

    def format_of(path: Path) -> Format | None:
        # Not Path.is_dir, which raises for a name that is too long.
        return "dicom" if os.path.isdir(path) else detect_format(path)  # noqa: PTH112

    formats = {row: format_of(folder / row.path) for row in rows if row.path}
    volume = next((row for row, format_ in formats.items() if format_ in (*AFFINE, "dicom")), None)
    slice_ = next((row for row, format_ in formats.items() if format_ == "image"), None)
    if volume and slice_:
        raise CascadeError(
            f"{folder}: its table lists volumes ({volume.path}) and slices ({slice_.path})",
            fix="put them into two folders with a table each",
        )
    return volume is not None
