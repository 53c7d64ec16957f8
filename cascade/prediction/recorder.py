"""Predictions → masks, probability maps, overlays, secondary captures and rows, input by input."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cascade.contract import CLASS_NAMES, Box
from cascade.errors import CascadeError
from cascade.files import sha256_of_bytes
from cascade.io.checksums import FileStats, file_stats, sha256_of_files
from cascade.io.labels import check_scan
from cascade.io.probability import Uint16Array, to_uint16
from cascade.io.slices import BlankSlice, BoolArray, Slice
from cascade.io.source import CapturedSource, Source, is_volume, slice_name, slice_number
from cascade.prediction.captures import draw_captures
from cascade.prediction.journal import Entry
from cascade.prediction.overlay import overlay_png, preview_png
from cascade.prediction.results import ResultsFolder
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult, volume_result
from cascade.result import BLANK_NOTE, Prediction
from cascade.volume.finding import VolumeFinding, find_tumor
from cascade.volume.stack import Stack
from cascade.volume.stripped import STRIPPED_NOTE, is_looked_at, is_stripped, looks_stripped

ProgressCallback = Callable[[int], object]
"""Called with a number of slices."""


@dataclass(eq=False)
class InputState:
    """An input whose slices are being processed.

    Attributes:
        source: The input.
        file_stats: Size and modification time of its files, taken before anything was read that the results depend
            on.
        rows: Index of a slice → its row, for the slices that are finished.
        stack: The predictions; no tumor for slices that are not finished or have failed. None before the first.
        probability: (N, H, W) tumor probabilities, 0 in slices without a prediction. None unless they are written.
        looks: What `looks_stripped` says about the slices; None for those that it does not look at.
        files: What was written for the input: path below the results folder → SHA-256.
        no_scan: Why the input is no scan; None if it is one, or is not checked yet.
        is_checked: True if `check_scan` has been called.
        lock: Guards the attributes above, since several threads process the slices of one volume.
    """

    source: Source
    file_stats: FileStats
    rows: dict[int, SliceResult] = field(default_factory=dict)
    stack: Stack | None = None
    probability: Uint16Array | None = None
    looks: list[bool | None] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    no_scan: CascadeError | None = None
    is_checked: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, index: int) -> Slice | CascadeError:
        """Read a slice; the first call checks that the input is a scan. Returns the reason why it cannot be read."""
        with self.lock:
            if not self.is_checked:
                self.is_checked = True
                try:
                    check_scan(self.source)
                except CascadeError as error:
                    self.no_scan = error
        try:
            return self.no_scan or self.source.read(index)
        except CascadeError as error:
            return error

    def empty_row(self, index: int) -> SliceResult:
        """Return the row of a slice before it is predicted."""
        source = self.source
        return SliceResult(
            slice_name(source, index), "no_tumor", index if source.count > 1 else None, notes=source.notes
        )


class Recorder:
    """Writes masks and overlays to the results folder; every method may be called from any thread."""

    def __init__(
        self,
        folder: ResultsFolder,
        on_finished: Callable[[Entry], object],
        on_progress: ProgressCallback = lambda count: None,
    ) -> None:
        """Start without inputs.

        Args:
            folder: Where the results go.
            on_finished: Called with each input whose last slice has been recorded.
            on_progress: Called with the number of slices that have just been recorded.
        """
        self._folder, self._on_finished, self._on_progress = folder, on_finished, on_progress

    def record(self, state: InputState, index: int, slice_: Slice, prediction: Prediction) -> None:
        """Write the overlay of a predicted slice and add its row; with the last slice, finish the input."""
        row = self._row(state, index, slice_, prediction)
        looked_at = is_looked_at(index, state.source.count)
        stripped = looks_stripped(slice_.pixels, slice_.spacing_mm) if looked_at else None
        try:
            if self._folder.overlays:
                # Volumes have hundreds of slices, most without a tumor: a small picture of these must do.
                draw = overlay_png if prediction.label or state.source.count == 1 else preview_png
                path = self._folder.overlay_path(state.source.name, slice_number(state.source, index))
                row = replace(row, overlay=self._write(state, path, draw(slice_, prediction)))
        except CascadeError as error:
            self._add(state, index, self._folder.error_row(row.name, error, row.index))
            return
        with state.lock:
            state.looks.append(stripped)
            if state.stack is None:
                shape = (state.source.count, *prediction.mask.shape)
                state.stack = Stack.empty(shape, slice_.spacing_mm, state.source.slab_mm)
            class_probability = prediction.probabilities.values()
            state.stack.put(index, prediction.mask, prediction.mask_probability, class_probability)
            if prediction.probability_map is not None:
                if state.probability is None:
                    state.probability = np.zeros(state.stack.masks.shape, np.uint16)
                state.probability[index] = to_uint16(prediction.probability_map)
        self._add(state, index, row)

    def record_failure(self, state: InputState, index: int, error: CascadeError) -> None:
        """Add the row of a slice that did not reach the models: it cannot be read, or is blank."""
        row = state.empty_row(index)
        if isinstance(error, BlankSlice) and row.index is not None:
            self._add(state, index, replace(row, mask_pixels=0, notes=(*row.notes, BLANK_NOTE)))
        else:
            self._add(state, index, self._folder.error_row(row.name, error, row.index))

    def _row(self, state: InputState, index: int, slice_: Slice, prediction: Prediction) -> SliceResult:
        row, area = state.empty_row(index), int(np.count_nonzero(prediction.mask))
        row = replace(
            row,
            notes=(*row.notes, *slice_.notes),
            mask_pixels=area,
            mask_mm2=round(area * slice_.spacing_mm[0] * slice_.spacing_mm[1], 2) if slice_.spacing_mm else None,
            latency_ms=round(prediction.latency_ms, 2),
        )
        if not prediction.label:
            return row
        return replace(
            row,
            status="tumor",
            probabilities=tuple(round(prediction.probabilities[label], 6) for label in CLASS_NAMES),
            uncertain=prediction.uncertain,
            box=Box(*(round(edge, 2) for edge in prediction.box)) if prediction.box else None,
        )

    def _add(self, state: InputState, index: int, row: SliceResult) -> None:
        with state.lock:
            state.rows[index] = row
            last = len(state.rows) == state.source.count
        if last:
            self._finish(state)
        self._on_progress(1)

    def _finish(self, state: InputState) -> None:
        source = state.source
        rows = [state.rows[index] for index in range(source.count)]
        try:
            rows, finding = self._write_input(state, rows)
            sha256 = sha256_of_files(source.files)
            if file_stats(source.files) != state.file_stats:
                raise CascadeError(f"{source.files[0]}: was changed during the run", fix="run again with --resume")
        except CascadeError as error:
            rows = [self._folder.error_row(row.name, error, row.index) for row in rows]
            finding, sha256 = None, ""
            self._folder.files.remove(state.files)  # no row refers to them any more
        source.close()
        state.stack = state.probability = None
        read = tuple(self._folder.input_name(path) for path in source.files)
        if source.name not in read:  # a series, or a part of a file
            names = read if len(read) > 1 else read * source.count
            rows = [replace(row, file=name) for row, name in zip(rows, names, strict=True)]
        volume = _volume_row(state, rows, finding) if is_volume(source) else None
        entry = Entry(source.name, sha256, tuple(rows), state.files, read, volume)
        state.rows, state.files, state.looks = {}, {}, []  # the executor keeps the states until its run ends
        self._on_finished(entry)

    def _write_input(
        self, state: InputState, rows: list[SliceResult]
    ) -> tuple[list[SliceResult], VolumeFinding | None]:
        """Write the files of the whole input if any slice of it was predicted.

        Returns:
            The rows with their paths, and the finding if the input is a volume.
        """
        source, failed = state.source, sum(row.status == "error" for row in rows)
        if failed == 0 and state.stack is None:
            raise CascadeError(f"{source.files[0]}: all its slices are blank", fix="export it again")
        if failed == len(rows) or state.stack is None:
            return rows, None
        masks = accepted = state.stack.masks
        finding = None
        if is_volume(source):
            finding, accepted = find_tumor(state.stack, self._folder.volume_rule, self._folder.uncertain_below)
            pixels = accepted.sum(axis=(1, 2)).tolist()
            rows = [
                row if row.status == "error" else replace(row, accepted_pixels=count)
                for row, count in zip(rows, pixels, strict=True)
            ]
            masks = masks if self._folder.keep_all_components else accepted
        path = self._folder.mask_path(source.name, source.mask_suffix)
        mask, probability_map = self._write(state, path, source.mask_bytes(masks)), None
        if state.probability is not None:
            path = self._folder.probability_path(source.name, source.mask_suffix)
            probability_map = self._write(state, path, source.probability_bytes(state.probability))
        notes = _volume_notes(state, failed)
        rows = [
            row
            if row.status == "error"
            else replace(row, mask=mask, probability_map=probability_map, notes=(*row.notes, *notes))
            for row in rows
        ]
        rows = self._write_captures(state, rows, accepted, finding)
        if any(row.mask_mm2 is not None for row in rows):  # blank slices carry no spacing of their own
            rows = [replace(row, mask_mm2=0.0) if row.mask_pixels == 0 else row for row in rows]
        return rows, finding

    def _write_captures(
        self, state: InputState, rows: list[SliceResult], masks: BoolArray, finding: VolumeFinding | None
    ) -> list[SliceResult]:
        """Write secondary captures of the slices with a tumor, and return the rows with their paths."""
        source = state.source
        if not (self._folder.secondary_capture and isinstance(source, CapturedSource) and masks.any()):
            return rows
        if source.missing_for_capture:
            note = f"its header gives no {' and '.join(source.missing_for_capture)}: it has no secondary capture"
            return [replace(row, notes=(*row.notes, note)) for row in rows]
        if finding:
            probabilities, uncertain = finding.probabilities, finding.uncertain
        else:
            probabilities = dict(zip(CLASS_NAMES, rows[0].probabilities or (), strict=True))
            uncertain = rows[0].uncertain
        captured = list(rows)
        for index, content in source.encode_captures(draw_captures(source, masks, probabilities, uncertain=uncertain)):
            path = self._folder.capture_path(source.name, slice_number(source, index))
            captured[index] = replace(rows[index], secondary_capture=self._write(state, path, content))
        return captured

    def _write(self, state: InputState, path: Path, content: bytes) -> str:
        """Write a file for an input, and return its path below the results folder."""
        relative = self._folder.files.write(path, content)
        with state.lock:
            state.files[relative] = sha256_of_bytes(content)
        return relative


def _volume_row(state: InputState, rows: list[SliceResult], finding: VolumeFinding | None) -> VolumeResult:
    """Return the row of a volume. A tumor may hide in slices that failed: without one in the others, it is an error."""
    source = state.source
    failed = [row for row in rows if row.status == "error"]
    if finding is None:
        if not failed:
            raise RuntimeError(f"{source.name}: no slice failed, but there is no finding")
        problem, fix = failed[0].problem, failed[0].fix
        return VolumeResult(source.name, "error", source.count, notes=source.notes, problem=problem, fix=fix)
    row = next(row for row in rows if row.status != "error")
    notes = (*source.notes, *_volume_notes(state, len(failed)))
    result = volume_result(source.name, finding, row.mask, row.probability_map, notes)
    if not failed or finding.label:
        return result
    problem = f"{failed[0].problem}; the other slices show no tumor"
    return replace(result, status="error", tumor_slices=None, volume_ml=None, problem=problem, fix=failed[0].fix)


def _volume_notes(state: InputState, failed: int) -> tuple[str, ...]:
    """Return what is known about a volume after its last slice, of which `failed` could not be predicted."""
    notes = (f"{failed} of its slices failed: the mask shows no tumor in them",) if failed else ()
    return (*notes, STRIPPED_NOTE) if is_stripped(state.looks) else notes
