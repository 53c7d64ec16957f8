"""CSV files that Excel and LibreOffice open as they are meant."""

import csv
import io

import pytest

from cascade.tables import read_table, table_bytes

NAMES = ["=1+1.png", "+1.png", "-1.png", "@sum.png", "\t=1.png", "\r=1.png", "\n=1.png"]


def cells(content):
    return [row["name"] for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))]


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_executed(name):
    assert cells(table_bytes(["name"], [{"name": name}])) == [f"'{name}"]


def test_a_table_is_utf_8_with_a_byte_order_mark_and_numbers_stay_numbers():
    content = table_bytes(["name", "value"], [{"name": "größe 日本.png", "value": -0.5, "ignored": 1}, {"name": None}])
    assert content == b"\xef\xbb\xbf" + "name,value\r\ngröße 日本.png,-0.5\r\n,\r\n".encode()


def test_a_name_that_is_not_utf_8_does_not_make_the_table_unreadable():
    """Its bytes were written as they are, and pandas refused the whole table."""
    assert cells(table_bytes(["name"], [{"name": "caf\udce9.png"}])) == [r"caf\udce9.png"]


@pytest.mark.parametrize(
    "name", [*NAMES, "'=1.png", "''=1.png", "'quoted'.png", "", 'a "b", c.png', "ä.png", "a'=.png"]
)
def test_what_is_written_is_read_again(name):
    assert read_table(table_bytes(["name"], [{"name": name}])) == [{"name": name}]
