"""A progress bar on stderr, where that is a terminal, for what opens every slice of a data set."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar named `what`; call what it yields with the number of slices that are done since the last call."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Pass `items` on, and show how many of `total` are done."""
    with progress_bar(what, total) as advance:
        for item in items:
            yield item
            advance(1)
