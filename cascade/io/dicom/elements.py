"""Read and validate single elements of a DICOM file. Errors never quote a value, which may name a patient."""

import re
from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset as read_elements
from pydicom.filereader import read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian
from pydicom.uid import ImplicitVRLittleEndian as DefaultSyntax

from cascade.errors import CascadeError
from cascade.io.dicom.attributes import FUNCTIONAL_GROUPS

MAX_NUMBER = 1e12
"""Largest accepted number, so that products of several numbers stay finite."""

Numbers = tuple[float, ...]


def read_dataset(path: Path, keywords: Iterable[str], *, pixels: bool = False) -> Dataset:
    """Read some elements of a file.

    Args:
        path: The file.
        keywords: The elements to read.
        pixels: Read the pixel data too.

    Raises:
        CascadeError: If the file does not begin like a DICOM file, or is compressed as a whole.
    """
    if _transfer_syntax(path) == DeflatedExplicitVRLittleEndian:
        raise CascadeError(  # pydicom would decompress it without any limit
            f"{path}: is compressed as a whole (deflate)", fix="store it uncompressed, for example with dcmconv +te"
        )
    dataset = dcmread(path, force=True, stop_before_pixels=not pixels, specific_tags=list(keywords))
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = DefaultSyntax if implicit else explicit
    return dataset


def _transfer_syntax(path: Path) -> object:
    """Return the transfer syntax in the file meta information; None if it is missing, as in files of old archives."""
    with path.open("rb") as file:
        start = file.read(132)
        if start[128:] == b"DICM":
            return read_file_meta_info(path).get("TransferSyntaxUID")
        if start[:2] == b"\x02\0":  # without preamble
            file.seek(0)
            meta = read_elements(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
            return meta.get("TransferSyntaxUID")
    if start[:2] not in (b"\x08\0", b"\0\x08"):  # the first group of a data set, in either byte order
        raise damaged_error(path, "it does not begin like a DICOM file")
    return None


def damaged_error(path: Path, problem: str) -> CascadeError:
    """Return the error for a file whose content contradicts the DICOM standard."""
    return CascadeError(f"{path}: {problem}", fix="export it again; the file is truncated, damaged or not DICOM")


def functional_group(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """Return the functional group of a frame: its own, else the shared one, else the data set itself."""
    shared, own = (dataset.get(keyword) or [] for keyword in FUNCTIONAL_GROUPS)
    for groups in [*own[frame : frame + 1], *shared[:1]]:
        if sequence and groups.get(sequence):
            group: Dataset = groups[sequence].value[0]
            return group
    return dataset


def get_values(dataset: Dataset, keyword: str) -> list[object]:
    """Return the values of an element as a list; empty if the element is missing or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def get_numbers(dataset: Dataset, keyword: str, count: int, invalid: set[str]) -> Numbers | None:
    """Return the numbers of an element, or None if it is missing, empty or invalid.

    Args:
        dataset: The data set that may contain the element.
        keyword: The element.
        count: How many numbers it must have.
        invalid: The keyword is added to this set if the value is not `count` finite numbers.
    """
    try:
        numbers = tuple(float(str(value)) for value in get_values(dataset, keyword))
    except Exception:  # pydicom converts the value here, and raises nearly every exception on a damaged one
        invalid.add(keyword)
        return None
    if numbers and (len(numbers) != count or not all(abs(number) <= MAX_NUMBER for number in numbers)):  # False for NaN
        invalid.add(keyword)
        return None
    return numbers or None


def get_number(dataset: Dataset, keyword: str, invalid: set[str]) -> float | None:
    """Return the number of an element, see `get_numbers`."""
    numbers = get_numbers(dataset, keyword, 1, invalid)
    return numbers[0] if numbers else None


def get_int(dataset: Dataset, keyword: str, invalid: set[str]) -> int | None:
    """Return the number of an element, rounded towards zero, see `get_numbers`."""
    number = get_number(dataset, keyword, invalid)
    return None if number is None else int(number)


def count_frames(dataset: Dataset, invalid: set[str]) -> int:
    """Return the number of frames: 1 if it is missing, invalid or 0. May be negative."""
    return get_int(dataset, "NumberOfFrames", invalid) or 1


def get_text(dataset: Dataset, keyword: str, invalid: set[str]) -> str:
    """Return the value of an element as text; empty if it is missing or invalid."""
    try:
        value = dataset.get(keyword)
    except Exception:
        invalid.add(keyword)
        return ""
    return "" if value is None else str(value)


def get_uid(dataset: Dataset, keyword: str) -> str:
    """Return a UID, or an empty string if the value is not a UID: it could be a name, and masks repeat UIDs."""
    value = str(dataset.get(keyword) or "")
    return value if re.fullmatch(r"[0-9.]{1,64}", value) else ""
