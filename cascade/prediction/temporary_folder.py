"""A folder for the time of a run: what is in zips, and what is needed of an object store."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cascade.errors import CascadeError


@contextmanager
def temporary_folder(shared_with: Path | None) -> Iterator[Path]:
    """Yield an empty folder, hidden on the storage of a results folder or, with None, where the system has its own.

    It is in the results folder if that exists, since the folder above may be read-only, or not shared with other
    machines. Otherwise, it is beside it, since a run that is refused creates no results folder. It is removed at the
    end of the block.

    Raises:
        CascadeError: It cannot be created.
    """
    try:
        if shared_with is None:
            folder = tempfile.TemporaryDirectory(prefix="cascade-")
        else:
            results = shared_with.absolute()
            place = results if results.is_dir() else results.parent
            place.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix=f".{results.name}-", dir=place)
    except OSError as error:
        raise CascadeError(
            f"{error.filename or 'a temporary folder'}: cannot be created ({error.strerror})",
            fix="choose another folder with --out" if shared_with else "set TMPDIR to a folder that can be written",
        ) from error
    with folder:
        yield Path(folder.name)
