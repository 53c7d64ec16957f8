"""Lists of paths on stdin, as `find` prints them."""

import io

import pytest

from cascade.discovery.inputs import read_list


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"", []),
        (b"a.png\n\n  \nb c.png", ["a.png", "b c.png"]),
        (b"a.png\r\nb.png\r\n", ["a.png", "b.png"]),
        (b"# no comment\n", ["# no comment"]),
        (b"a\nb.png\0c.png\0", ["a\nb.png", "c.png"]),
        (b"\xff.png\n", ["\udcff.png"]),
        ("ä.png".encode(), ["ä.png"]),
    ],
)
def test_a_list_has_one_path_per_line_or_separates_them_by_nuls(content, paths):
    assert read_list(io.BytesIO(content)) == paths
