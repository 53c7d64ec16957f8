"""The command line: one file per command, and what each command prints."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the entry point of the console script.

    Args:
        arguments: Arguments without the program name; None takes them from sys.argv.

    Raises:
        SystemExit: Always, with the exit code of the command.
    """
    try:
        from cascade.cli.app import run_app  # takes most of a second, in which Ctrl-C may be pressed

        run_app(arguments)
    except KeyboardInterrupt:
        sys.exit(130)


__all__ = ["main"]
