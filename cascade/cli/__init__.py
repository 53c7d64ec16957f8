"""The command line: one file per command, and what each command prints."""

from cascade.cli.app import main

__all__ = ["main"]
