"""The Parquet table holds any number of rows, and any file name."""

import pytest

parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'cascade-mri[cluster]'")

import cascade.prediction.parquet
from cascade.prediction.parquet import open_parquet


def test_rows_are_written_in_groups_and_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(cascade.prediction.parquet, "ROWS_PER_GROUP", 2)
    with open_parquet(tmp_path / "rows.parquet", ("slice", "index"), {"schema": "1"}) as add:
        for index in range(5):
            add({"slice": f"{index}.png", "index": index})
    file = parquet.ParquetFile(tmp_path / "rows.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [2, 2, 1]
    assert file.read().to_pylist() == [{"slice": f"{index}.png", "index": index} for index in range(5)]


def test_a_name_that_is_not_utf_8_is_written_with_a_replacement(tmp_path):
    """Linux allows any bytes; Python reads the byte 0xFF as the surrogate U+DCFF, which Parquet cannot hold."""
    with open_parquet(tmp_path / "rows.parquet", ("slice", "index"), {}) as add:
        add({"slice": "Müller-\udcff.png", "index": None})
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == [{"slice": "Müller-\ufffd.png", "index": None}]
