"""The inputs of a run, with a temporary folder for zips and for what is needed of an object store."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import Inputs, find_slices
from cascade.discovery.store import is_url
from cascade.errors import CascadeError
from cascade.io.mirror import find_stored_slices
from cascade.prediction.output_dir import output_paths
from cascade.prediction.run_options import RunOptions


@contextmanager
def collect_inputs(
    paths: Sequence[str | os.PathLike[str]], out: Path, options: RunOptions, *, shared: bool = False
) -> Iterator[Inputs]:
    """Find the inputs of a run. Zips are unpacked to a temporary folder, which is removed at the end.

    What is needed of inputs in an object store is fetched to this folder too.

    Args:
        paths: Files, folders and patterns; or URLs of these.
        out: Results folder.
        options: Options of the run.
        shared: Put the temporary folder beside the results, where other machines see it.

    Raises:
        CascadeError: There is nothing to process, or the temporary folder cannot be created.
    """
    search: dict[str, Any] = {
        "own_output": output_paths(out),
        "formats": FORMATS,
        "recursive": options.recursive,
        "include": options.include,
        "exclude": options.exclude,
    }
    with _temporary_folder(out if shared else None) as temporary:
        if any(map(is_url, paths)):
            yield find_stored_slices(list(map(str, paths)), temporary, **search)
        else:
            yield find_slices(map(Path, paths), unpack_into=temporary, **search)


@contextmanager
def _temporary_folder(beside: Path | None) -> Iterator[Path]:
    """Yield an empty folder, hidden beside a path or, with None, where the system has its temporary files."""
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
