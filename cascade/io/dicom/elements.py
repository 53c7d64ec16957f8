"""Read and validate single elements of a DICOM file. Errors never quote a value, which may name a patient."""

import re
from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset, dcmread
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
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise CascadeError(  # pydicom would decompress it without any limit
                f"{path}: is compressed as a whole (deflate)", fix="store it uncompressed, for example with dcmconv +te"
            )
    elif start[:2] != b"\x08\0":  # the first group of a data set without preamble, as in old archives
        raise damaged_error(path, "it does not begin like a DICOM file")
    dataset = dcmread(path, force=True, stop_before_pixels=not pixels, specific_tags=list(keywords))
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = DefaultSyntax if implicit else explicit
    return dataset


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


def get_numbers(path: Path, dataset: Dataset, keyword: str, count: int) -> Numbers | None:
    """Return the numbers of an element, or None if it is missing or empty.

    Raises:
        CascadeError: If its value is not `count` finite numbers.
    """
    try:
        numbers = tuple(float(str(value)) for value in get_values(dataset, keyword))
    except ValueError:
        raise damaged_error(path, f"its {keyword} is not a number") from None
    if numbers and (len(numbers) != count or not all(abs(number) <= MAX_NUMBER for number in numbers)):  # False for NaN
        raise damaged_error(path, f"its {keyword} is not {count} finite numbers")
    return numbers or None


def get_int(path: Path, dataset: Dataset, keyword: str) -> int | None:
    """Return the number of an element, rounded towards zero; None if it is missing or empty."""
    numbers = get_numbers(path, dataset, keyword, 1)
    return int(numbers[0]) if numbers else None


def get_uid(dataset: Dataset, keyword: str) -> str:
    """Return a UID, or an empty string if the value is not a UID: it could be a name, and masks repeat UIDs."""
    value = str(dataset.get(keyword) or "")
    return value if re.fullmatch(r"[0-9.]{1,64}", value) else ""
