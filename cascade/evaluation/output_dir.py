"""The folder that an evaluation writes its files to."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from cascade.discovery.output_marker import EVALUATION, EVALUATION_1_PICTURES, EVALUATION_PICTURES, has_marker
from cascade.errors import CascadeError
from cascade.files import write_atomically

FILES = (
    EVALUATION_PICTURES
    | EVALUATION_1_PICTURES
    | {"metrics.json", "slices.csv", "volumes.csv", "negatives.csv", "tumor_free.csv"}
)
"""All files that an evaluation may write. `tumor_free.csv` is the name of negatives.csv in `cascade evaluation 1`."""

INCOMPLETE = f'{{"schema": "{EVALUATION} (incomplete)"}}\n'.encode()
"""metrics.json until all other files are written. It marks them as those of an evaluation, if that is interrupted."""


def check_output_dir(out: Path, folder: Path) -> None:
    """Check that results can be written, before the models run.

    Args:
        out: Folder for the results.
        folder: Folder of the data set.

    Raises:
        CascadeError: The folder is the data set, cannot be written, or contains files that no evaluation wrote.
    """
    if out.resolve() == folder.resolve():
        raise CascadeError(f"{out}: is the folder of the data set", fix="write to another folder with --out")
    existing = [out / name for name in sorted(FILES) if (out / name).exists()]
    if existing and not has_marker(out / "metrics.json"):
        raise CascadeError(
            f"{existing[0]}: would be overwritten, and no evaluation wrote it", fix="write to another folder with --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise CascadeError(
            f"{out}: cannot be written ({error.strerror})", fix="write to another folder with --out"
        ) from error


def write_files(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of an evaluation in place of those of an earlier one.

    Args:
        out: The folder.
        files: Content by name. metrics.json must be the last, so that it implies that all others are there.
    """
    write_atomically(out / "metrics.json", INCOMPLETE)
    for name in FILES - files.keys():  # an earlier evaluation's would be mistaken for this one's
        (out / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_atomically(out / name, content)
