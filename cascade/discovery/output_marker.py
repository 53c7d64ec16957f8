"""Recognize the output of cascade, so that no run takes masks or figures of an earlier run for slices.

Each command that writes results gets its marker and the names of its figures from this module.
"""

from pathlib import Path

RESULTS = "cascade results 3"
"""The `schema` field in results.json of `cascade predict`."""

EVALUATION = "cascade evaluation 2"
"""The `schema` field in metrics.json of `cascade evaluate`."""

BENCHMARK = "cascade benchmark 2"
"""The `schema` field in benchmark.json of `cascade benchmark`."""

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
"""The figures that `cascade evaluate` writes beside metrics.json."""

EVALUATION_1_PICTURES = frozenset({"presence.png"})
"""Pictures that only `cascade evaluation 1` drew."""

BENCHMARK_PICTURE = "benchmark.png"

MARKERS = {
    "results.json": f'"schema": "{RESULTS}',
    "metrics.json": f'"{EVALUATION}',  # under the key `format` in `cascade evaluation 1`
    "benchmark.json": f'"schema": "{BENCHMARK}',
}
"""File name → the text near the beginning of such a file that marks it as written by cascade."""

MASKS, OVERLAYS, PROBABILITIES, CAPTURES = "masks", "overlays", "probabilities", "secondary_captures"
"""Folders of images that `cascade predict` writes beside results.json."""

WRITTEN = {
    "results.json": frozenset({MASKS, OVERLAYS, PROBABILITIES, CAPTURES}),
    "metrics.json": EVALUATION_PICTURES | EVALUATION_1_PICTURES,
    "benchmark.json": frozenset({BENCHMARK_PICTURE}),
}
"""Name of a marked file → the images, and the folders of images, that were written beside it."""

MARKER_BYTES = 100
"""The marker lies within this many bytes from the beginning."""


def has_marker(path: Path) -> bool:
    """Return True if cascade, in any version, wrote a results.json, metrics.json or benchmark.json."""
    try:
        if not path.is_file():  # opening a pipe would block
            return False
        with path.open("rb") as file:
            return is_marked(path.name, file.read(MARKER_BYTES))
    except OSError:
        return False


def is_marked(name: str, beginning: bytes) -> bool:
    """Return True if the first MARKER_BYTES of a file of this name contain the marker of any version."""
    return MARKERS[name].rstrip("0123456789").encode() in beginning


def written_folders(out: Path) -> tuple[Path, ...]:
    """Return the folders of images in an output folder of `cascade predict`."""
    return tuple(out / name for name in (MASKS, OVERLAYS, PROBABILITIES, CAPTURES))


def written_in(folder: str) -> set[str]:
    """Return the paths of the images, and of the folders of images, that cascade wrote into a folder."""
    marked = (marker for marker in MARKERS if has_marker(Path(folder, marker)))
    return {str(Path(folder, name)) for marker in marked for name in WRITTEN[marker]}
