"""The files that a run writes for its inputs: masks, overlays and all else that lies below the tables."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from cascade.discovery.output_marker import written_folders
from cascade.errors import CascadeError
from cascade.files import sha256_of, write_atomically
from cascade.prediction.output_dir import NOT_IN_EVERY_RUN, remove_previous, remove_temporary, remove_written
from cascade.prediction.output_store import OutputStore


class OutputFiles(Protocol):
    """Files in a results folder, on a disk or in an object store. Names are paths below the folder."""

    def write(self, path: Path, content: bytes) -> str:
        """Replace a file, whole or not at all.

        Args:
            path: The file, below `ResultsFolder.out`.
            content: Its new content.

        Returns:
            Its name.

        Raises:
            CascadeError: It cannot be written.
        """
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            OSError: It cannot be read from the disk.
            CascadeError: It cannot be read from the store.
        """
        ...

    def has(self, name: str) -> bool:
        """Return True if a file that the tables name exists."""
        ...

    def are_unchanged(self, files: Mapping[str, str]) -> bool:
        """Return True if all files exist and have the given SHA-256.

        Raises:
            CascadeError: The store cannot be read.
        """
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of inputs that are not finished, as far as they exist. Errors are ignored: no row names them."""
        ...

    def remove_previous(self, written: Iterable[str], keep: Iterable[str] = ()) -> None:
        """Remove what an earlier run wrote, except for the tables that every run replaces, and for files to keep.

        Raises:
            CascadeError: A file cannot be removed.
        """
        ...

    def remove_temporary(self) -> None:
        """Remove what workers were writing when they were killed."""
        ...


@dataclass(frozen=True)
class LocalFiles:
    """Files on a disk, see `OutputFiles`.

    Attributes:
        out: Results folder.
    """

    out: Path

    def write(self, path: Path, content: bytes) -> str:
        """See `OutputFiles.write`."""
        write_atomically(path, content, durable=False)
        return path.relative_to(self.out).as_posix()

    def read(self, name: str) -> bytes:
        """See `OutputFiles.read`."""
        return (self.out / name).read_bytes()

    def has(self, name: str) -> bool:
        """See `OutputFiles.has`."""
        return (self.out / name).is_file()

    def are_unchanged(self, files: Mapping[str, str]) -> bool:
        """See `OutputFiles.are_unchanged`."""
        try:
            return all(sha256_of(self.out / name) == sha256 for name, sha256 in files.items())
        except OSError:
            return False

    def remove(self, names: Iterable[str]) -> None:
        """See `OutputFiles.remove`."""
        remove_written(self.out, names)

    def remove_previous(self, written: Iterable[str], keep: Iterable[str] = ()) -> None:
        """See `OutputFiles.remove_previous`."""
        remove_previous(self.out, written, keep)

    def remove_temporary(self) -> None:
        """See `OutputFiles.remove_temporary`."""
        remove_temporary(self.out)


@dataclass(frozen=True)
class StoredFiles:
    """Files in an object store, see `OutputFiles`.

    Attributes:
        store: The store.
    """

    store: OutputStore

    def write(self, path: Path, content: bytes) -> str:
        """See `OutputFiles.write`."""
        name = path.relative_to(self.store.folder).as_posix()
        self.store.put(name, content)
        return name

    def read(self, name: str) -> bytes:
        """See `OutputFiles.read`."""
        return self.store.read(name)

    def has(self, name: str) -> bool:
        """Return True: the run has written or compared the file, and a request for each would take hours."""
        return True

    def are_unchanged(self, files: Mapping[str, str]) -> bool:
        """See `OutputFiles.are_unchanged`."""
        return all(self.store.has_content(name, sha256) for name, sha256 in files.items())

    def remove(self, names: Iterable[str]) -> None:
        """See `OutputFiles.remove`."""
        with suppress(CascadeError):
            self.store.remove(names)

    def remove_previous(self, written: Iterable[str], keep: Iterable[str] = ()) -> None:
        """See `OutputFiles.remove_previous`."""
        folders = {folder.name for folder in written_folders(self.store.folder)}
        # A journal that somebody has changed could name any object.
        images = (name for name in written if name.split("/")[0] in folders and ".." not in name.split("/"))
        kept = set(keep)
        self.store.remove(name for name in chain(images, NOT_IN_EVERY_RUN) if name not in kept)

    def remove_temporary(self) -> None:
        """Do nothing: a store never has a part of an object."""
