"""Pictures in an object store: fetched when their block is processed, and removed after it."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cascade.discovery.store import Store
from cascade.errors import CascadeError
from cascade.io.image import ImageSource
from cascade.io.mirror import START_BYTES
from cascade.io.source import Source

THREADS = 16
"""Pictures that a worker fetches at once."""


def remove_beginnings(sources: Iterable[Source], store: Store) -> None:
    """Remove the files of pictures of which only the beginning was fetched."""
    pictures = (source.path for source in sources if isinstance(source, ImageSource))
    for path in pictures:
        # A whole picture of this size is removed too, and fetched once more.
        if path.is_relative_to(store.folder) and path.stat().st_size <= START_BYTES:
            path.unlink()


@contextmanager
def fetched(sources: Sequence[Source], store: Store | None) -> Iterator[dict[str, CascadeError]]:
    """Fetch the files of inputs that are not there, and remove them at the end of the block.

    Args:
        sources: Inputs to read.
        store: Where they are; None if their files are all there.

    Yields:
        Name of an input that cannot be fetched → error.
    """
    if store is None:
        yield {}
        return
    missing = [(source.name, path) for source in sources for path in source.files if not path.exists()]

    def fetch(item: tuple[str, Path]) -> CascadeError | None:
        try:
            store.fetch(item[1])
        except CascadeError as error:
            return error
        return None

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            errors = list(pool.map(fetch, missing))
        yield {name: error for (name, _), error in zip(missing, errors, strict=True) if error}
    finally:
        for _, path in missing:
            path.unlink(missing_ok=True)
