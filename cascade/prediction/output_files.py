"""The files that a run writes for its inputs: masks, overlays and what else lies below the tables."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cascade.discovery.output_marker import written_folders
from cascade.errors import CascadeError
from cascade.files import sha256_of, write_atomically
from cascade.prediction.output_dir import NOT_IN_EVERY_RUN, remove_previous, remove_temporary, remove_written
from cascade.prediction.output_store import OutputStore


@dataclass(frozen=True)
class OutputFiles:
    """Writes files to a results folder, on a disk or in an object store.

    Attributes:
        out: Results folder; a local folder that stands for it if there is a store.
        store: The object store; None for a folder on a disk.
    """

    out: Path
    store: OutputStore | None = None

    def write(self, path: Path, content: bytes) -> str:
        """Replace a file, whole or not at all.

        Args:
            path: The file, below `out`.
            content: Its new content.

        Returns:
            Its path below `out`.

        Raises:
            CascadeError: It cannot be written.
        """
        name = path.relative_to(self.out).as_posix()
        if self.store:
            self.store.put(name, content)
        else:
            write_atomically(path, content, durable=False)
        return name

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of an input that is not finished. Errors are ignored, see `remove_written`."""
        if self.store:
            with suppress(CascadeError):
                self.store.remove(names)
        else:
            remove_written(self.out, names)

    def are_unchanged(self, files: Mapping[str, str]) -> bool:
        """Return True if all files exist and have the given SHA-256.

        Raises:
            CascadeError: The store cannot be read.
        """
        try:
            if self.store:
                return all(self.store.has_content(name, sha256) for name, sha256 in files.items())
            return all(sha256_of(self.out / name) == sha256 for name, sha256 in files.items())
        except OSError:
            return False

    def read(self, path: Path) -> bytes:
        """Return the content of a file below `out`.

        Raises:
            OSError: It cannot be read from the disk.
            CascadeError: It cannot be read from the store.
        """
        return self.store.read(path.relative_to(self.out).as_posix()) if self.store else path.read_bytes()

    def remove_previous(self, written: Iterable[str]) -> None:
        """Remove what an earlier run wrote, see `remove_previous`.

        Raises:
            CascadeError: A file cannot be removed.
        """
        if self.store:
            folders = {folder.name for folder in written_folders(self.out)}
            # A journal that somebody has changed could name any object.
            images = (name for name in written if name.split("/")[0] in folders and ".." not in name.split("/"))
            self.store.remove(chain(images, NOT_IN_EVERY_RUN))
        remove_previous(self.out, written)  # of a store, the local folder has empty files only

    def remove_temporary(self) -> None:
        """Remove what killed workers were writing. A store never has a part of an object."""
        if not self.store:
            remove_temporary(self.out)
