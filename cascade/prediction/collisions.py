"""Inputs whose results would replace those of another input."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from cascade.errors import CascadeError
from cascade.io.source import Source
from cascade.prediction.results import ResultsFolder


def find_collisions(folder: ResultsFolder, sources: Sequence[Source]) -> dict[str, CascadeError]:
    """Find the inputs that would write a file of an earlier one.

    That happens where the file system of the results does not distinguish a.png from A.png, and where a folder of the
    inputs has the name that the overlays of a volume get.

    Args:
        folder: Results folder, which contains results.json.
        sources: Inputs; of two that collide, the first keeps its files.

    Returns:
        Name of each input that collides → error.
    """
    ignores_case = (folder.out / folder.json_path.name.upper()).exists()

    def key(path: str) -> str:
        return unicodedata.normalize("NFC", path).casefold() if ignores_case else path

    def keys(source: Source) -> Iterator[str]:
        return map(key, folder.output_files(source))

    # Numbers need 8 bytes, paths a hundred. Only paths that share a number are compared.
    numbers = np.fromiter((hash(key) for source in sources for key in keys(source)), np.int64)
    unique, counts = np.unique(numbers, return_counts=True)
    repeated = set(unique[counts > 1].tolist())
    if not repeated:
        return {}
    owners: dict[str, str] = {}
    errors = {}
    for source in sources:
        suspects = {key(path): path for path in folder.output_files(source) if hash(key(path)) in repeated}
        if shared := next((name for name in suspects if name in owners), None):
            errors[source.name] = CascadeError(
                f"{folder.out / suspects[shared]}: already contains the result of {owners[shared]}",
                fix="process the two inputs in separate runs",
            )
        else:
            owners |= dict.fromkeys(suspects, source.name)
    return errors
