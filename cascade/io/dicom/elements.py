"""The elements of one DICOM file, read without trust: numbers are finite, UIDs are UIDs, and errors quote nothing."""

import re
from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian
from pydicom.uid import ImplicitVRLittleEndian as DefaultSyntax

from cascade.errors import CascadeError

LARGEST = 1e12
"""Of the numbers that are read here; the products of some shall stay finite."""

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

Numbers = tuple[float, ...]


def read_dataset(path: Path, tags: Iterable[str], *, pixels: bool = False) -> Dataset:
    """These elements of the file. Without `pixels` it stops before them, however many there are."""
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise CascadeError(  # pydicom would unpack all of it, however much it were
                f"{path}: is deflated as a whole", fix="store it uncompressed, for example with dcmconv +te"
            )
    elif start[:2] != b"\x08\0":  # the first group of a bare data set, as old archives hold
        raise damaged(path, "it does not begin as DICOM does")
    dataset = dcmread(path, force=True, stop_before_pixels=not pixels, specific_tags=list(tags))
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = DefaultSyntax if implicit else explicit
    return dataset


def damaged(path: Path, what: str) -> CascadeError:
    return CascadeError(f"{path}: {what}", fix="export it again; the file is cut short, damaged or not DICOM")


def group_of(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    """What holds the elements of a frame's functional group: its own, else the shared one, else the data set itself."""
    shared, own = (dataset.get(keyword) or [] for keyword in GROUPS)
    for groups in [*own[frame : frame + 1], *shared[:1]]:
        if sequence and groups.get(sequence):
            group: Dataset = groups[sequence].value[0]
            return group
    return dataset


def values_of(dataset: Dataset, keyword: str) -> list[object]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def numbers_of(path: Path, dataset: Dataset, keyword: str, count: int) -> Numbers | None:
    """None where the element is absent or empty. Raises CascadeError where it is not so many sensible numbers."""
    try:
        numbers = tuple(float(str(value)) for value in values_of(dataset, keyword))
    except ValueError:
        raise damaged(path, f"its {keyword} is not a number") from None
    if numbers and (len(numbers) != count or not all(abs(number) <= LARGEST for number in numbers)):  # not so with NaN
        raise damaged(path, f"its {keyword} is not {count} finite numbers")
    return numbers or None


def whole_of(path: Path, dataset: Dataset, keyword: str) -> int | None:
    numbers = numbers_of(path, dataset, keyword, 1)
    return int(numbers[0]) if numbers else None


def uid_of(dataset: Dataset, keyword: str) -> str:
    """Empty where what stands there is no UID: it might be a name, and masks repeat UIDs."""
    value = str(dataset.get(keyword) or "")
    return value if re.fullmatch(r"[0-9.]{1,64}", value) else ""
