"""Journal entries of inputs of which no slice was processed: each slice is a row with the error."""

from cascade.errors import CascadeError
from cascade.io.slices import UnopenedVolume
from cascade.io.source import Source, is_volume, slice_name
from cascade.prediction.journal import Entry
from cascade.prediction.results import ResultsFolder
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult


def failed_source(folder: ResultsFolder, source: Source, error: CascadeError) -> Entry:
    """Return the entry of an input of which no slice could be processed."""
    rows = tuple(
        folder.error_row(slice_name(source, index), error, index if source.count > 1 else None)
        for index in range(source.count)
    )
    volume = _failed_volume(rows[0], source.name, source.count, source.notes) if is_volume(source) else None
    return Entry(source.name, "", rows, {}, (), volume)


def unopened_input(folder: ResultsFolder, name: str, error: CascadeError) -> Entry:
    """Return the entry of an input that could not be opened."""
    row = folder.error_row(name, error)
    volume = _failed_volume(row, name, error.slices) if isinstance(error, UnopenedVolume) else None
    return Entry(name, "", (row,), {}, (), volume)


def _failed_volume(row: SliceResult, name: str, slices: int, notes: tuple[str, ...] = ()) -> VolumeResult:
    """Return the row of a volume without a finding, for the reason of a row with an error."""
    return VolumeResult(name, "error", slices, notes=notes, problem=row.problem, fix=row.fix)
