"""CSV files that spreadsheets open: names stay legible, and no cell is executed as a formula."""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""A spreadsheet takes a cell that starts with one of these characters for a formula, which can run programs.

Names that already look escaped are escaped too, so that `read_table` can tell both apart.
"""

ESCAPED = "'=+-@\t\r\n"
"""First characters of the cells that may need an apostrophe. To look for them first is much faster than the pattern."""


class TableWriter:
    r"""Writes a CSV file row by row.

    It is UTF-8 with a byte-order mark, without which Excel reads another encoding, and has CRLF line ends. Text that a
    spreadsheet would execute starts with an apostrophe; numbers are not touched. File names may contain bytes that are
    not UTF-8: they become `\udcXX`, as in JSON.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[str]) -> None:
        """Write the header.

        Args:
            file: The file, which the caller closes.
            columns: The header.
        """
        self._file, self._columns = file, columns
        file.write(codecs.BOM_UTF8)
        self._writer = csv.writer(self, lineterminator="\r\n")  # quotes both
        self._writer.writerow(columns)

    def add(self, row: Mapping[str, object]) -> None:
        """Write a row.

        Args:
            row: Column → value; None is an empty cell. It may lack some columns, and have others, which are ignored.
        """
        self._writer.writerow(
            [
                _escape(value) if isinstance(value, str) and value[:1] in ESCAPED else value
                for value in map(row.get, self._columns)
            ]
        )

    def write(self, text: str) -> int:
        """Write text as it is; the csv module calls this."""
        return self._file.write(text.encode(errors="backslashreplace"))


def table_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """Return the content of a CSV file with a header and one line per row, as `TableWriter` writes it."""
    content = io.BytesIO()
    writer = TableWriter(content, columns)
    for row in rows:
        writer.add(row)
    return content.getvalue()


def read_table(content: bytes) -> list[dict[str, str]]:
    """Return the rows of a file that `table_bytes` has written, without the apostrophes that it added."""
    lines = io.StringIO(content.decode("utf-8-sig"), newline="")
    return [{column: _unescape(value) for column, value in row.items()} for row in csv.DictReader(lines)]


def _escape(value: str) -> str:
    return f"'{value}" if FORMULA.match(value) else value


def _unescape(value: str) -> str:
    return value[1:] if value.startswith("'") and FORMULA.match(value) else value
