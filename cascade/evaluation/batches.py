"""Process slices in batches, with the next batch read in the background."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from cascade.datasets.progress import progress_bar
from cascade.errors import CascadeError

T = TypeVar("T")
R = TypeVar("R")


def process_batches(
    description: str,
    items: Iterator[T | CascadeError | None],
    total: int,
    batch_size: int,
    process: Callable[[Sequence[T]], list[R]],
) -> tuple[list[R], list[str]]:
    """Process items in batches, with a progress bar on stderr.

    Args:
        description: Text beside the progress bar.
        items: Items; an error for an item that cannot be used; None for an item that is skipped.
        total: Number of items.
        batch_size: Number of items that are read together.
        process: Function from a batch to its results.

    Returns:
        Results of all items, and the problem of each error.
    """
    results: list[R] = []
    problems: list[str] = []
    with progress_bar(description, total) as advance:
        for batch in _read_ahead(items, batch_size):
            usable = [item for item in batch if item is not None and not isinstance(item, CascadeError)]
            problems += [item.problem for item in batch if isinstance(item, CascadeError)]
            if usable:
                results += process(usable)
            advance(len(batch))
    return results, problems


def _read_ahead(items: Iterator[T], count: int) -> Iterator[Sequence[T]]:
    """Yield lists of up to `count` items. A thread reads the next list while the caller processes one."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        following = reader.submit(lambda: list(islice(items, count)))
        while batch := following.result():
            following = reader.submit(lambda: list(islice(items, count)))
            yield batch
