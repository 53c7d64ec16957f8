"""Progress bar for loops over a data set, shown on stderr if stderr is a terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar.

    Args:
        description: Text beside the bar.
        total: Number of slices to process.

    Yields:
        A function that advances the bar by a number of slices.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield `items`, and show how many of `total` are done."""
    with progress_bar(description, total) as advance:
        for item in items:
            yield item
            advance(1)
