"""A progress bar on stderr, where that is a terminal, for what opens every slice of a data set."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Pass `items` on and show how many of `total` are done; `what` names the job."""
    console = Console(stderr=True)
    return rich_track(items, what, total, console=console, disable=not console.is_terminal)
