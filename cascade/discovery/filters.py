"""Select files by format, and by include and exclude patterns."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from pathspec import GitIgnoreSpec

from cascade.discovery.dicom_prefix import may_contain_dicom
from cascade.errors import CascadeError

Format = Literal["image", "nifti", "pair", "mgh", "itk", "npy", "dicom"]
FORMATS: tuple[Format, ...] = get_args(Format)
AFFINE: tuple[Format, ...] = ("nifti", "pair", "mgh", "itk")
"""Formats of files of one volume whose header says where the voxels are."""

SUFFIXES: dict[Format, frozenset[str]] = {
    "image": frozenset({".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".tif", ".tiff", ".bmp", ".webp", ".mat"}),
    "nifti": frozenset({".nii", ".nii.gz"}),
    "pair": frozenset({".hdr", ".img"}),
    "mgh": frozenset({".mgh", ".mgz"}),
    "itk": frozenset({".nrrd", ".nhdr", ".mha", ".mhd"}),
    "npy": frozenset({".npy"}),
    "dicom": frozenset({".dcm", ".dicom", ".ima"}),
}
FORMAT_NAMES: dict[Format, tuple[str, ...]] = {
    "image": ("PNG", "JPEG", "TIFF", "BMP", "WebP", ".mat"),
    "nifti": ("NIfTI",),
    "pair": ("Analyze",),
    "mgh": ("MGH",),
    "itk": ("NRRD", "MetaImage"),
    "npy": (".npy",),
    "dicom": ("DICOM",),
}

NUMBERS = re.compile(rb"[\s\d.e+-]+")
"""The beginning of a text of numbers."""

OWN_OUTPUT = "was written by a run"
HIDDEN = "is hidden"
UNSUPPORTED = "is not a supported format"


def detect_format(path: Path) -> Format | None:
    """Return the format of a file, or None if it is not supported.

    The suffix decides. Only a file of another suffix, or without one, is opened, to read its first bytes: DICOM files
    often have such names (IM-0001-0001, 1.2.840.113, a.img). One that cannot be read counts as DICOM, so that a run
    reports it.
    """
    return format_of_name(path.name) or ("dicom" if may_be_dicom(path.name) and may_contain_dicom(path) else None)


def format_of_name(name: str) -> Format | None:
    """Return the format that the suffix of a file name stands for."""
    name = name.lower()
    suffix = ".nii.gz" if name.endswith(".nii.gz") else _suffix(name)
    return next((format_ for format_, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def may_be_dicom(name: str) -> bool:
    """Return True if only the content can tell whether a file is DICOM. DICOMDIR files are indexes without pixels."""
    return format_of_name(name) is None and name.upper() != "DICOMDIR"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1]  # noqa: PTH122  Path is three times slower, and there may be 100,000 names


def is_text_matrix(path: Path) -> bool:
    """Return True for a .mat that holds numbers as text: a transform of FSL beside a scan, and no slice."""
    if path.suffix.lower() != ".mat" or not path.is_file():  # opening a pipe would block
        return False
    try:
        with path.open("rb") as file:
            return NUMBERS.fullmatch(file.read(8)) is not None
    except OSError:
        return False  # its reader says why it cannot be read


def is_zip(name: str) -> bool:
    """Return True if the name ends with .zip, in upper or lower case."""
    return name.lower().endswith(".zip")


@dataclass(frozen=True)
class FileFilter:
    """Selects files by format and patterns.

    Patterns have the syntax of a .gitignore file and are case-sensitive:

    - A pattern without "/" is compared with the name of the file and of each folder above it: `*_mask.png`.
    - A pattern with "/" is compared with the path below the input folder or zip file: `patient1/t1/*.png`.
    - `*` and `?` do not match "/"; `**` matches any number of folders: `**/t1/*.png`.
    - A pattern that matches a folder applies to all files in it. With "/" at its end, it matches folders only.
    - The last matching pattern decides; one that begins with `!` reverts the earlier ones. Files in an excluded folder
      stay excluded.

    In contrast to a .gitignore file, a `#` at the beginning does not start a comment.

    Attributes:
        formats: The formats to accept.
        include: If there are any, a file must match one of these patterns.
        exclude: Files that match one of these patterns are left out, even if they match `include`.

    Raises:
        CascadeError: If a pattern is invalid.
    """

    formats: tuple[Format, ...] = ("image",)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self._include, self._exclude  # reports invalid patterns before any file is looked at

    @cached_property
    def _include(self) -> GitIgnoreSpec:
        return _compile("--include", self.include)

    @cached_property
    def _exclude(self) -> GitIgnoreSpec:
        return _compile("--exclude", self.exclude)

    def exclusion_reason(self, name: str) -> str | None:
        """Return why a file or folder is excluded, or None.

        Args:
            name: Its path below the input, with "/" between folders, and at the end of the path of a folder.
        """
        pattern = _matching_pattern(self._exclude, self.exclude, name)
        return None if pattern is None else f"matches --exclude {pattern}"

    def left_out_reason(self, name: str) -> str | None:
        """Return why the patterns do not select a file, or None if they do.

        Args:
            name: Its path below the input, with "/" between folders.
        """
        if self.include and _matching_pattern(self._include, self.include, name) is None:
            return "matches no --include"
        return self.exclusion_reason(name)

    def accepts(self, name: str) -> bool:
        """Return True if a file of this name is, or may be, of one of the formats."""
        format_ = format_of_name(name)
        return format_ in self.formats or ("dicom" in self.formats and format_ is None and may_be_dicom(name))

    def accepts_file(self, path: Path) -> bool:
        """Return True if a file is of one of the formats. Opens it only if the name is not sufficient."""
        return self.accepts(path.name) and detect_format(path) is not None

    @property
    def format_names(self) -> str:
        """The accepted formats, for messages: "NIfTI or DICOM"."""
        *most, last = [name for format_ in self.formats for name in FORMAT_NAMES[format_]]
        return f"{', '.join(most)} or {last}" if most else last


def _compile(option: str, patterns: Sequence[str]) -> GitIgnoreSpec:
    lines = [f"\\{pattern}" if pattern.startswith("#") else pattern for pattern in patterns]
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise CascadeError(
            f"{option}: {error}", fix="give a pattern as in a .gitignore file, such as '*_mask.png'"
        ) from None


def _matching_pattern(spec: GitIgnoreSpec, patterns: Sequence[str], name: str) -> str | None:
    """Return the one of the patterns of a spec that selects a path, or None."""
    result = spec.check_file(name.replace("\n", " "))  # the wildcards of pathspec do not match a line break
    if not result.include or result.index is None:
        return None
    return [pattern for pattern in patterns if pattern][result.index]  # a spec has no empty patterns
