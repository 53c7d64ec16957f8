"""Where a run writes its results: a folder, or a URL for which a local folder stands."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cascade.discovery.store import is_url
from cascade.files import write_atomically
from cascade.prediction.journal import Journal, JournalLine
from cascade.prediction.output_dir import ACCESS_PREFIX, access_name, check_output_dir, lock_output_dir
from cascade.prediction.output_store import OutputStore
from cascade.prediction.stored_output import open_stored_output


class Output(Protocol):
    """Results of a run. The driver writes its tables to a local folder, from where they are published."""

    @property
    def folder(self) -> Path:
        """The local folder. Paths in it name the results."""
        ...

    @property
    def store(self) -> OutputStore | None:
        """The object store that the folder stands for; None if it is the results folder itself."""
        ...

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """Check that a run may write there, see `check_output_dir`. Nothing is written.

        Raises:
            CascadeError: It may not, or the URL cannot be used.
        """
        ...

    def lock(self, *, overwrite: bool, resume: bool) -> AbstractContextManager[None]:
        """Check as `check` does, and keep other runs out. In the block, the folder has the journal of the earlier run.

        Raises:
            CascadeError: The check fails, another run is writing there, or nothing can be written there.
        """
        ...

    def access_file(self) -> AbstractContextManager[Path | str]:
        """Write an empty file that exists during the block, and yield its path or URL. The output must be locked.

        Its name is random: a process that sees it sees this output, and not another folder at the same path.

        Raises:
            CascadeError: It cannot be written.
        """
        ...

    def open_journal(self, settings: dict[str, Any], lines: Iterable[JournalLine]) -> Journal:
        """Replace the journal, see `Journal`."""
        ...

    def publish(self, *, at_end: bool) -> None:
        """Bring all tables of the folder to their place.

        Args:
            at_end: True at the end of the run, False at its start.

        Raises:
            CascadeError: One cannot be written.
        """
        ...

    def read_results(self) -> bytes:
        """Return the content of results.json.

        Raises:
            CascadeError: It cannot be read from the URL.
        """
        ...


@dataclass(frozen=True)
class LocalOutput:
    """A results folder on a disk, see `Output`."""

    folder: Path
    store: None = None

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """See `Output.check`."""
        check_output_dir(self.folder, overwrite=overwrite, resume=resume)

    def lock(self, *, overwrite: bool, resume: bool) -> AbstractContextManager[None]:
        """See `Output.lock`."""
        return lock_output_dir(self.folder, overwrite=overwrite, resume=resume)

    @contextmanager
    def access_file(self) -> Iterator[Path]:
        """See `Output.access_file`."""
        for stale in self.folder.glob(f"{ACCESS_PREFIX}*"):  # of a run that was killed
            stale.unlink(missing_ok=True)
        path = self.folder / access_name()
        write_atomically(path, b"", durable=False)
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink()

    def open_journal(self, settings: dict[str, Any], lines: Iterable[JournalLine]) -> Journal:
        """See `Output.open_journal`."""
        return Journal(self.folder, settings, lines)

    def publish(self, *, at_end: bool) -> None:
        """Do nothing: the tables are in their place."""

    def read_results(self) -> bytes:
        """See `Output.read_results`."""
        return (self.folder / "results.json").read_bytes()


@contextmanager
def open_output(out: str | Path) -> Iterator[Output]:
    """Yield the output at a path or URL. Nothing is written yet.

    Raises:
        CascadeError: The URL does not name a folder, or the package of its store is not installed.
    """
    if is_url(out):
        with open_stored_output(str(out)) as output:
            yield output
    else:
        yield LocalOutput(Path(out))
