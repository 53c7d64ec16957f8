"""`python -m cascade` is `cascade`."""

import sys
from contextlib import suppress
from pathlib import Path

# `python -m` searches the current folder first: a train.py in it would run in place of cascade's own package `train`.
with suppress(FileNotFoundError):  # the current folder was removed
    if Path.cwd() == Path(sys.path[0]) != Path(__file__).resolve().parents[1]:
        del sys.path[0]

from cascade.cli import main

main()
