"""What a run found, slice by slice → results.csv and results.json, with masks and overlays beside them."""

import csv
import io
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from cascade import __version__
from cascade.contract import CLASS_NAMES, Box
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.graphs import CLASSIFIER, SEGMENTER
from cascade.slices import SLICE_SUFFIXES

SCHEMA = "cascade results 1"
NOTE = "For research only. Not a medical device: do not use it to diagnose or treat anyone."

Status = Literal["tumor", "no_tumor", "error"]


@dataclass(frozen=True, slots=True)
class SliceResult:
    """One slice's row: small, for a run keeps all of them in memory.

    name           path of the slice below the run's input folder.
    probabilities  in the order of CLASS_NAMES; None without a tumor.
    box            where the classifier looked, in pixels of the slice; None without a tumor.
    mask_pixels    area of the mask; None when the slice could not be done.
    mask_mm2       the same where the file tells its spacing.
    latency_ms     the models' time for the slice's batch, divided by the batch's length.
    problem, fix   why it could not be done, and what to do about it; empty for the others.
    """

    name: str
    status: Status
    probabilities: tuple[float, ...] | None = None
    box: Box | None = None
    mask_pixels: int | None = None
    mask_mm2: float | None = None
    latency_ms: float | None = None
    problem: str = ""
    fix: str = ""

    @classmethod
    def failed(cls, name: str, error: CascadeError) -> "SliceResult":
        """The row of a slice that could not be done."""
        return cls(name, "error", problem=error.problem, fix=error.fix)

    @property
    def label(self) -> str | None:
        """The most probable class; None without a tumor."""
        return CLASS_NAMES[self.probabilities.index(max(self.probabilities))] if self.probabilities else None


@dataclass(frozen=True)
class ResultsFolder:
    """Where a run's results go.

    out        the folder; masks and overlays lie below it under the slices' names.
    inputs     absolute; the folder that the slices' names are relative to.
    overlays   whether overlays are drawn.
    models     sha256 of each graph.
    backend    what ran them.
    uncertain_below  a class of less probability is marked as uncertain.
    """

    out: Path
    inputs: Path
    overlays: bool
    models: dict[str, str]
    backend: str
    uncertain_below: float = 0.0

    @property
    def csv(self) -> Path:
        return self.out / "results.csv"

    @property
    def json(self) -> Path:
        return self.out / "results.json"

    def mask(self, name: str) -> Path:
        return written_folders(self.out)[0] / picture_name(name)

    def overlay(self, name: str) -> Path:
        return written_folders(self.out)[1] / picture_name(name)

    def save(self, rows: Iterable[SliceResult], *, complete: bool) -> None:
        """Replaces both files; `complete` tells whether the run got to its end. Raises CascadeError on a full disk."""
        records = [self._record(row) for row in sorted(rows, key=lambda row: row.name)]
        content = {
            "schema": SCHEMA,
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
        done = row.status != "error"
        return {
            "slice": row.name,
            "status": row.status,
            "class": row.label,
            "uncertain": max(row.probabilities) < self.uncertain_below if row.probabilities else None,
            "probabilities": dict(zip(CLASS_NAMES, row.probabilities, strict=True)) if row.probabilities else None,
            "box": row.box._asdict() if row.box else None,
            "mask_pixels": row.mask_pixels,
            "mask_mm2": row.mask_mm2,
            "latency_ms": row.latency_ms,
            "mask": self.mask(row.name).relative_to(self.out).as_posix() if done else None,
            "overlay": self.overlay(row.name).relative_to(self.out).as_posix() if done and self.overlays else None,
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
    *("slice", "status", "class", "uncertain"),
    *(_column(label) for label in CLASS_NAMES),
    *(f"box_{edge}" for edge in Box._fields),
    *("mask_pixels", "mask_mm2", "latency_ms", "mask", "overlay", "problem", "fix"),
    *(f"{name}_sha256" for name in (SEGMENTER, CLASSIFIER)),
)


def written_folders(out: Path) -> tuple[Path, Path]:
    """Of masks and of overlays."""
    return out / "masks", out / "overlays"


def picture_name(name: str) -> str:
    """Of a slice's mask and overlay: a.png stays a.png, any other suffix is kept inside: a.jpg → a.jpg.png.

    So that a.jpg.png and a.jpg are not one, a PNG with a second such suffix counts as another: → a.jpg.png.png.
    """
    path = PurePosixPath(name)
    plain = path.suffix.lower() == ".png" and PurePosixPath(path.stem).suffix.lower() not in SLICE_SUFFIXES
    return name if plain else f"{name}.png"


def claim(folder: ResultsFolder, *, overwrite: bool) -> None:
    """Makes the folder ready for a run; with `overwrite`, by removing the results of an earlier one.

    Raises CascadeError where it cannot be written, holds results and `overwrite` is not asked for, or holds anything
    that a run would replace and none wrote.
    """
    written = [path for path in (folder.json, folder.csv, *written_folders(folder.out)) if path.exists()]
    if written:
        if not _is_ours(folder.json):
            raise CascadeError(
                f"{written[0]}: is in the way, and no run wrote it", fix="name another folder with --out"
            )
        if not overwrite:
            raise CascadeError(
                f"{folder.out}: holds the results of an earlier run",
                fix="name another folder with --out, or replace them with --overwrite",
            )
    try:
        for path in written_folders(folder.out):
            if path.exists():
                shutil.rmtree(path)
    except OSError as error:
        raise CascadeError(
            f"{error.filename}: cannot be removed ({error.strerror})", fix="name another --out"
        ) from error
    folder.save([], complete=False)


def _is_ours(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text())["schema"] == SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False
