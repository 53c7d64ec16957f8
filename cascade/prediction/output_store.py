"""A results folder in an object store, which has neither append nor rename: every write puts a whole object."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from cascade.discovery.store import open_url, store_errors
from cascade.errors import CascadeError
from cascade.files import open_atomically, sha256_of_bytes, write_atomically

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

THREADS = 32
"""Objects that are read, written or removed at once: a store takes 10 to 100 ms to answer."""

QUEUED = 256
"""Objects that are in memory at once."""


@dataclass(frozen=True)
class OutputStore:
    """Writes and reads the objects of a results folder. All names are paths below the folder.

    Attributes:
        url: URL of the folder, without a slash at its end.
        folder: Local folder that stands for it: paths in it name the results, and the driver writes its tables there.
    """

    url: str
    folder: Path

    def with_urls(self, text: str) -> str:
        """Return a text with URLs in place of paths in the local folder."""
        return text.replace(str(self.folder), self.url)

    def put(self, name: str, content: bytes) -> None:
        """Replace an object, whole or not at all.

        Raises:
            CascadeError: It cannot be written.
        """
        filesystem, key = self._open(name)
        with store_errors(f"{self.url}/{name}", action="written"):
            if local := _local_path(filesystem, key):
                write_atomically(local, content, durable=False)
            else:
                filesystem.pipe_file(key, content)

    def upload(self, name: str) -> None:
        """Replace an object by the file of this name in the local folder, whole or not at all.

        Raises:
            CascadeError: It cannot be written.
        """
        filesystem, key = self._open(name)
        with store_errors(f"{self.url}/{name}", action="written"):
            if local := _local_path(filesystem, key):
                with (self.folder / name).open("rb") as source, open_atomically(local) as file:
                    shutil.copyfileobj(source, file)
            else:
                filesystem.put_file(str(self.folder / name), key)

    def create(self, name: str, content: bytes) -> None:
        """Write an object that does not exist yet.

        S3, Google Cloud Storage and Azure let only one of several processes create it. Other stores may look first, and
        then write.

        Raises:
            CascadeError: It exists, or cannot be written. Stores use various exceptions for the former.
        """
        filesystem, key = self._open(name)
        with store_errors(f"{self.url}/{name}", action="created"):
            if local := _local_path(filesystem, key):
                local.parent.mkdir(parents=True, exist_ok=True)
                local.touch(exist_ok=False)
                try:
                    write_atomically(local, content)
                except CascadeError:
                    local.unlink()
                    raise
            else:
                filesystem.pipe_file(key, content, mode="create")

    def read(self, name: str, end: int | None = None) -> bytes:
        """Return the content of an object, or its first bytes up to `end`.

        Raises:
            CascadeError: It cannot be read.
        """
        filesystem, key = self._open(name)
        with store_errors(f"{self.url}/{name}"):
            return bytes(filesystem.cat_file(key, start=None if end is None else 0, end=end))

    def read_all(self, names: Iterable[str]) -> Iterator[bytes]:
        """Return the contents of objects in their order.

        Raises:
            CascadeError: One cannot be read.
        """
        return _in_threads(self.read, names)

    def download(self, name: str, file: BinaryIO) -> None:
        """Write the content of an object to a file.

        Raises:
            CascadeError: It cannot be read.
        """
        filesystem, key = self._open(name)
        with store_errors(f"{self.url}/{name}"), filesystem.open(key, "rb") as source:
            shutil.copyfileobj(source, file)

    def has_content(self, name: str, sha256: str) -> bool:
        """Return True if an object exists and has this checksum.

        Raises:
            CascadeError: The store cannot be read, which does not mean that the object is gone.
        """
        filesystem, key = self._open(name)
        with store_errors(f"{self.url}/{name}"):
            try:
                return sha256_of_bytes(filesystem.cat_file(key)) == sha256
            except FileNotFoundError:
                return False

    def names_in(self, folder: str = "") -> dict[str, bool]:
        """Return the names directly below the folder, or below a folder in it: name → True for a folder.

        Raises:
            CascadeError: The store cannot be listed, or an object has the name of the folder.
        """
        filesystem, key = self._open(folder)
        url = f"{self.url}/{folder}".rstrip("/")
        with store_errors(url):
            filesystem.invalidate_cache()  # other processes write there too
            try:
                found = filesystem.ls(key, detail=True)
            except FileNotFoundError:
                return {}
        if any(info["name"] == key and info["type"] == "file" for info in found):
            raise CascadeError(f"{url}: cannot be written because it is a file", fix="choose a folder with --out")
        prefix = f"{folder}/" if folder else ""
        return {f"{prefix}{info['name'].rstrip('/').rpartition('/')[2]}": info["type"] != "file" for info in found}

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, as far as they exist.

        Raises:
            CascadeError: One cannot be removed.
        """

        def remove(name: str) -> None:
            filesystem, key = self._open(name)
            with store_errors(f"{self.url}/{name}", action="removed"), suppress(FileNotFoundError):
                filesystem.rm_file(key)  # `rm` would take signs in names for patterns

        for _ in _in_threads(remove, names):
            pass

    def _open(self, name: str) -> "tuple[AbstractFileSystem, str]":
        filesystem, key = open_url(self.url)
        return filesystem, f"{key}/{name}".rstrip("/")


def _in_threads(function: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
    """Yield what the function returns for each name, in their order."""
    pending = iter(names)
    with ThreadPoolExecutor(THREADS) as pool:
        while window := list(islice(pending, QUEUED)):
            yield from pool.map(function, window)


def _local_path(filesystem: "AbstractFileSystem", key: str) -> Path | None:
    """Return the path of a file:// URL, to which fsspec does not write atomically; None for all others."""
    from fsspec.implementations.local import LocalFileSystem

    return Path(key) if isinstance(filesystem, LocalFileSystem) else None
