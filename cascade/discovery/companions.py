"""Find the second file of a volume that is stored in two: a header, and the voxels."""

from pathlib import Path

PAIRS = {".hdr": ".img", ".img": ".hdr"}
"""Suffix of each file of a pair → suffix of the other."""


def has_separate_voxels(name: str) -> bool:
    """Return True for the name of a header whose voxels are in another file."""
    return name.lower().endswith(".hdr")


def companion_of(path: Path) -> Path | None:
    """Return the existing file that belongs to another one, or None."""
    suffix = PAIRS.get(path.suffix.lower())
    if suffix is None:
        return None
    candidates = (path.with_suffix(case) for case in (suffix, suffix.upper()))
    return next((candidate for candidate in candidates if candidate.is_file()), None)
