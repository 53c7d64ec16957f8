"""What was found in the slices of a run → masks, overlays, rows and journal, input by input."""

import threading
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.contract import CLASS_NAMES, Box
from cascade.errors import CascadeError
from cascade.files import sha256_of_bytes, write_atomically
from cascade.io.checksums import FileStats, file_stats, sha256_of_files
from cascade.io.slices import BlankSlice, Slice, Source, slice_name, slice_number
from cascade.pipeline import Prediction
from cascade.prediction.journal import Entry, Journal
from cascade.prediction.overlay import overlay_png
from cascade.prediction.results import ResultsFolder, SliceResult

Advance = Callable[[int], object]
"""Called with how many more slices are done, once their rows are there."""


@dataclass(eq=False)
class Work:
    """An input under way.

    stamps  of its files, before the first is read.
    rows    of its slices so far, by index.
    masks   (count, H, W) bool, of a volume; False where a slice is not done or could not be.
    files   written for it: path below the results' folder → sha256.
    lock    for what the slices of one volume share.
    """

    source: Source
    stamps: FileStats
    rows: dict[int, SliceResult] = field(default_factory=dict)
    masks: NDArray[np.bool_] | None = None
    files: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def number(self, index: int) -> str | None:
        return slice_number(self.source, index)

    def row(self, index: int) -> SliceResult:
        """Of a slice in which no tumor is known yet."""
        source = self.source
        return SliceResult(
            slice_name(source, index), "no_tumor", index if source.count > 1 else None, notes=source.notes
        )


class Recorder:
    """Writes all that is found to the results' folder; called from several threads.

    out      the results' folder.
    rows     of the inputs that are done.
    sha256   of their content, by name.
    resumed  how many of the rows an earlier run had done.
    """

    def __init__(
        self, folder: ResultsFolder, journal: Journal | None = None, advance: Advance = lambda count: None
    ) -> None:
        self.out = folder.out
        self.rows: list[SliceResult] = []
        self.sha256: dict[str, str] = {}
        self.resumed = 0
        self._folder, self._journal, self._advance = folder, journal, advance
        self._owners: dict[str, str] = {}  # by `_place`, the input that it was written for
        self._ignores_case = (folder.out / folder.json.name.upper()).exists()
        self._lock = threading.Lock()
        self._saved = time.monotonic()

    def take_over(self, entry: Entry) -> None:
        """What an earlier run did."""
        self.rows += entry.rows
        self._owners |= {self._place(path): entry.name for path in entry.files}
        self.sha256[entry.name] = entry.sha256
        self.resumed += len(entry.rows)
        self._advance(len(entry.rows))

    def refused(self, name: str, why: CascadeError, index: int | None = None) -> SliceResult:
        """The row of what could not be done. A file in a zip is named by the zip, not by where it was unpacked."""
        problem = why.problem
        if self._folder.unpacked:
            problem = problem.replace(str(self._folder.unpacked), str(self._folder.inputs))
        return SliceResult(name, "error", index, problem=problem, fix=why.fix)

    def found(self, work: Work, index: int, slice_: Slice, found: Prediction) -> None:
        """One slice went through the models."""
        row = self._row(work, index, slice_, found)
        mask: NDArray[np.bool_] | None = found.mask
        try:
            # Of a volume only what shows a tumor: a head has hundreds of slices, and most show none.
            if self._folder.overlays and (found.label or work.source.count == 1):
                path = self._folder.overlay(work.source.name, work.number(index))
                row = replace(row, overlay=self._write(work, path, overlay_png(slice_, found)))
        except CascadeError as error:
            row, mask = self.refused(row.name, error, row.index), None
        self._add(work, index, row, mask)

    def not_found(self, work: Work, index: int, why: CascadeError) -> None:
        """One slice never reached the models: it cannot be read, or holds nothing."""
        row = work.row(index)
        if isinstance(why, BlankSlice) and row.index is not None:
            self._add(work, index, replace(row, mask_pixels=0, notes=(*row.notes, "blank")), None)
        else:
            self._add(work, index, self.refused(row.name, why, row.index), None)

    def save(self, *, complete: bool) -> None:
        """Replaces results.csv and results.json by what is done."""
        with self._lock:
            self._saved = time.monotonic()
            if self._journal:
                self._journal.save()
            self._folder.save(self.rows, complete=complete)

    def seconds_since_saved(self) -> float:
        return time.monotonic() - self._saved

    def _row(self, work: Work, index: int, slice_: Slice, found: Prediction) -> SliceResult:
        area = int(found.mask.sum())
        return replace(
            work.row(index),
            status="tumor" if found.label else "no_tumor",
            probabilities=tuple(round(found.probabilities[label], 6) for label in CLASS_NAMES) if found.label else None,
            box=Box(*(round(edge, 2) for edge in found.box)) if found.box else None,
            mask_pixels=area,
            mask_mm2=round(area * slice_.spacing_mm[0] * slice_.spacing_mm[1], 2) if slice_.spacing_mm else None,
            latency_ms=round(found.latency_ms, 2),
        )

    def _add(self, work: Work, index: int, row: SliceResult, mask: NDArray[np.bool_] | None) -> None:
        """Finishes the input with its last slice."""
        with work.lock:
            if mask is not None:
                if work.masks is None:
                    work.masks = np.zeros((work.source.count, *mask.shape), dtype=bool)
                work.masks[index] = mask
            work.rows[index] = row
            last = len(work.rows) == work.source.count
        if last:
            self._finish(work)
        self._advance(1)

    def _finish(self, work: Work) -> None:
        source = work.source
        rows = [work.rows[index] for index in range(source.count)]
        try:
            rows = self._with_mask(work, rows)
            sha256 = sha256_of_files(source.files)
            if file_stats(source.files) != work.stamps:
                raise CascadeError(f"{source.files[0]}: was changed while it was in use", fix="run again with --resume")
        except CascadeError as error:
            rows, sha256 = [self.refused(row.name, error, row.index) for row in rows], ""
            for below in work.files:  # of which no row tells any more
                with suppress(OSError):
                    (self.out / below).unlink()
        source.close()
        read = tuple(self._folder.input_name(path) for path in source.files)
        if len(read) == source.count > 1:
            rows = [replace(row, file=name) for row, name in zip(rows, read, strict=True)]
        with self._lock:
            self.rows += rows
            self.sha256[source.name] = sha256
        if self._journal and not any(row.status == "error" for row in rows):
            self._journal.add(Entry(source.name, sha256, tuple(rows), work.files, read))

    def _with_mask(self, work: Work, rows: list[SliceResult]) -> list[SliceResult]:
        """Writes the mask of an input, where one of its slices went through the models, and tells its rows."""
        source, failed = work.source, sum(row.status == "error" for row in rows)
        if failed == 0 and work.masks is None:
            raise CascadeError(f"{source.files[0]}: all its slices are blank", fix="export it again")
        if failed == len(rows) or work.masks is None:
            return rows
        written = self._write(work, self._folder.mask(source.name, source.mask_suffix), source.mask_bytes(work.masks))
        notes = (f"{failed} of its slices failed: the mask shows no tumor in them",) if failed else ()
        rows = [
            row if row.status == "error" else replace(row, mask=written, notes=(*row.notes, *notes)) for row in rows
        ]
        if any(row.mask_mm2 is not None for row in rows):  # a blank slice, which is never read, tells no spacing
            rows = [replace(row, mask_mm2=0.0) if row.mask_pixels == 0 else row for row in rows]
        return rows

    def _place(self, below: str) -> str:
        """What tells files of the results' folder apart; some file systems take a.png and A.png for one."""
        return unicodedata.normalize("NFC", below).casefold() if self._ignores_case else below

    def _write(self, work: Work, path: Path, content: bytes) -> str:
        below = path.relative_to(self._folder.out).as_posix()
        with self._lock:
            owner = self._owners.setdefault(self._place(below), work.source.name)
        if owner != work.source.name:
            raise CascadeError(f"{path}: is where the results of {owner} go", fix="give the two in runs of their own")
        if self._journal:
            self._journal.begin(below)
        write_atomically(path, content, durable=False)
        with work.lock:
            work.files[below] = sha256_of_bytes(content)
        return below
