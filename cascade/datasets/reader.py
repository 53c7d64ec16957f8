"""Read labeled slices from a folder: figshare's N.mat files, or images with masks and a CSV table."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cascade.datasets.figshare import LabeledSlice, read_mat
from cascade.datasets.table import COLUMNS, Row, csv_files, find_table, names_volumes, parse_rows, read_rows
from cascade.discovery.filters import format_of_name
from cascade.errors import CascadeError
from cascade.io.image import read_gray, read_slice
from cascade.io.slices import BoolArray, slice_of


@dataclass(frozen=True)
class SliceInfo:
    """Files, label and patient of a labeled slice.

    Attributes:
        path: File of the slice, relative to the folder of the data set.
        mask: File of the mask, relative to the same folder; empty for a .mat, which contains its mask.
        label: One of CLASS_NAMES.
        patient: Patient id as stored.
    """

    path: str
    mask: str
    label: str
    patient: str


def read_labeled(folder: Path, info: SliceInfo) -> LabeledSlice:
    """Read a slice and its mask.

    Args:
        folder: Folder of the data set.
        info: The slice. For a .mat, label and patient are read from the file instead.

    Raises:
        CascadeError: Slice or mask is missing, broken or blank, or they differ in size.
    """
    path = folder / info.path
    if path.suffix.lower() == ".mat":
        labeled = read_mat(path)
        return replace(labeled, pixels=slice_of(labeled.pixels, str(path)).pixels)
    slice_ = read_slice(path)
    mask = read_mask(folder / info.mask)
    if mask.shape != slice_.pixels.shape:
        raise CascadeError(
            f"{folder / info.mask}: mask {mask.shape} and slice {slice_.pixels.shape} differ in size",
            fix="draw the mask on the pixel grid of the slice",
        )
    return LabeledSlice(slice_.pixels, mask, info.label, info.patient, slice_.spacing_mm)


def read_mask(path: Path) -> BoolArray:
    """Read a binary mask from an image.

    Returns:
        (H, W) bool, True on tumor.

    Raises:
        CascadeError: The image has values other than 0 and one positive value. JPEG artifacts and maps of several
            tissues would otherwise count as tumor.
    """
    values = read_gray(path)
    if not np.isin(values, (0, values.max())).all():
        raise CascadeError(
            f"{path}: the mask has more than two gray levels",
            fix="save it in a lossless format, with 0 for background and one value for tumor",
        )
    return values > 0


def scan(folder: Path) -> Iterator[tuple[SliceInfo, LabeledSlice] | CascadeError]:
    """Read all slices of a data set.

    A CSV in `folder` with the columns path, mask, label and patient lists the slices, and other files are ignored.
    Without such a CSV, all N.mat files in `folder` and its subfolders are read.

    Yields:
        A slice, or the error for a slice that cannot be used.

    Raises:
        CascadeError: The folder contains no data set.
    """
    for entry in _list_slices(folder):
        if isinstance(entry, CascadeError):
            yield entry
            continue
        try:
            labeled = read_labeled(folder, entry)
        except CascadeError as error:
            yield error
        else:
            yield SliceInfo(entry.path, entry.mask, labeled.label, labeled.patient), labeled


def count_slices(folder: Path) -> int:
    """Count the items that `scan` yields, without opening them. Raises CascadeError as `scan` does."""
    return len(_list_slices(folder))


def mat_files(folder: Path, on_error: Callable[[OSError], object] | None = None) -> list[Path]:
    """List the .mat files in a folder and its subfolders, sorted by subfolder, then by number.

    Args:
        folder: The folder.
        on_error: Called for each folder that cannot be opened.
    """
    paths = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=on_error) for name in names)
    slices = [path for path in paths if path.suffix.lower() == ".mat" and not path.name.startswith(".")]
    return sorted(slices, key=lambda path: (path.parent, len(path.stem), path.stem))


def _list_slices(folder: Path) -> list[SliceInfo | CascadeError]:
    """List the slices of a data set. Label and patient of a .mat are inside the file, hence empty here."""
    if not folder.is_dir():
        raise CascadeError(f"{folder}: there is no such folder", fix="give the folder of the unpacked data set")
    if table := find_table(folder):
        rows = read_rows(table)
        if names_volumes(folder, rows):
            raise CascadeError(
                f"{table}: lists volumes, not slices", fix="evaluate them with `cascade evaluate DIR --no-split`"
            )
        return parse_rows(rows, _parse_slice)
    closed: list[OSError] = []
    paths = mat_files(folder, closed.append)
    if not paths and not closed:
        others = "".join(f"; {path.name} has other columns" for path in csv_files(folder))
        raise CascadeError(
            f"{folder}: contains no N.mat and no CSV with the columns {', '.join(COLUMNS)}{others}",
            fix="unpack the figshare zips into it, or write such a CSV with commas as separators",
        )
    problems = [
        CascadeError(
            f"{error.filename}: cannot be opened ({error.strerror})", fix="change the permissions of the folder"
        )
        for error in closed
    ]
    return [*(SliceInfo(path.relative_to(folder).as_posix(), "", "", "") for path in paths), *problems]


def _parse_slice(row: Row) -> SliceInfo:
    if row.path.lower().endswith(".mat"):
        raise CascadeError(
            f"{row.place}: {row.path} contains its own mask, label and patient",
            fix="list only images; a folder of .mat files needs no CSV",
        )
    if format_of_name(row.path) == "npy":
        raise CascadeError(f"{row.place}: {row.path} is an array", fix="list pictures, such as PNG or TIFF, or volumes")
    row.check_cells(path=row.path, mask=row.mask, patient=row.patient)
    return SliceInfo(row.path, row.mask, row.class_name(), row.patient)
