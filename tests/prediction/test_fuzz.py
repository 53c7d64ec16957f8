"""Thousands of damaged files in whole runs: each has a row; none causes a crash, a hang, noise or a stray file.

pytest tests/prediction/test_fuzz.py --mutations 20000
"""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from accounting import misplaced
from hostile_files import KINDS, run_alone, whole_file, zipped
from stub_cascade import rows_of

BATCH = 250
GZIPPED = ("head.nii.gz", "head.mgz")
LENGTHS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


LIBTIFF = re.compile(r"^(\w*(TIFF|Decode|LZW|ZIP)\w*|MissingRequired|tempfile\.tif): .*\n+", re.MULTILINE)
"""The one library that writes to the terminal from C, where nothing can stop it: a line for each damaged strip."""


def pytest_generate_tests(metafunc):
    if "first" in metafunc.fixturenames:
        metafunc.parametrize("first", range(0, metafunc.config.getoption("--mutations"), BATCH))


def mutation(number):
    """Return name and content of the damaged file of this number; they never change.

    Each file has a folder of its own, because DICOM files that are not MRI have one row per folder.
    """
    choose = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    content = whole_file(kind, number)
    mend = choose.random() < 0.5
    inner = opened(kind, content, choose) if mend else content
    for _ in range(choose.choice((1, 1, 1, 2, 5))):
        inner = choose.choice(DAMAGES)(inner, choose, number)
    return f"{number:06}/{kind}", closed(kind, content, inner, choose) if mend else inner


def flip_bits(content, choose, number):
    damaged = bytearray(content)
    for place in choose.choices(range(len(damaged)), k=choose.choice((1, 2, 8))) if damaged else ():
        damaged[place] ^= 1 << choose.randrange(8)
    return bytes(damaged)


def change_header_bytes(content, choose, number):
    damaged = bytearray(content)
    for place in choose.choices(range(min(len(damaged), 512)), k=choose.choice((1, 4))) if damaged else ():
        damaged[place] = choose.choice((0, 1, 0xFF, choose.randrange(256)))
    return bytes(damaged)


def cut(content, choose, number):
    return content[: choose.randrange(len(content) + 1)]


def repeat_a_part(content, choose, number):
    start, end = part(content, choose)
    return content[:end] + content[start:]


def leave_a_part_out(content, choose, number):
    start, end = part(content, choose)
    return content[:start] + content[end:]


def lie_about_a_length(content, choose, number):
    """Replace two or four bytes, which may be a length: by one more, one less, twice as much, zero or a huge number."""
    size, order = choose.choice((2, 4)), choose.choice("<>")
    if len(content) < size:
        return content
    form = f"{order}{'H' if size == 2 else 'I'}"
    place = choose.randrange(min(len(content), 2048) - size + 1)
    (told,) = struct.unpack_from(form, content, place)
    lie = choose.choice((told + 1, told - 1, 2 * told, *LENGTHS)) % 2 ** (8 * size)
    return content[:place] + struct.pack(form, lie) + content[place + size :]


def splice(content, choose, number):
    other = whole_file(choose.choice(KINDS), number + 10**9)
    return content[: choose.randrange(len(content) + 1)] + other[choose.randrange(len(other)) :]


DAMAGES = (flip_bits, change_header_bytes, cut, repeat_a_part, leave_a_part_out, lie_about_a_length, splice)


def part(content, choose):
    """Draw the start and end of a part of the content."""
    start = choose.randrange(len(content) + 1)
    return start, min(start + choose.choice((1, 2, 16, 200, 2000)), len(content))


def opened(kind, content, choose):
    """Return the content below compression and checksums, which would reveal the damage at once."""
    if kind in GZIPPED:
        return gzip.decompress(content)
    if kind == "some.zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read("b/raw.dcm")
    return content


def closed(kind, whole, inner, choose):
    """Return the damaged content, compressed and with valid checksums."""
    if kind in GZIPPED:
        return gzip.compress(inner, mtime=0)
    if kind == "some.zip":
        return zipped({"a.png": whole_file("gray.png"), "b/raw.dcm": inner})
    return with_right_sums(inner) if kind.endswith(".png") else inner


def with_right_sums(content):
    """Recompute the checksums of the chunks of a PNG, as far as the chunks can be found."""
    mended, place = bytearray(content), 8
    while place + 12 <= len(mended):
        (size,) = struct.unpack_from(">I", mended, place)
        end = place + 8 + size
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[place + 4 : end]))
        place = end + 4
    return bytes(mended)


def wrong_with(numbers, folder):
    """Return the problem of a run over these mutations; empty if it succeeds."""
    scans, out = folder / "scans", folder / "out"
    scans.mkdir(parents=True)
    names = []
    for number in numbers:
        name, content = mutation(number)
        (scans / name).parent.mkdir()
        (scans / name).write_bytes(content)
        names.append(name)
    ended = run_alone(scans, out)
    noise = LIBTIFF.sub("", ended.stderr)
    if ended.returncode not in (0, 1, 2) or noise:
        return f"ended with {ended.returncode}: {noise[-3000:]}"
    if not out.exists():
        return "" if ended.returncode == 1 and "fix: " in ended.stdout else f"left nothing: {ended.stdout}"
    told = [row["slice"].removeprefix(f"{scans}/") for row in rows_of(out)]
    for name in names:
        if not any(row == name or row.startswith(f"{name}/") for row in told):
            return f"has no row for {name}"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    inputs = {f"scans/{name}" for name in names}
    if wrong := misplaced([scans], out):  # the run has counted, too
        return f"has no place, or several, for {wrong}"
    if stray := {path for path in found if not path.startswith("out/")} - inputs - {"out.tmp"}:
        return f"left {stray}"
    return "left half a file" if list(out.rglob(".writing-*")) else ""


def culprits(numbers, folder):
    """Reduce the numbers of a failed run to the fewest that still fail."""
    for half in (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]):
        below = Path(f"{folder}-{half[0]}-{len(half)}") if half else folder
        if half and len(numbers) > 1 and wrong_with(half, below):
            return culprits(half, below)
    return numbers


@pytest.mark.slow
def test_every_damaged_file_has_a_row(first, request, tmp_path):
    numbers = list(range(first, min(first + BATCH, request.config.getoption("--mutations"))))
    if wrong := wrong_with(numbers, tmp_path / "run"):
        guilty = culprits(numbers, tmp_path / "again")
        again = wrong_with(guilty, tmp_path / "last") or wrong
        pytest.fail(f"mutations {guilty}, see mutation(number): the run {again}")


def test_a_mutation_depends_on_its_number_only():
    made = [mutation(number) for number in range(200)]
    assert made == [mutation(number) for number in range(200)]
    assert len({content for _, content in made}) > 190
    whole = [whole_file(KINDS[number % len(KINDS)], number) for number in range(200)]
    assert sum(content != before for (_, content), before in zip(made, whole, strict=True)) > 180
