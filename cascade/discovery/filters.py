"""Which files are slices, going by their names, and which of them were asked for."""

import fnmatch
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal, get_args

Kind = Literal["picture", "nifti", "dicom"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SUFFIXES: dict[Kind, frozenset[str]] = {
    "picture": frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".mat"}),
    "nifti": frozenset({".nii", ".nii.gz"}),
    "dicom": frozenset({".dcm", ".ima"}),
}
FORMATS: dict[Kind, tuple[str, ...]] = {
    "picture": ("PNG", "JPEG", "TIFF", "BMP", "WebP", ".mat"),
    "nifti": ("NIfTI",),
    "dicom": ("DICOM",),
}


HIDDEN = "is hidden"
NO_SLICE = "is no slice"


def kind(path: Path) -> Kind | None:
    """What is in the file: None for no slice. Only files whose names tell nothing are opened, for their first bytes.

    DICOM exports often have no suffix, or one of digits: IM-0001-0001, 1.2.840.113.
    """
    return named_kind(path.name) or ("dicom" if _is_nameless_dicom(path) else None)


def named_kind(name: str) -> Kind | None:
    """What the name alone tells."""
    name = name.lower()
    suffix = ".nii.gz" if name.endswith(".nii.gz") else _suffix(name)
    return next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def may_be_dicom(name: str) -> bool:
    """Whether the name tells so little that only the content can say. A DICOMDIR is the index of a disc, no slice."""
    suffix = _suffix(name)
    return (suffix == "" or suffix[1:].isdigit()) and name.upper() != "DICOMDIR"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1]  # noqa: PTH122  Path takes three times as long, of names by the 100,000


def starts_as_dicom(file: IO[bytes]) -> bool:
    """As DICOM PS3.10, section 7.1, has it: 128 bytes of anything, then DICM."""
    return file.read(132)[128:] == b"DICM"


def _is_nameless_dicom(path: Path) -> bool:
    try:
        if may_be_dicom(path.name) and path.is_file():  # to open a pipe would wait for ever
            with path.open("rb") as file:
                return starts_as_dicom(file)
    except OSError:
        pass
    return False


def is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


@dataclass(frozen=True)
class Wanted:
    """What to take of all that is found.

    kinds    of slices.
    include  patterns; where there are any, a file must match one.
    exclude  patterns; a file that matches one is left out, whatever it includes.

    Patterns are fnmatch's, mind case, and are read as in a .gitignore: one without "/" is matched with the names of the
    file and of the folders that it is in, one with "/" with the paths of these below the folder or zip that was given,
    where a star of it takes "/" for a letter.
    """

    kinds: tuple[Kind, ...] = ("picture",)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def excluded(self, name: str) -> str | None:
        """Why the file or folder, a path below what was given, is left out with all below it."""
        for pattern in self.exclude:
            if _matches(pattern, name):
                return f"matches --exclude {pattern}"
        return None

    def unasked(self, name: str) -> str | None:
        """Why the file, a path below what was given, is left out whatever it holds."""
        if self.include and not any(_matches(pattern, name) for pattern in self.include):
            return "matches no --include"
        return self.excluded(name)

    def takes(self, name: str) -> bool:
        """Whether it is a slice by its name, or may be one that only its content can tell."""
        by_name = named_kind(name)
        return by_name in self.kinds or ("dicom" in self.kinds and by_name is None and may_be_dicom(name))

    def is_slice(self, path: Path) -> bool:
        """Whether it is one of the kinds; opens only a file whose name tells nothing."""
        return self.takes(path.name) and kind(path) is not None

    @property
    def formats(self) -> str:
        *most, last = [name for kind in self.kinds for name in FORMATS[kind]]
        return f"{', '.join(most)} or {last}" if most else last


def _matches(pattern: str, name: str) -> bool:
    anywhere = pattern.startswith("**/") or "/" not in pattern.rstrip("/")
    path = pattern.removeprefix("**/").strip("/")
    if anywhere and "/" not in path:
        return any(fnmatch.fnmatchcase(part, path) for part in name.split("/"))
    return bool(_expression(path, anywhere).match(name))


@lru_cache(maxsize=256)
def _expression(path: str, anywhere: bool) -> re.Pattern[str]:
    ways = [path, path.replace("/**/", "/")]
    if anywhere:
        ways += [f"*/{way}" for way in ways]
    ways += [f"{way}/*" for way in ways]
    return re.compile("|".join(fnmatch.translate(way) for way in ways))
