"""The terminal: messages for the user go to stderr, with control characters escaped."""

from rich.console import Console


def printable(text: str) -> str:
    """Escape all control characters but newlines: file names may contain some that move the cursor or reverse text."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def stderr() -> Console:
    """Return a console that writes to standard error, and does not color numbers and paths."""
    return Console(stderr=True, highlight=False)
