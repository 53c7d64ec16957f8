"""What a run found, slice by slice → results.csv and results.json; and where masks and overlays go beside them."""

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cascade import __version__
from cascade.contract import CLASS_NAMES, Box
from cascade.discovery.filters import FORMATS, SUFFIXES
from cascade.discovery.output_marker import RESULTS, has_marker, written_folders
from cascade.errors import CascadeError
from cascade.files import TEMPORARY_PREFIX, sha256_of_bytes, write_atomically
from cascade.runtime.models import CLASSIFIER, SEGMENTER

JOURNAL = "journal.jsonl"
REPORT = "report.html"
NOTE = "For research only. Not a medical device: do not use it to diagnose or treat anyone."

DICOM_MASK = ".seg.dcm"

NAMELESS = ".dicom"
"""No input's suffix: what is written for one that has none bears it."""

INPUT_SUFFIXES = (*(suffix for format_ in FORMATS for suffix in SUFFIXES[format_]), NAMELESS)

MOST_BYTES = 255
"""Of a file's name, on all common file systems."""

Status = Literal["tumor", "no_tumor", "error"]


@dataclass(frozen=True, slots=True)
class SliceResult:
    """One slice's row: small, for a run keeps all of them in memory.

    name           path of the slice below the run's input folder; in a volume its number follows: `scan.nii.gz/012`.
    index          its number in a volume, from 0; None where the input is one slice.
    file           that holds it, by path as `name`, where its input is several files; None where that is one.
    probabilities  in the order of CLASS_NAMES; None without a tumor.
    box            where the classifier looked, in pixels of the slice; None without a tumor.
    mask_pixels    area of the mask; None when the slice could not be done.
    mask_mm2       the same where the file tells its spacing.
    latency_ms     the models' time for the slice's batch, divided by the batch's length.
    mask, overlay  where they lie below the results' folder; one mask for all slices of a volume.
    notes          what a user should know of the slice's file.
    problem, fix   why it could not be done, and what to do about it; empty for the others.
    """

    name: str
    status: Status
    index: int | None = None
    file: str | None = None
    probabilities: tuple[float, ...] | None = None
    box: Box | None = None
    mask_pixels: int | None = None
    mask_mm2: float | None = None
    latency_ms: float | None = None
    mask: str | None = None
    overlay: str | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""
    fix: str = ""

    @property
    def input(self) -> str:
        """Name of the file or series that the slice is from."""
        return self.name if self.index is None else self.name.rpartition("/")[0]

    @property
    def label(self) -> str | None:
        """The most probable class; None without a tumor."""
        return CLASS_NAMES[self.probabilities.index(max(self.probabilities))] if self.probabilities else None


@dataclass(frozen=True)
class ResultsFolder:
    """Where a run's results go.

    out        the folder; masks and overlays lie below it under the inputs' names.
    inputs     absolute; the folder that the inputs' names are relative to.
    overlays   whether overlays are drawn.
    models     sha256 of each graph.
    backend    what ran them.
    uncertain_below  a class of less probability is marked as uncertain.
    unpacked   the folder that zips were unpacked to, under the names that they have below `inputs`.
    """

    out: Path
    inputs: Path
    overlays: bool
    models: dict[str, str]
    backend: str
    uncertain_below: float = 0.0
    unpacked: Path | None = None

    @property
    def csv(self) -> Path:
        return self.out / "results.csv"

    @property
    def json(self) -> Path:
        return self.out / "results.json"

    def input_name(self, path: Path) -> str:
        """What a file that was read goes by: its path below `inputs`, though it may lie unpacked elsewhere."""
        zipped = self.unpacked is not None and path.is_relative_to(self.unpacked)
        return path.relative_to(self.unpacked if zipped and self.unpacked else self.inputs).as_posix()

    def mask(self, name: str, suffix: str = ".png") -> Path:
        """Of an input."""
        return written_folders(self.out)[0] / written_name(name, suffix)

    def overlay(self, name: str, number: str | None = None) -> Path:
        """Of an input, or of the slice of that number in it."""
        below = written_folders(self.out)[1]
        if number is None:
            return below / written_name(name, ".png")
        return below / (name if name.lower().endswith(INPUT_SUFFIXES) else _cut(name, NAMELESS)) / f"{number}.png"

    def save(self, rows: Iterable[SliceResult], *, complete: bool) -> None:
        """Replaces both files; `complete` tells whether the run got to its end. Raises CascadeError on a full disk."""
        records = [self._record(row) for row in sorted(rows, key=lambda row: row.name)]
        content = {
            "schema": RESULTS,
            "cascade_version": __version__,
            "research_use_only": NOTE,
            "complete": complete,
            "inputs": str(self.inputs),
            "backend": self.backend,
            "models": self.models,
            "uncertain_below": self.uncertain_below,
            "slices": records,
        }
        write_atomically(self.json, json.dumps(content, indent=1).encode())
        write_atomically(self.csv, self._table(records).encode(errors="surrogateescape"))  # names may be any bytes

    def _record(self, row: SliceResult) -> dict[str, Any]:
        """The row as results.json holds it."""
        return {
            "slice": row.name,
            "input": row.input,
            "index": row.index,
            "file": row.file,
            "status": row.status,
            "class": row.label,
            "uncertain": max(row.probabilities) < self.uncertain_below if row.probabilities else None,
            "probabilities": dict(zip(CLASS_NAMES, row.probabilities, strict=True)) if row.probabilities else None,
            "box": row.box._asdict() if row.box else None,
            "mask_pixels": row.mask_pixels,
            "mask_mm2": row.mask_mm2,
            "latency_ms": row.latency_ms,
            "mask": row.mask,
            "overlay": row.overlay,
            "notes": "; ".join(row.notes) or None,
            "problem": row.problem or None,
            "fix": row.fix or None,
        }

    def _table(self, records: list[dict[str, Any]]) -> str:
        """The records as CSV: nested ones get a column each, nothing is an empty cell, every row names the models."""
        text = io.StringIO()
        writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for record in records:
            probabilities, box = record["probabilities"] or {}, record["box"] or {}
            writer.writerow(
                record
                | {_column(label): value for label, value in probabilities.items()}
                | {f"box_{edge}": value for edge, value in box.items()}
                | {f"{name}_sha256": sha256 for name, sha256 in self.models.items()}
            )
        return text.getvalue()


def _column(label: str) -> str:
    return f"probability_{label.replace(' ', '_')}"


CSV_COLUMNS = (
    *("slice", "input", "index", "file", "status", "class", "uncertain"),
    *(_column(label) for label in CLASS_NAMES),
    *(f"box_{edge}" for edge in Box._fields),
    *("mask_pixels", "mask_mm2", "latency_ms", "mask", "overlay", "notes", "problem", "fix"),
    *(f"{name}_sha256" for name in (SEGMENTER, CLASSIFIER)),
)


def written_files(out: Path) -> list[Path]:
    """All that a run writes, by files and folders."""
    names = ("results.json", "results.csv", "run.json", REPORT, JOURNAL)
    return [*(out / name for name in names), *written_folders(out)]


def written_name(name: str, suffix: str) -> str:
    """Of what is written for an input: a.png stays a.png, any other suffix is kept inside: a.jpg → a.jpg.png.

    So that a.jpg.png and a.jpg are not one, a PNG with a second such suffix counts as another: → a.jpg.png.png; and so
    for volumes, a.nii → a.nii.nii.gz. What has none of the suffixes, a DICOM file or series, is given one, so that
    IM1 and IM1.png are two: → IM1.dicom.png. Names too long for a file system are cut: see `_cut`.
    """
    stem = name.removesuffix(suffix)
    if stem != name and suffix != DICOM_MASK and not stem.lower().endswith(INPUT_SUFFIXES):
        return name
    if suffix != DICOM_MASK and not name.lower().endswith(INPUT_SUFFIXES):
        return _cut(name, f"{NAMELESS}{suffix}")
    return _cut(name, suffix)


def _cut(name: str, suffix: str) -> str:
    """The name with the suffix behind it; where that is longer than MOST_BYTES, a digest takes the place of its end."""
    *folders, last = name.split("/")
    if len(os.fsencode(last + suffix)) > MOST_BYTES:
        digest = sha256_of_bytes(os.fsencode(last))[:16]
        room = MOST_BYTES - len(f"-{digest}{suffix}")
        last = f"{os.fsencode(last)[:room].decode(errors='ignore')}-{digest}"
    return "/".join([*folders, last + suffix])


def claim(out: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Makes sure that the folder is the run's to write: empty, or with `overwrite` or `resume` an earlier run's.

    Raises CascadeError where it holds results and neither is asked for, or anything that a run would replace and none
    wrote. Nothing is removed yet.
    """
    if out.exists() and not out.is_dir():
        raise CascadeError(f"{out}: cannot be written, for it is a file", fix="name a folder with --out")
    written = [path for path in written_files(out) if path.exists()]
    if written:
        if not has_marker(out / "results.json"):
            raise CascadeError(
                f"{written[0]}: is in the way, and no run wrote it", fix="name another folder with --out"
            )
        if not (overwrite or resume):
            raise CascadeError(
                f"{out}: holds the results of an earlier run",
                fix="go on with it by --resume, replace it by --overwrite, or name another folder with --out",
            )


def clear(folder: ResultsFolder, written: Iterable[str], keep: Iterable[str] = ()) -> None:
    """Removes the masks and overlays of an earlier run, but for those to `keep`, and all that it left half-written.

    Folders that are empty then go too, and its report, which tells of other rows. What others put beside them stays.

    written  what the earlier run wrote, and `keep` of it: paths below the results' folder.

    Raises CascadeError for what cannot be removed.
    """
    kept = {folder.out / path for path in keep}
    going = {folder.out / path for path in (*written, REPORT)} - kept
    below = [path for written_folder in written_folders(folder.out) for path in written_folder.rglob("*")]
    beside = [path for pattern in (REPORT, f"{TEMPORARY_PREFIX}*") for path in folder.out.glob(pattern)]
    try:
        for path in sorted([*below, *beside], reverse=True):  # files before their folders
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path in going or path.name.startswith(TEMPORARY_PREFIX):
                path.unlink()
    except OSError as error:
        raise CascadeError(
            f"{error.filename}: cannot be removed ({error.strerror})", fix="name another --out"
        ) from error
