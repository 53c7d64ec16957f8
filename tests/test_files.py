"""Files are written completely or not at all, and messages do not name the home folder."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from cascade.errors import CascadeError
from cascade.files import sha256_of, without_home, write_atomically


def test_content_is_read_back_and_has_the_hash_that_other_tools_compute(tmp_path):
    path = tmp_path / "a" / "b" / "mask.png"  # neither folder exists yet
    write_atomically(path, b"abc")
    assert path.read_bytes() == b"abc"
    assert (
        sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180-2, appendix B.1
    assert sha256_of(path) == hashlib.sha256(b"abc").hexdigest()


def test_new_content_replaces_the_old_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "results.json"
    write_atomically(path, b"old and longer")
    write_atomically(path, b"new", durable=False)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_complete_when_it_is_synchronized_with_the_disk(tmp_path, monkeypatch):
    sizes, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (sizes.append(os.fstat(file).st_size), fsync(file)))
    write_atomically(tmp_path / "a", b"abc")
    assert sizes == [3]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path, monkeypatch, step):
    path = tmp_path / "results.json"
    write_atomically(path, b"old")

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, no_space)
    with pytest.raises(CascadeError, match=r"results\.json: cannot be written \(No space left on device") as raised:
        write_atomically(path, b"new")
    assert "free space" in raised.value.fix
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_umask_sets_the_permissions_of_a_file(tmp_path):
    """Everybody could read masks and overlays, whatever the umask."""
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "mask.png", b"")
        os.umask(0o022)
        write_atomically(tmp_path / "results.csv", b"")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("mask.png", "results.csv")]
    assert modes == [0o600, 0o644]


def test_an_interrupt_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_with_the_name_of_the_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CascadeError, match="out: cannot be written"):
        write_atomically(tmp_path / "out", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_with_the_name_of_the_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(CascadeError, match=r"mask\.png: cannot be written"):
        write_atomically(tmp_path / "out" / "mask.png", b"new")
    assert (tmp_path / "out").read_bytes() == b"precious"


@pytest.mark.usefixtures("permissions")
def test_a_read_only_folder_is_an_error_that_names_the_file(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(CascadeError, match=r"mask\.png: cannot be written \(Permission denied"):
        write_atomically(Path(locked) / "mask.png", b"new")


@pytest.mark.parametrize(
    ("home", "text", "expected"),
    [
        ("/home/jane", "/home/jane/engines: there is no such file", "~/engines: there is no such file"),
        ("/home/jane", "'/home/jane', /home/jane: a, (/home/jane/b) and /home/jane.", "'~', ~: a, (~/b) and ~."),
        ("/home/jane/", "/home/jane/a", "~/a"),
        (
            "/home/jo",
            "/home/jon/a /home/jo-2/a /home/jo.old/a /mnt/home/jo/a",
            "/home/jon/a /home/jo-2/a /home/jo.old/a /mnt/home/jo/a",
        ),
        ("/", "/opt/engines/segmenter.engine", "/opt/engines/segmenter.engine"),  # docker run --user
        ("", "/opt/engines/segmenter.engine", "/opt/engines/segmenter.engine"),
    ],
)
def test_only_paths_in_the_home_folder_are_abbreviated(monkeypatch, home, text, expected):
    monkeypatch.setenv("HOME", home)
    assert without_home(text) == expected


def test_without_a_home_folder_the_text_is_unchanged(monkeypatch):
    """Containers with an arbitrary user id have neither HOME nor an entry in the user database."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert without_home("/opt/engines") == "/opt/engines"
