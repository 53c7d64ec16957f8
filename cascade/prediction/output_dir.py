"""The results folder: names of the files in it, the check that a run may write to it, its lock, and its clean-up."""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from filelock import FileLock, Timeout

from cascade.discovery.filters import FORMATS, SUFFIXES
from cascade.discovery.output_marker import CAPTURES, MASKS, OVERLAYS, PROBABILITIES, has_marker, written_folders
from cascade.errors import CascadeError
from cascade.files import TEMPORARY_PREFIX, sha256_of_bytes

JOURNAL = "journal.jsonl"
REPORT = "report.html"
VOLUMES = "volumes.csv"

PARQUET = "results.parquet"
"""Only runs on a cluster write it."""

NOT_IN_EVERY_RUN = (REPORT, PARQUET)

LOCK = ".cascade.lock"
"""Stays in the folder after a run: removing it could hand the lock to two runs at once."""

ACCESS_PREFIX = ".cascade-access-"
"""First characters of the name of a file by which workers find out that they see this folder."""

DICOM_MASK_SUFFIX = ".seg.dcm"

NO_SUFFIX = ".dicom"
"""Stands for the missing suffix of an input, which is a DICOM file or series. One that has this suffix gets another."""

INPUT_SUFFIXES = tuple(suffix for kind in FORMATS for suffix in SUFFIXES[kind])

MAX_NAME_BYTES = 255
"""Longest name of a file on all common file systems."""


def output_paths(out: Path) -> list[Path]:
    """Return the files and folders that a run writes into its results folder."""
    names = ("results.json", "results.csv", VOLUMES, "run.json", JOURNAL, *NOT_IN_EVERY_RUN)
    return [*(out / name for name in names), *written_folders(out)]


def access_name() -> str:
    """Return a new random name that begins with ACCESS_PREFIX."""
    return f"{ACCESS_PREFIX}{secrets.token_hex(8)}"


def mask_path(out: Path, name: str, suffix: str) -> Path:
    """Return the path of the mask of an input."""
    return out / MASKS / output_name(name, suffix)


def probability_path(out: Path, name: str, suffix: str) -> Path:
    """Return the path of the probability map of an input, which has the name and format of its mask."""
    return out / PROBABILITIES / output_name(name, suffix)


def overlay_path(out: Path, name: str, number: str | None) -> Path:
    """Return the path of the overlay of an input, or of the slice with this number in it."""
    return out / OVERLAYS / slice_output_name(name, number, ".png")


def capture_path(out: Path, name: str, number: str | None) -> Path:
    """Return the path of the secondary capture of an input, or of the slice with this number in it."""
    return out / CAPTURES / slice_output_name(name, number, ".dcm")


def slice_output_name(name: str, number: str | None, suffix: str) -> str:
    """Return the name of a file that is written for an input, or for the slice with this number in it."""
    if number is None:
        return output_name(name, suffix)
    return f"{shorten(name, NO_SUFFIX) if _needs_suffix(name) else name}/{number}{suffix}"


def output_name(name: str, suffix: str) -> str:
    """Return the name of a file that is written for an input, different for any two inputs.

    `a.png` stays `a.png`. Any other suffix is kept: `a.jpg` → `a.jpg.png`. A PNG with a second suffix counts as "any
    other", so `a.jpg.png` → `a.jpg.png.png`; likewise for volumes, `a.nii` → `a.nii.nii.gz`. A DICOM file or series
    without a suffix gets one, so that IM1 and IM1.png differ: `IM1` → `IM1.dicom.png`, and so does `IM1.dicom` →
    `IM1.dicom.dicom.png`. Long names are shortened.
    """
    stem = name.removesuffix(suffix)
    if stem != name and suffix != DICOM_MASK_SUFFIX and not stem.lower().endswith(INPUT_SUFFIXES):
        return name
    if suffix != DICOM_MASK_SUFFIX and _needs_suffix(name):
        return shorten(name, f"{NO_SUFFIX}{suffix}")
    return shorten(name, suffix)


def _needs_suffix(name: str) -> bool:
    """Return True for a DICOM file or series without a suffix, or with the one that would be put in its place."""
    return name.lower().endswith(NO_SUFFIX) or not name.lower().endswith(INPUT_SUFFIXES)


def shorten(name: str, suffix: str) -> str:
    """Append the suffix; if the result exceeds MAX_NAME_BYTES, replace the end of the name by a digest."""
    *folders, last = name.split("/")
    if len(os.fsencode(last + suffix)) > MAX_NAME_BYTES:
        digest = sha256_of_bytes(os.fsencode(last))[:16]
        length = MAX_NAME_BYTES - len(f"-{digest}{suffix}")
        last = f"{os.fsencode(last)[:length].decode(errors='ignore')}-{digest}"
    return "/".join([*folders, last + suffix])


@contextmanager
def lock_output_dir(out: Path, *, overwrite: bool = False, resume: bool = False) -> Iterator[None]:
    """Check the folder as `check_output_dir` does, create it if needed, and keep other runs from writing to it.

    Raises:
        CascadeError: The check fails, another run is writing to the folder, or it cannot be created.
    """
    check_output_dir(out, overwrite=overwrite, resume=resume)  # before the lock file is written
    lock = FileLock(out / LOCK, timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        fix = "wait until it has ended, or choose another folder with --out"
        if (out / LOCK).stat().st_size:  # it names a process, as on storage without flock: a kill leaves it there
            fix += f"; if that run was killed, remove {out / LOCK}"
        raise CascadeError(f"{out}: another run is writing to this folder", fix=fix) from None
    except NotImplementedError as error:
        raise CascadeError(
            f"{out}: cannot be locked ({error})", fix="mount it with flock, or choose another folder with --out"
        ) from error
    except OSError as error:
        raise _not_writable(out, error) from error
    try:
        check_output_dir(out, overwrite=overwrite, resume=resume)  # another run may have ended in the meantime
        yield
    finally:
        lock.release()


def check_output_dir(out: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Check that a run may write to the folder. Nothing is removed.

    Args:
        out: Results folder, which need not exist.
        overwrite: Accept the results of an earlier run.
        resume: Accept the results of an earlier run.

    Raises:
        CascadeError: The folder contains results and neither flag is set, or files of the same names that no run wrote;
            or it cannot be looked into.
    """
    try:
        is_file = out.exists() and not out.is_dir()
        existing = [path.name for path in output_paths(out) if path.exists()]
    except OSError as error:  # no access to a folder above it, or too long a name
        raise _not_writable(out, error) from error
    if is_file:
        raise CascadeError(f"{out}: cannot be written because it is a file", fix="choose a folder with --out")
    is_ours = has_marker(out / "results.json")
    check_existing(str(out), existing, is_ours=is_ours, overwrite=overwrite, resume=resume)


def _not_writable(out: Path, error: OSError) -> CascadeError:
    return CascadeError(f"{out}: cannot be written ({error.strerror})", fix="choose another folder with --out")


def check_existing(out: str, existing: Sequence[str], *, is_ours: bool, overwrite: bool, resume: bool) -> None:
    """Check that a run may replace what is in a results folder.

    Args:
        out: Path or URL of the folder.
        existing: Names of files in it that the run would replace.
        is_ours: True if cascade wrote them.
        overwrite: Accept the results of an earlier run.
        resume: Accept the results of an earlier run.

    Raises:
        CascadeError: It may not, see `check_output_dir`.
    """
    if existing and not is_ours:
        raise CascadeError(
            f"{out.rstrip('/')}/{existing[0]}: would be replaced, but was not written by cascade",
            fix="choose another folder with --out",
        )
    if existing and not (overwrite or resume):
        raise CascadeError(
            f"{out}: contains the results of an earlier run",
            fix="continue it with --resume, replace it with --overwrite, or choose another folder with --out",
        )


def remove_written(out: Path, written: Iterable[str]) -> None:
    """Remove files of an input that is not finished, as far as they exist. Errors are ignored: no row refers to them.

    Args:
        out: Results folder.
        written: Paths below `out`.
    """
    for path in written:
        with suppress(OSError):
            (out / path).unlink(missing_ok=True)


def remove_temporary(out: Path) -> None:
    """Remove what processes that were killed were writing. No other process may write to the folder."""
    with suppress(OSError):  # the next run tries again
        for folder in written_folders(out):
            for path in folder.rglob(f"{TEMPORARY_PREFIX}*"):
                path.unlink()


def remove_previous(out: Path, written: Iterable[str], keep: Iterable[str] = ()) -> None:
    """Remove what an earlier run wrote, except for the tables that every run replaces, and folders that become empty.

    Files that others put into the folder stay.

    Args:
        out: Results folder.
        written: Files that the earlier run wrote, as paths below `out`.
        keep: Those of them to keep.

    Raises:
        CascadeError: A file cannot be removed.
    """
    remove = {*written, *NOT_IN_EVERY_RUN}.difference(keep)
    below = (entry for folder in written_folders(out) for entry in _walk_up(folder))
    beside = (path for pattern in (*NOT_IN_EVERY_RUN, f"{TEMPORARY_PREFIX}*") for path in out.glob(pattern))
    try:
        for path in chain(below, beside):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(out).as_posix() in remove or path.name.startswith(TEMPORARY_PREFIX):
                path.unlink()
    except OSError as error:
        raise CascadeError(
            f"{error.filename}: cannot be removed ({error.strerror})", fix="choose another folder with --out"
        ) from error


def _walk_up(folder: Path) -> Iterator[Path]:
    """Yield a folder and everything below it, the content of each folder before itself."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            yield Path(parent, name)
        yield Path(parent)
