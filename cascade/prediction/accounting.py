"""Check at the end of a run that no file has disappeared: each is a row, an error row, or left out with a reason."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cascade.discovery.inputs import Inputs
from cascade.errors import CascadeError
from cascade.io.slices import Source
from cascade.prediction.driver import RunResult
from cascade.prediction.results import ResultsFolder

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
    left_out = (name for path, name in inputs.seen.items() if path in result.left_out)
    read = {folder.input_name(file) for source in sources for file in source.files}  # a file may hold several sources
    places = Counter([*read, *problems, *left_out])
    _report(
        "is not in exactly one of rows, errors and left_out",
        (name for name in inputs.seen.values() if places[name] != 1),
    )

    expected = Counter(problems.keys())
    for source in sources:
        expected[source.name] += source.count
    rows = Counter(row.input for row in result.rows)
    surplus, missing = rows - expected, Counter() if result.interrupted else expected - rows
    _report("does not have one row per slice", surplus + missing)


def _report(problem: str, names: Iterable[str]) -> None:
    wrong = sorted(set(names))
    if wrong:
        more = f" and {len(wrong) - MAX_NAMES:,} more" if len(wrong) > MAX_NAMES else ""
        raise AccountingError(
            f"internal error: {', '.join(wrong[:MAX_NAMES])}{more}: {problem}. The other results are complete. Please "
            "report this with run.json."
        )
