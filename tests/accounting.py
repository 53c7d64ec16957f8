"""Find files that have disappeared in a run, from what is on the disk and in the results alone."""

# Paths are strings here: they need not be normal or exist.
# ruff: noqa: PTH112, PTH113, PTH118
import json
import os
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path


def misplaced(paths, out):
    """Return the files below `paths` that are not in exactly one of rows, error rows and `left_out`: name → places.

    Files given directly and members of zip files count too. A folder that was left out, or has an error row, stands for
    the files in it that are nowhere else. A series has one row per file.
    """
    results, record = (json.loads((out / name).read_text()) for name in ("results.json", "run.json"))
    folder = Path(results["inputs"])
    rows = {}
    for row in results["slices"]:
        kind = "error" if row["status"] == "error" else "row"
        rows.setdefault(row["file"] or row["input"], set()).add(kind if row["file"] is None else "row")
    left_out = set(record["left_out"])
    wrong = {}
    for path in sorted(_files(paths)):
        name = str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path
        places = list(rows.get(name, ())) and ["row"]
        places += ["left_out"] * (path in left_out)
        if not places:
            above = [str(parent) for parent in Path(path).parents]
            places += ["left_out"] * any(parent in left_out for parent in above)
            places = places or ["error"] * any(str(parent) in rows for parent in Path(name).parents)
        if len(places) != 1 and not Path(path).is_relative_to(out.resolve()):  # those were not there yet
            wrong[name] = places
    return wrong


def repeated_slices(out):
    """Return the names that several rows share."""
    names = Counter(row["slice"] for row in json.loads((out / "results.json").read_text())["slices"])
    return [name for name, count in names.items() if count > 1]


def _files(paths):
    """Return the absolute paths of all files; instead of a zip file that can be read, those of its members."""
    files = set()
    for path in map(Path, paths):
        if os.path.isdir(real := os.path.realpath(path)):
            for folder, _, names in os.walk(real):
                files |= {os.path.join(folder, name) for name in names}
        else:
            files.add(os.path.join(os.path.realpath(path.parent), path.name))
    for path in [path for path in files if path.lower().endswith(".zip") and os.path.isfile(path)]:
        try:
            with zipfile.ZipFile(path) as archive:
                names = [_member_name(info) for info in archive.infolist()]
                members = [name for name in names if not name.endswith("/")]
        except Exception:  # a damaged one raises nearly any
            continue
        if members:
            files |= {str(Path(f"{path}/{member}")) for member in members}
            files.remove(path)
    return files


def _member_name(info):
    """Programs of macOS do not mark names as UTF-8, and those of Windows write backslashes."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")
