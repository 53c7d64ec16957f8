"""A folder for the time of a run: what is in zips, and what is needed of an object store."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cascade.errors import CascadeError


@contextmanager
def temporary_folder(beside: Path | None) -> Iterator[Path]:
    """Yield an empty folder, hidden beside a path or, with None, where the system has its temporary files.

    It is removed at the end of the block.

    Raises:
        CascadeError: It cannot be created.
    """
    try:
        if beside:
            beside.absolute().parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(
            prefix=f".{beside.name}-" if beside else "cascade-", dir=beside.absolute().parent if beside else None
        )
    except OSError as error:
        raise CascadeError(
            f"{error.filename}: cannot be created ({error.strerror})", fix="choose another folder with --out"
        ) from error
    with folder:
        yield Path(folder.name)
