"""The terminal: what a person reads goes to stderr, with control characters escaped."""

from rich.console import Console


def printable(text: str) -> str:
    """Names of files may hold what moves a terminal's cursor or turns its text around: all but newlines is escaped."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def stderr() -> Console:
    """What a person reads goes there."""
    return Console(stderr=True, highlight=False)
