"""Recognize cascade's own output, so that no run reads what a run wrote.

Every command that writes results takes its marker and the names of its pictures from this module.
"""

from pathlib import Path

RESULTS = "cascade results 2"
"""`schema` of a run's results.json."""

EVALUATION = "cascade evaluation 2"
"""`schema` of an evaluation's metrics.json."""

BENCHMARK = "cascade benchmark 1"
"""`schema` of a benchmark's benchmark.json."""

EVALUATION_PICTURES = frozenset(
    {
        "accuracy.png",
        "confusion_matrix.png",
        "detection.png",
        "dice.png",
        "reliability.png",
        "best_slices.png",
        "median_slices.png",
        "worst_slices.png",
    }
)
"""The pictures that an evaluation draws beside metrics.json."""

EVALUATION_1_PICTURES = frozenset({"presence.png"})
"""Pictures that only `cascade evaluation 1` drew."""

BENCHMARK_PICTURE = "benchmark.png"

MARKERS = {
    "results.json": f'"schema": "{RESULTS}',
    "metrics.json": f'"{EVALUATION}',  # under the key `format` in `cascade evaluation 1`
    "benchmark.json": f'"schema": "{BENCHMARK}',
}
"""File name → the text near its beginning that marks it as cascade's."""

BYTES_READ = 100
"""The marker is within these first bytes."""


def has_marker(path: Path) -> bool:
    """Return True if a results.json, metrics.json or benchmark.json was written by cascade, in any version."""
    if not path.is_file():  # opening a pipe would block
        return False
    try:
        with path.open("rb") as file:
            return MARKERS[path.name].rstrip("0123456789").encode() in file.read(BYTES_READ)
    except OSError:
        return False


def written_folders(out: Path) -> tuple[Path, Path]:
    """Return the folders of masks and of overlays in a results folder."""
    return out / "masks", out / "overlays"


def written_in(folder: str) -> set[str]:
    """Return the paths of the pictures and folders of pictures that cascade wrote into a folder."""
    out = Path(folder)
    written: list[Path] = []
    if has_marker(out / "results.json"):
        written += written_folders(out)
    if has_marker(out / "metrics.json"):
        written += [out / name for name in EVALUATION_PICTURES | EVALUATION_1_PICTURES]
    if has_marker(out / "benchmark.json"):
        written.append(out / BENCHMARK_PICTURE)
    return {str(path) for path in written}
