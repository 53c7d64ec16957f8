"""Sort DICOM files into volumes.

Intensities are the stored values after rescaling. The display window of the header is not applied. No text of a header
reaches a name, note, error or mask.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cascade.errors import CascadeError
from cascade.io.dicom.attributes import SECONDARY_CAPTURE
from cascade.io.dicom.copies import find_copies, same_uid_notes, separate_same_uid
from cascade.io.dicom.frame import Frame
from cascade.io.dicom.header import Header, NotMRI, read_header
from cascade.io.dicom.pixels import PixelFile
from cascade.io.dicom.source import DicomSlice, DicomSource
from cascade.io.slices import UnopenedVolume


class OpenedDicom(NamedTuple):
    """DICOM files, sorted into volumes. Each file is in one of the attributes.

    Attributes:
        sources: The volumes, sorted by name.
        problems: Why the other files cannot be processed. For a volume, and for similar files of a folder that are not
            MRI, one error stands for all.
        left_out: Why files were not read that are neither in a volume nor named by an error.
    """

    sources: list[DicomSource]
    problems: dict[Path, CascadeError]
    left_out: dict[Path, str]


def open_dicom(
    paths: Sequence[Path], root: Path, *, used_names: Iterable[str] = (), keep_identifiers: bool = False
) -> OpenedDicom:
    """Sort DICOM files into volumes. Reads headers only, and pixels where headers do not tell copies from other images.

    A volume of several files is named by their common folder below `root` and the series number; one of a single file
    by the path of the file. Files of one series that differ in orientation or size belong to different volumes. A
    multi-frame file is a volume, and a file without series in its header too.

    Args:
        paths: The files.
        root: A folder that contains all files.
        used_names: Names of other sources.
        keep_identifiers: Copy the identifiers of patient and study to masks. The UIDs that link a mask to its images
            are always copied.
    """
    root = root.absolute()
    headers, problems, left_out = _read_headers(paths, keep_identifiers=keep_identifiers)
    copies = find_copies(headers)
    for copy, original in copies.items():
        left_out[copy] = f"is a copy of {original.relative_to(root).as_posix()}"
    headers = [header for header in headers if header.path not in copies]
    uid_notes = same_uid_notes(headers, root)
    sources: list[DicomSource] = []
    names = set(used_names)
    # Single files first: they are named by their paths, which must not change.
    for volume in sorted(_group_into_volumes(headers), key=lambda volume: len(volume) > 1):
        files = sorted({slice_.header.path for slice_ in volume})
        notes = [uid_notes[path] for path in files if path in uid_notes][:1]
        try:
            source = DicomSource(_unused(_volume_name(volume, root), names), volume, notes)
        except CascadeError as error:
            problems[files[0]] = UnopenedVolume(error, len(volume)) if len(volume) > 1 else error
            reason = f"belongs to the series of {files[0].relative_to(root).as_posix()}, which failed"
            left_out |= dict.fromkeys(files[1:], reason)
        else:
            sources.append(source)
            names.add(source.name)
    return OpenedDicom(sorted(sources, key=lambda source: source.name), problems, left_out)


def _read_headers(
    paths: Iterable[Path], *, keep_identifiers: bool
) -> tuple[list[Header], dict[Path, CascadeError], dict[Path, str]]:
    """Return the valid headers, sorted by path, and `problems` and `left_out` of the other files."""
    headers: list[Header] = []
    problems: dict[Path, CascadeError] = {}
    left_out: dict[Path, str] = {}
    not_mri: dict[tuple[Path, str], list[tuple[Path, NotMRI]]] = defaultdict(list)
    for path in sorted({path.absolute() for path in paths}):
        try:
            headers.append(read_header(path, keep_identifiers=keep_identifiers))
        except NotMRI as error:
            not_mri[path.parent, error.problem.removeprefix(str(path))].append((path, error))
        except CascadeError as error:
            problems[path] = error
    for (_, problem), similar in not_mri.items():
        path, first = similar[0]
        others = f" (and {len(similar) - 1:,} similar files in the same folder)" if len(similar) > 1 else ""
        problems[path] = CascadeError(f"{path}{problem}{others}", fix=first.fix)
        left_out |= {other: problem.removeprefix(": ") for other, _ in similar[1:]}
    return headers, problems, left_out


def _group_into_volumes(headers: Sequence[Header]) -> Iterator[list[DicomSlice]]:
    """Yield the slices of each volume."""
    groups: dict[tuple[object, ...], list[list[Header]]] = defaultdict(list)
    for header in headers:
        if len(header.frames) > 1 or not header.series_uid:
            pixels = PixelFile(header)
            yield [DicomSlice(header, index, pixels) for index in range(len(header.frames))]
            continue
        uids = (header.patient_id, header.study_uid, header.series_uid, header.frame_of_reference_uid)
        volumes = groups[*uids, header.rows, header.columns]
        for volume in volumes:
            if _are_alike(header.frames[0], volume[0].frames[0]):
                volume.append(header)
                break
        else:
            volumes.append([header])
    for volumes in groups.values():
        has_places = any(volume[0].frames[0].is_placed for volume in volumes)
        for volume in volumes:
            if volume[0].frames[0].is_placed:
                parts = separate_same_uid(volume)
            else:
                parts = [[header] for header in volume] if has_places else _by_number(volume)
            for files in parts:
                yield [DicomSlice(header, 0, PixelFile(header)) for header in files]


def _are_alike(one: Frame, other: Frame) -> bool:
    """Return True if two files of a series may be slices of one volume."""
    if one.is_placed != other.is_placed or (not one.is_placed and one.contrast != other.contrast):
        return False  # several echoes would otherwise follow each other in one volume
    return one.is_parallel(other)


def _by_number(volume: Sequence[Header]) -> list[list[Header]]:
    """Sort files without places by their numbers; if these do not tell them apart, each is a volume of its own.

    So is a secondary capture: it may show anything, and several of them need not be slices of one volume.
    """
    numbers = {header.instance_number for header in volume}
    is_capture = any(header.sop_class_uid == SECONDARY_CAPTURE for header in volume)
    if is_capture or None in numbers or len(numbers) < len(volume):
        return [[header] for header in volume]
    return [sorted(volume, key=lambda header: header.instance_number or 0)]


def _volume_name(volume: Sequence[DicomSlice], root: Path) -> str:
    header = volume[0].header
    paths = {slice_.header.path for slice_ in volume}
    if len(paths) == 1:
        return header.path.relative_to(root).as_posix()
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    number = header.series_number
    return (folder.relative_to(root) / ("series" if number is None else f"series-{number:03}")).as_posix()


def _unused(name: str, used: set[str]) -> str:
    """Return the name, or the first unused one of name-2, name-3, ..."""
    unused, number = name, 1
    while unused in used:
        number += 1
        unused = f"{name}-{number}"
    return unused
