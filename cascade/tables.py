"""CSV files that spreadsheets open: names stay legible, and no cell is executed as a formula."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""A spreadsheet takes a cell that starts with one of these characters for a formula, which can run programs.

Names that already look escaped are escaped too, so that `read_table` can tell both apart.
"""


def table_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    r"""Return the content of a CSV file with a header and one line per row.

    It is UTF-8 with a byte-order mark, without which Excel reads another encoding, and has CRLF line ends. Text that a
    spreadsheet would execute starts with an apostrophe; numbers are not touched. File names may contain bytes that are
    not UTF-8: they become `\udcXX`, as in JSON.

    Args:
        columns: The header. A row may lack some of them, and have others, which are ignored.
        rows: Column → value; None is an empty cell.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\r\n", extrasaction="ignore")  # quotes both
    writer.writeheader()
    writer.writerows({column: _escape(value) for column, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8-sig", errors="backslashreplace")


def read_table(content: bytes) -> list[dict[str, str]]:
    """Return the rows of a file that `table_bytes` has written, without the apostrophes that it added."""
    lines = io.StringIO(content.decode("utf-8-sig"), newline="")
    return [{column: _unescape(value) for column, value in row.items()} for row in csv.DictReader(lines)]


def _escape(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _unescape(value: str) -> str:
    return value[1:] if value.startswith("'") and FORMULA.match(value) else value
