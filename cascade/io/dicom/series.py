"""DICOM files → series of MRI slices, in the order in which they lie in the patient.

Intensities are those that the scanner stored, rescaled: the window that a header proposes for looking at them is not
applied. Texts of a header reach no name, note, error or mask.
"""

import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, RLELossless

from cascade.contract import FloatArray
from cascade.errors import CascadeError
from cascade.io.dicom.elements import damaged, read_dataset
from cascade.io.dicom.header import MULTI_FRAME, TRAITS, Header, NotMRI, Plane, read_header
from cascade.io.dicom.jpeg import encoded_size
from cascade.io.dicom.seg import segmentation
from cascade.io.image import mask_png
from cascade.io.silence import silence_decoders
from cascade.io.slices import Slice, Source, check_size, checked

SAME_PLACE_MM = 0.01
"""Slices less far apart lie at one place."""

EVEN_WITHIN = 0.05
"""Of the distance between slices."""

MARGIN = 2**18
"""Bytes that a compressed frame may have besides its pixels, such as a colour profile."""

PIXEL_TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)


def open_dicom(
    paths: Sequence[Path], root: Path, *, taken: Iterable[str] = (), keep_identifiers: bool = False
) -> tuple[list[Source], dict[Path, CascadeError]]:
    """Files → series, sorted by name; and by path, what cannot be done. Reads headers only.

    root   a folder that holds all the files.
    taken  names that other sources have.

    A series of several files is named by the folder that holds them, below `root`, and its number; a file on its own by
    its path. Slices of one series that differ in orientation or size become a source each, and so do slices that the
    header does not place. Of like files in a folder that are no MRI, the first stands for all.

    keep_identifiers  whether masks name the patient and the study as their sources do. The UIDs that link a mask to its
                      sources are kept always.
    """
    headers: dict[Path, Header] = {}
    problems: dict[Path, CascadeError] = {}
    strangers: dict[tuple[Path, str], list[tuple[Path, NotMRI]]] = defaultdict(list)
    for path in sorted({path.absolute() for path in paths}):
        try:
            headers[path] = read_header(path, keep_identifiers=keep_identifiers)
        except NotMRI as error:
            strangers[path.parent, error.problem.removeprefix(str(path))].append((path, error))
        except CascadeError as error:
            problems[path] = error
    for (_, what), alike in strangers.items():
        path, first = alike[0]
        others = f" (and {len(alike) - 1:,} more like it in its folder)" if len(alike) > 1 else ""
        problems[path] = CascadeError(f"{path}{what}{others}", fix=first.fix)
    sources: list[Source] = []
    names = set(taken)
    for stack in sorted(_stacks(list(headers.values())), key=lambda stack: len(stack) > 1):  # paths keep their names
        try:
            sources.append(DicomSource(_free(_name(stack, root.absolute()), names), stack))
        except CascadeError as error:
            problems[min(header.path for header in stack)] = error
        else:
            names.add(sources[-1].name)
    return sorted(sources, key=lambda source: source.name), problems


class DicomSource:
    """A series of single-frame files, or one multi-frame file; a Source.

    Single-frame files are read slice by slice; the bytes of a multi-frame file stay in memory until `close`.
    """

    def __init__(self, name: str, headers: Sequence[Header]) -> None:
        """headers  of one series, orientation and size. Raises CascadeError where they make no one stack of slices."""
        headers = _without_copies(headers)
        self.name = name
        self._headers = headers
        self._slices = [(header, frame) for header in headers for frame in range(len(header.planes))]
        self._slices.sort(key=lambda item: (_plane(item).distance_mm, item[0].instance_number))
        self._is_placed = all(header.is_placed for header in headers) and (
            len(self._slices) > 1 or headers[0].thickness_mm is not None
        )
        self._check()
        self.files = tuple(dict.fromkeys(header.path for header, _ in self._slices))
        self.count = len(self._slices)
        self._lock = threading.Lock()
        self._held: Dataset | None = None

    @property
    def mask_suffix(self) -> str:
        return ".seg.dcm" if self._is_placed else ".png"

    @property
    def notes(self) -> tuple[str, ...]:
        told = dict.fromkeys(note for header in self._headers for note in header.notes)
        unplaced = "its header does not place it in the patient: its mask is a PNG, not a DICOM segmentation"
        mixed = "its files lie in several folders and name no patient: see that they are of one"
        nameless = not self._headers[0].patient_id
        return (
            *told,
            *(() if self._is_placed else (unplaced,)),
            *((mixed,) if nameless and len({header.path.parent for header in self._headers}) > 1 else ()),
            *_gap_notes([_plane(item).distance_mm for item in self._slices]),
        )

    def read(self, index: int) -> Slice:
        """Stored values, rescaled, and where high ones are dark (MONOCHROME1) turned over; as the file is oriented."""
        header, frame = self._slices[index]
        where = f"{header.path}, frame {frame + 1}" if len(header.planes) > 1 else str(header.path)
        with silence_decoders():
            pixels = _decoded(header, frame, self._dataset(header))
        return Slice(checked(pixels, where), header.planes[frame].spacing_mm)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """A DICOM SEG, see `segmentation`; for an image that is not placed a PNG."""
        if not self._is_placed:
            return mask_png(masks[0])
        with silence_decoders():
            if len(self._headers) > 1:
                return segmentation([header for header, _ in self._slices], masks)
            stored = np.empty_like(masks)
            stored[[frame for _, frame in self._slices]] = masks
            return segmentation(self._headers, stored)

    def close(self) -> None:
        with self._lock:
            self._held = None

    def _check(self) -> None:
        first = min(self._headers, key=lambda header: header.path)  # which the results name
        if not self._is_placed and len(self._slices) > 1:
            raise CascadeError(
                f"{first.path}: its header does not place its frames in the patient", fix="export it as enhanced MR"
            )
        check_size(first.path, len(self._slices), first.rows, first.columns, first.planes[0].spacing_mm)
        planes = [_plane(item) for item in self._slices]
        for one, other in itertools.pairwise(planes):
            if other.distance_mm - one.distance_mm < SAME_PLACE_MM:
                keywords = [key for key in TRAITS if one.traits.get(key) != other.traits.get(key)]
                raise CascadeError(
                    f"{first.path}: its series shows places more than once, "
                    + (f"differing in {', '.join(keywords)}" if keywords else "and no header tells what differs"),
                    fix="give one volume of it: T1 with contrast agent",
                )

    def _dataset(self, header: Header) -> Dataset:
        if len(header.planes) == 1:
            return _read_pixels(header)
        with self._lock:
            if self._held is None:
                self._held = _read_pixels(header)
            return self._held


def _plane(item: tuple[Header, int]) -> Plane:
    header, frame = item
    return header.planes[frame]


def _without_copies(headers: Sequence[Header]) -> list[Header]:
    """One file may lie in two folders; an anonymiser may have given many the same UID, and these are no copies."""
    return list({(header.sop_uid, header.instance_number, header.planes): header for header in headers[::-1]}.values())


def _stacks(headers: Sequence[Header]) -> Iterator[list[Header]]:
    """Files that belong together."""
    series: dict[tuple[object, ...], list[list[Header]]] = defaultdict(list)
    for header in headers:
        if header.sop_class_uid in MULTI_FRAME or not header.is_placed:
            yield [header]
            continue
        uids = (header.patient_id, header.study_uid, header.series_uid, header.space_uid)
        stacks = series[*uids, header.rows, header.columns]
        for stack in stacks:
            if header.planes[0].is_parallel(stack[0].planes[0]):
                stack.append(header)
                break
        else:
            stacks.append([header])
    for stacks in series.values():
        yield from stacks


def _name(stack: Sequence[Header], root: Path) -> str:
    if len(stack) == 1:
        return stack[0].path.relative_to(root).as_posix()
    folder = Path(os.path.commonpath([header.path.parent for header in stack]))
    number = stack[0].series_number
    return (folder.relative_to(root) / ("series" if number is None else f"series-{number:03}")).as_posix()


def _free(name: str, taken: set[str]) -> str:
    """The name, or where another source has it, the first of name-2, name-3, ... that none has."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _gap_notes(distances_mm: Sequence[float]) -> tuple[str, ...]:
    if len(distances_mm) < 3:
        return ()
    gaps = np.diff(distances_mm)
    if gaps.max() - gaps.min() <= EVEN_WITHIN * np.median(gaps):
        return ()
    return (f"its slices lie {gaps.min():.3g} to {gaps.max():.3g} mm apart: some may be missing",)


def _read_pixels(header: Header) -> Dataset:
    try:
        dataset = read_dataset(header.path, PIXEL_TAGS, pixels=True)
        found = (int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns))
    except CascadeError:
        raise
    except Exception:
        raise damaged(header.path, "its pixels cannot be read") from None
    if found != (len(header.planes), header.rows, header.columns):
        raise CascadeError(f"{header.path}: was changed while it was in use", fix="run again")
    return dataset


def _decoded(header: Header, frame: int, dataset: Dataset) -> FloatArray:
    """(H, W) float32 intensities of one frame."""
    plane = header.planes[frame]
    try:
        if UID(header.syntax).is_encapsulated:
            encoded = get_frame(dataset.PixelData, frame, number_of_frames=len(header.planes))
            if len(encoded) > 2 * header.rows * header.columns * int(dataset.BitsAllocated) // 8 + MARGIN:
                raise damaged(header.path, "its pixels are compressed to more than they were")
            if encoded_size(encoded) not in (None, (header.rows, header.columns)):
                raise damaged(header.path, "its pixels are compressed in another size than its header tells")
        decoder = "pydicom" if header.syntax == RLELossless else ""  # that of pylibjpeg panics on damaged bytes
        stored = pixel_array(dataset, index=frame, decoding_plugin=decoder).astype(np.float64)
        bits = int(dataset.BitsStored)
        highest = -1.0 if int(dataset.PixelRepresentation) else 2.0**bits - 1
    except CascadeError:
        raise
    except Exception:  # on damaged bytes decoders raise nearly everything
        raise damaged(header.path, "its pixels cannot be read") from None
    if header.inverted:
        stored = highest - stored
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves float32 is refused as infinite
        return np.asarray(stored * plane.slope + plane.intercept).astype(np.float32)
