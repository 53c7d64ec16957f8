"""The rows of a run as Parquet, for archives that are too large for a spreadsheet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from cascade.files import open_atomically
from cascade.prediction.tables import AddRecord, Record

ROWS_PER_GROUP = 10_000
"""Rows that are in memory before they are written."""

TYPES = {
    "probability_map": pa.string(),
    "index": pa.int32(),
    "uncertain": pa.bool_(),
    "mask_pixels": pa.int32(),
    "accepted_pixels": pa.int32(),
    "mask_mm2": pa.float64(),
    "latency_ms": pa.float64(),
}


@contextmanager
def open_parquet(path: Path, columns: tuple[str, ...], metadata: dict[str, str]) -> Iterator[AddRecord]:
    """Yield a function that adds a row to a Parquet file, which replaces `path` at the end of the block.

    Args:
        path: The file to write.
        columns: Names of the columns.
        metadata: Texts for the header of the file.

    Raises:
        CascadeError: The file cannot be written.
    """
    schema = pa.schema([(column, _type(column)) for column in columns], metadata)
    rows: list[Record] = []
    with open_atomically(path) as file, ParquetWriter(file, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_arrays([_column(rows, field) for field in schema], schema=schema))
            rows.clear()

        def add(record: Record) -> None:
            rows.append(record)
            if len(rows) == ROWS_PER_GROUP:
                flush()

        yield add
        flush()


def _type(column: str) -> pa.DataType:
    is_number = column.startswith(("probability_", "box_"))
    return TYPES.get(column, pa.float64() if is_number else pa.string())


def _column(rows: Sequence[Record], field: pa.Field) -> pa.Array:
    values = [row.get(field.name) for row in rows]
    try:
        return pa.array(values, field.type)
    except UnicodeEncodeError:
        return pa.array(map(_as_utf8, values), field.type)


def _as_utf8(value: object) -> object:
    """Replace the bytes of a file name that are not UTF-8, which Parquet cannot hold."""
    if isinstance(value, str) and not value.isascii():
        return value.encode(errors="surrogateescape").decode(errors="replace")
    return value
