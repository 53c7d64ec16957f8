"""Unpacking an archive never takes more disk, memory and time than the limits allow, whatever is in it."""

import os
import random
import struct
import tracemalloc

import pytest
from input_files import ALL, DICOM, files_below, only_problem, pack, patch
from input_files import unpack as unpack

from cascade.discovery.archives import CHUNK_BYTES, Limits, unpack_zip
from cascade.errors import CascadeError


def test_a_bomb_stops_at_its_ratio_and_the_other_members_are_unpacked(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", ("bomb.png", bytes(3_000_000)), ("good.png", b"1"))
    result = unpack(path, limits=Limits(small=1_000_000))
    assert result.names == ["good.png"]
    assert "unpacks to more than 1,000,000 bytes" in only_problem(result).problem
    assert files_below(tmp_path / "into") == ["study.zip/good.png"]
    assert result.size < 1_500_000


def test_a_small_blank_image_may_have_any_ratio(tmp_path, unpack):
    assert unpack(pack(tmp_path / "study.zip", ("blank.bmp", bytes(3_000_000)))).names == ["blank.bmp"]


@pytest.mark.parametrize("claimed", [10, 2**31])
def test_a_wrong_packed_size_in_the_directory_does_not_raise_the_limit(tmp_path, unpack, claimed):
    path = pack(tmp_path / "study.zip", ("bomb.png", bytes(3_000_000)))
    patch(path, "bomb.png", 20, struct.pack("<I", claimed))
    result = unpack(path, limits=Limits(small=100_000, ratio=10))
    assert result.names == []
    assert files_below(tmp_path / "into") == []
    assert result.size < 500_000


def test_the_size_of_all_members_and_archives_together_is_limited(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", *((f"{number}.png", os.urandom(1000)) for number in range(9)))
    result = unpack(path, limits=Limits(total=5500))
    assert result.names == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert list(result.problems) == ["5.png"]
    assert list(result.left_out) == [name for name in result.members if name > "5.png"]
    assert "5.png: this and all later members exceed" in only_problem(result).problem
    again = unpack_zip(path, tmp_path / "again", ALL, limits=Limits(total=5500), bytes_used=result.size)
    assert again.names == []
    assert list(again.problems) == ["0.png"]


def test_the_bytes_of_damaged_members_count_too(tmp_path, unpack):
    """Otherwise an archive of many members that all fail at their last byte would take for ever."""
    path = pack(tmp_path / "study.zip", *((f"{number}.png", os.urandom(2 * CHUNK_BYTES)) for number in range(9)))
    for number in range(9):
        patch(path, f"{number}.png", 16, b"\0\0\0\0")  # its CRC
    result = unpack(path, limits=Limits(total=3 * CHUNK_BYTES))
    assert result.names == []
    assert list(result.problems) == ["0.png", "1.png", "2.png", "3.png"]


def test_an_archive_of_too_many_members_is_refused(tmp_path, unpack):
    path = pack(tmp_path / "study.zip", *((f"{number}.png", b"") for number in range(5)))
    with pytest.raises(CascadeError, match=r"study\.zip: .*5 members"):
        unpack(path, limits=Limits(members=4))


def test_a_huge_directory_is_not_read_into_memory(tmp_path, unpack):
    """The header may declare 65,535 members while millions are listed: zipfile makes an object for each."""
    entry = b"PK\x01\x02" + struct.pack("<24xH16x", 1) + b"a"  # all 0 but the length of the name
    directory = entry * (2**24 // len(entry) + 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), 0, 0)
    path = tmp_path / "study.zip"
    path.write_bytes(directory + end)
    tracemalloc.start()
    with pytest.raises(CascadeError, match="directory is longer"):
        unpack(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_member_in_a_thousand_folders_is_a_problem(tmp_path, unpack):
    result = unpack(pack(tmp_path / "study.zip", ("f/" * 1200 + "a.png", b"1"), ("b.png", b"1")))
    assert result.names == ["b.png"]
    assert "32 folders" in only_problem(result).problem


def test_problems_do_not_keep_unpacked_bytes_in_memory(tmp_path, unpack):
    """The traceback of an error refers to the last chunk: 100,000 problems took 6 GB."""
    noise = os.urandom(2 * CHUNK_BYTES)
    path = pack(tmp_path / "study.zip", *((f"{number:02}.png", noise) for number in range(40)))
    for number in range(40):
        patch(path, f"{number:02}.png", 16, b"\0\0\0\0")
    tracemalloc.start()
    result = unpack(path)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(result.problems) == 40
    assert size < 10 * CHUNK_BYTES


def test_300_mutated_archives_give_slices_and_problems_only(tmp_path, unpack):
    """Each is a valid archive with some bytes changed or its end cut off, by a seeded generator."""
    whole = pack(
        tmp_path / "whole.zip",
        ("p/a.png", os.urandom(300)),
        ("p/b.png", bytes(5000)),
        ("IM0001", DICOM),
        ("ä/c.nii.gz", b"3" * 200),
        ("notes.txt", b"4"),
    ).read_bytes()
    chance = random.Random(0)
    path = tmp_path / "mutated.zip"
    refused = damaged = taken = 0
    tracemalloc.start()
    for _ in range(300):
        content = bytearray(whole)
        if chance.random() < 0.2:
            del content[chance.randrange(len(content)) :]
        else:
            start = chance.choice((0, content.index(b"PK\x01\x02")))  # as often in the headers as in the content
            for _ in range(chance.randint(1, 4)):
                content[chance.randrange(start, len(content))] = chance.choice((0, 255, chance.randrange(256)))
        path.write_bytes(content)
        into = tmp_path / "into" / f"{chance.random()}"
        try:
            result = unpack_zip(path, into, ALL, limits=Limits(members=100, small=10_000, total=100_000))
        except CascadeError as error:
            refused += error.problem.startswith(f"{path}: ")
            continue
        damaged += len(result.problems)
        taken += len(result.names)
        assert sorted(result.names) == (files_below(into) if into.exists() else [])
        assert result.size <= 100_000 + 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {path.name for path in tmp_path.iterdir()} == {"whole.zip", "mutated.zip", "into"}
    assert min(refused, damaged, taken) > 50
    assert peak < 4_000_000
