"""Check at the end of a run that no file has disappeared: each is a row, an error row, or left out with a reason."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cascade.discovery.inputs import Inputs
from cascade.errors import CascadeError
from cascade.io.source import Source
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run_result import RunResult

MAX_NAMES = 20
"""Names that an error lists; the rest is counted."""


class AccountingError(RuntimeError):
    """A file or slice has no place in the results, or several. This is a bug of cascade, not a fault of the inputs."""


def check_accounting(
    inputs: Inputs,
    folder: ResultsFolder,
    sources: Sequence[Source],
    problems: Mapping[str, CascadeError],
    result: RunResult,
) -> None:
    """Check that each file has one place, and that each source and problem has its rows.

    Args:
        inputs: What was found in folders, zip files and arguments.
        folder: Names the files of the sources.
        sources: The inputs that could be opened.
        problems: The errors of the other inputs, by name.
        result: The rows of the run, and the files that it left out. If it was interrupted, rows may be missing.

    Raises:
        AccountingError: A file is in none or several of `sources`, `problems` and `result.left_out`; or a source does
            not have one row per slice, or a problem not one row.
    """
    # A file may hold several sources, but counts once.
    read = np.unique(_numbers(folder.input_name(file) for source in sources for file in source.files))
    left_out = _numbers(name for path, name in inputs.seen.items() if path in result.left_out)
    places = np.concatenate([read, _numbers(problems), left_out])
    seen = _numbers(inputs.seen.values())
    wrong = _surplus(places, seen) | _surplus(seen, places)
    _report(
        "is not in exactly one of rows, errors and left_out",
        (name for name in inputs.seen.values() if hash(name) in wrong),
    )

    counts = np.fromiter((source.count for source in sources), np.int64)
    of_sources = np.repeat(_numbers(source.name for source in sources), counts)
    expected = np.concatenate([of_sources, _numbers(problems)])
    rows = _numbers(row.input for row in result.rows)
    wrong = _surplus(rows, expected) | (set() if result.interrupted else _surplus(expected, rows))
    names = chain((source.name for source in sources), problems, (row.input for row in result.rows) if wrong else ())
    _report("does not have one row per slice", (name for name in names if hash(name) in wrong))


def _numbers(names: Iterable[str]) -> NDArray[np.int64]:
    """Return a number for each name. It takes 8 bytes, and the name in a set at least ten times as much."""
    return np.fromiter(map(hash, names), np.int64)


def _surplus(numbers: NDArray[np.int64], others: NDArray[np.int64]) -> set[int]:
    """Return the numbers that are more often among `numbers` than among `others`."""
    unique, counts = np.unique(numbers, return_counts=True)
    ordered = np.sort(others)
    in_others = np.searchsorted(ordered, unique, "right") - np.searchsorted(ordered, unique, "left")
    return set(unique[counts > in_others].tolist())


def _report(problem: str, names: Iterable[str]) -> None:
    wrong = sorted(set(names))
    if wrong:
        more = f" and {len(wrong) - MAX_NAMES:,} more" if len(wrong) > MAX_NAMES else ""
        raise AccountingError(
            f"internal error: {', '.join(wrong[:MAX_NAMES])}{more}: {problem}. The other results are complete. Please "
            "report this with run.json."
        )
