"""Sort DICOM files into volumes, and read their slices in their order in space.

Intensities are the stored values after rescaling. The display window of the header is not applied. No text of a header
reaches a name, note, error or mask.
"""

import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from cascade.errors import CascadeError
from cascade.io.dicom.attributes import CONTRAST_ATTRIBUTES, MULTI_FRAME
from cascade.io.dicom.header import Frame, Header, NotMRI, read_header
from cascade.io.dicom.pixels import decode_frame, read_pixels
from cascade.io.dicom.seg import encode_segmentation
from cascade.io.image import mask_png
from cascade.io.silence import silence_decoders
from cascade.io.slices import Slice, check_pixels, check_volume_size

MIN_DISTANCE_MM = 0.01
"""Slices with a smaller distance count as slices at the same position."""

GAP_TOLERANCE = 0.05
"""Maximum variation of the distances between slices, as a fraction of their median."""


class OpenedDicom(NamedTuple):
    """DICOM files, sorted into volumes. Each file is in one of the attributes.

    Attributes:
        sources: The volumes, sorted by name.
        problems: Why the other files cannot be processed. For a volume, and for similar files of a folder that are not
            MRI, one error stands for all.
        left_out: Why files were not read that are neither in a volume nor named by an error.
    """

    sources: list["DicomSource"]
    problems: dict[Path, CascadeError]
    left_out: dict[Path, str]


def open_dicom(
    paths: Sequence[Path], root: Path, *, used_names: Iterable[str] = (), keep_identifiers: bool = False
) -> OpenedDicom:
    """Sort DICOM files into volumes. Reads headers only.

    A volume of several files is named by their common folder below `root` and the series number; one of a single file
    by the path of the file. Files of one series that differ in orientation or size belong to different volumes. Each
    file without geometry in its header is a volume of its own.

    Args:
        paths: The files.
        root: A folder that contains all files.
        used_names: Names of other sources.
        keep_identifiers: Copy the identifiers of patient and study to masks. The UIDs that link a mask to its images
            are always copied.
    """
    headers: dict[Path, Header] = {}
    problems: dict[Path, CascadeError] = {}
    left_out: dict[Path, str] = {}
    not_mri: dict[tuple[Path, str], list[tuple[Path, NotMRI]]] = defaultdict(list)
    for path in sorted({path.absolute() for path in paths}):
        try:
            headers[path] = read_header(path, keep_identifiers=keep_identifiers)
        except NotMRI as error:
            not_mri[path.parent, error.problem.removeprefix(str(path))].append((path, error))
        except CascadeError as error:
            problems[path] = error
    for (_, problem), similar in not_mri.items():
        path, first = similar[0]
        others = f" (and {len(similar) - 1:,} similar files in the same folder)" if len(similar) > 1 else ""
        problems[path] = CascadeError(f"{path}{problem}{others}", fix=first.fix)
        left_out |= {other: problem.removeprefix(": ") for other, _ in similar[1:]}
    sources: list[DicomSource] = []
    names = set(used_names)
    # Single files first: they are named by their paths, which must not change.
    for volume in sorted(_group_into_volumes(list(headers.values())), key=lambda volume: len(volume) > 1):
        files = sorted(header.path for header in volume)
        try:
            source = DicomSource(_unused(_volume_name(volume, root.absolute()), names), volume)
        except CascadeError as error:
            problems[files[0]] = error
            reason = f"belongs to the series of {files[0].relative_to(root.absolute()).as_posix()}, which failed"
            left_out |= dict.fromkeys(files[1:], reason)
        else:
            sources.append(source)
            names.add(source.name)
            left_out |= {path: f"is a copy of another file of {source.name}" for path in set(files) - set(source.files)}
    return OpenedDicom(sorted(sources, key=lambda source: source.name), problems, left_out)


class DicomSlice(NamedTuple):
    """A slice of a volume: a frame of a file.

    Attributes:
        header: The header of the file.
        frame_index: Index of the frame in the file.
    """

    header: Header
    frame_index: int

    @property
    def frame(self) -> Frame:
        """Position, orientation and scaling of this slice."""
        return self.header.frames[self.frame_index]


class DicomSource:
    """A volume of single-frame files, or of one multi-frame file; a `Source`.

    Single-frame files are read slice by slice. The content of a multi-frame file stays in memory until `close`.
    """

    def __init__(self, name: str, headers: Sequence[Header]) -> None:
        """Sort the frames of the files by position.

        Args:
            name: Its name in the results.
            headers: Headers of one series, orientation and size.

        Raises:
            CascadeError: If the frames do not form one volume.
        """
        headers = _without_copies(headers)
        self.name = name
        self._headers = headers
        self._slices = [DicomSlice(header, index) for header in headers for index in range(len(header.frames))]
        self._slices.sort(key=lambda slice_: (slice_.frame.distance_mm, slice_.header.instance_number))
        self._has_geometry = all(header.has_geometry for header in headers) and (
            len(self._slices) > 1 or headers[0].thickness_mm is not None
        )
        self._check()
        self.files = tuple(dict.fromkeys(slice_.header.path for slice_ in self._slices))
        self.count = len(self._slices)
        self._lock = threading.Lock()
        self._loaded: Dataset | None = None

    @property
    def mask_suffix(self) -> str:
        """See `Source.mask_suffix`: a PNG where the header gives no geometry."""
        return ".seg.dcm" if self._has_geometry else ".png"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Source.notes`: those of all files, and gaps between the slices."""
        notes = list(dict.fromkeys(note for header in self._headers for note in header.notes))
        if not self._has_geometry:
            notes.append("its header gives no position in the patient: its mask is a PNG, not a DICOM segmentation")
        folders = {header.path.parent for header in self._headers}
        if len(folders) > 1 and not self._headers[0].patient_id:
            notes.append("its files lie in several folders and have no patient ID: check that they are of one patient")
        return (*notes, *_gap_notes([slice_.frame.distance_mm for slice_ in self._slices]))

    def read(self, index: int) -> Slice:
        """Read a slice, see `Source.read`. Rows and columns are as stored; MONOCHROME1 images are inverted."""
        header, frame_index = self._slices[index]
        name = f"{header.path}, frame {frame_index + 1}" if len(header.frames) > 1 else str(header.path)
        with silence_decoders():
            pixels = decode_frame(header, frame_index, self._dataset(header))
        return Slice(check_pixels(pixels, name), header.frames[frame_index].spacing_mm)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode masks (count, H, W) as a DICOM segmentation, or as PNG for an image without geometry."""
        if not self._has_geometry:
            return mask_png(masks[0])
        with silence_decoders():
            if len(self._headers) > 1:
                return encode_segmentation([slice_.header for slice_ in self._slices], masks)
            stored = np.empty_like(masks)
            stored[[slice_.frame_index for slice_ in self._slices]] = masks
            return encode_segmentation(self._headers, stored)

    def close(self) -> None:
        """Free the content of a multi-frame file, see `Source.close`."""
        with self._lock:
            self._loaded = None

    def _check(self) -> None:
        first = min(self._headers, key=lambda header: header.path)  # the results name this file
        if not self._has_geometry and len(self._slices) > 1:
            raise CascadeError(
                f"{first.path}: its header gives no position for its frames", fix="export it as enhanced MR"
            )
        check_volume_size(first.path, len(self._slices), first.rows, first.columns, first.frames[0].spacing_mm)
        for one, other in itertools.pairwise(slice_.frame for slice_ in self._slices):
            if other.distance_mm - one.distance_mm < MIN_DISTANCE_MM:
                keywords = [key for key in CONTRAST_ATTRIBUTES if one.contrast.get(key) != other.contrast.get(key)]
                difference = (
                    f"they differ in {', '.join(keywords)}" if keywords else "the headers do not distinguish them"
                )
                raise CascadeError(
                    f"{first.path}: the series contains several images at the same position; {difference}",
                    fix="give one volume of it: T1 with contrast agent",
                )

    def _dataset(self, header: Header) -> Dataset:
        if len(header.frames) == 1:
            return read_pixels(header)
        with self._lock:
            if self._loaded is None:
                self._loaded = read_pixels(header)
            return self._loaded


def _without_copies(headers: Sequence[Header]) -> list[Header]:
    """Drop copies of a file. Files with one UID only are no copies: some anonymizers write the same UID everywhere."""
    unique = {(header.sop_instance_uid, header.instance_number, header.frames): header for header in headers[::-1]}
    return list(unique.values())


def _group_into_volumes(headers: Sequence[Header]) -> Iterator[list[Header]]:
    """Yield the headers of each volume."""
    groups: dict[tuple[object, ...], list[list[Header]]] = defaultdict(list)
    for header in headers:
        if header.sop_class_uid in MULTI_FRAME or not header.has_geometry:
            yield [header]
            continue
        uids = (header.patient_id, header.study_uid, header.series_uid, header.frame_of_reference_uid)
        volumes = groups[*uids, header.rows, header.columns]
        for volume in volumes:
            if header.frames[0].is_parallel(volume[0].frames[0]):
                volume.append(header)
                break
        else:
            volumes.append([header])
    for volumes in groups.values():
        yield from volumes


def _volume_name(volume: Sequence[Header], root: Path) -> str:
    if len(volume) == 1:
        return volume[0].path.relative_to(root).as_posix()
    folder = Path(os.path.commonpath([header.path.parent for header in volume]))
    number = volume[0].series_number
    return (folder.relative_to(root) / ("series" if number is None else f"series-{number:03}")).as_posix()


def _unused(name: str, used: set[str]) -> str:
    """Return the name, or the first unused one of name-2, name-3, ..."""
    unused, number = name, 1
    while unused in used:
        number += 1
        unused = f"{name}-{number}"
    return unused


def _gap_notes(distances_mm: Sequence[float]) -> tuple[str, ...]:
    if len(distances_mm) < 3:
        return ()
    gaps = np.diff(distances_mm)
    if gaps.max() - gaps.min() <= GAP_TOLERANCE * np.median(gaps):
        return ()
    return (f"its slices are {gaps.min():.3g} to {gaps.max():.3g} mm apart: some may be missing",)
