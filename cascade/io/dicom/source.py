"""Read the slices of a DICOM volume in radiological orientation, and write their masks on the stored grid."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from cascade.errors import CascadeError
from cascade.io.dicom.attributes import CONTRAST_ATTRIBUTES
from cascade.io.dicom.capture import encode_capture
from cascade.io.dicom.frame import LPS_TO_RAS, Frame
from cascade.io.dicom.header import Header
from cascade.io.dicom.pixels import PixelFile, decode_frame
from cascade.io.dicom.seg import encode_segmentation
from cascade.io.image import mask_png
from cascade.io.probability import Uint16Array, probability_png, to_float
from cascade.io.silence import silence_decoders
from cascade.io.slices import Slice, check_volume_size, slabs_mm, slice_of
from cascade.io.source import HeaderSource
from cascade.io.tiff_pages import encode_pages, mask_tiff

MIN_DISTANCE_MM = 0.01
"""Slices with a smaller distance count as slices at the same position."""

GAP_TOLERANCE = 0.05
"""Maximum variation of the distances between slices, as a fraction of their median."""

MAX_STEP = 2.1
"""Distance of slices, as a multiple of their thickness, above which a note warns of the volume. 2 is common."""

NO_PLACES = "its slices have no known place: they are in the order of their numbers, at unknown distances"
"""Note on a volume that is sorted without positions."""


class DicomSlice(NamedTuple):
    """A slice of a volume: a frame of a file.

    Attributes:
        header: The header of the file.
        frame_index: Index of the frame in the file.
        pixels: The pixels of the file.
    """

    header: Header
    frame_index: int
    pixels: PixelFile

    @property
    def frame(self) -> Frame:
        """Position, orientation and scaling of this slice."""
        return self.header.frames[self.frame_index]

    @property
    def name(self) -> str:
        """The file and, if it has several, the number of the frame, for error messages."""
        number = f", frame {self.frame_index + 1}" if len(self.header.frames) > 1 else ""
        return f"{self.header.path}{number}"


class DicomSource(HeaderSource):
    """A volume of files of one frame, or of one file of several frames; a `Source`. It may be a single slice.

    Single-frame files are read slice by slice. The content of a multi-frame file stays in memory until `close`.

    Attributes:
        grid: From the array of stored slices to the displayed ones; the distance of slices in it is not known.
    """

    def __init__(self, name: str, slices: Sequence[DicomSlice], notes: Sequence[str] = ()) -> None:
        """Sort the slices by position, if all have one.

        Args:
            name: Its name in the results.
            slices: Slices of one series, orientation and size.
            notes: Warnings besides those of the headers.

        Raises:
            CascadeError: If the slices do not form one volume.
        """
        self.name = name
        self.count = len(slices)
        first = slices[0].header
        self.grid = slices[0].frame.grid(first.rows, first.columns, self.count)
        # The slice axis of the grid follows the normal of the stored slices, or runs against it.
        sign = -1 if self.grid.flipped[0] else 1
        self._is_placed = all(slice_.frame.is_placed for slice_ in slices)
        self._slices = list(slices)
        if self._is_placed:
            self._slices.sort(key=lambda slice_: sign * slice_.frame.distance_mm)
        self._headers = list({slice_.header.path: slice_.header for slice_ in self._slices}.values())
        self.files = tuple(header.path for header in self._headers)
        self._missing = list(dict.fromkeys(keyword for header in self._headers for keyword in header.missing))
        if not self._missing and self.count == 1 and first.thickness_mm is None:
            self._missing = ["SliceThickness"]  # a volume has its median distance instead
        self._extra_notes = tuple(notes)
        self._check()

    @property
    def mask_suffix(self) -> str:
        """See `Source.mask_suffix`: a picture where a DICOM segmentation cannot refer to the images."""
        if not self._missing:
            return ".seg.dcm"
        return ".png" if self.count == 1 else ".tif"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Source.notes`: those of all files, missing attributes, and gaps between the slices."""
        notes = list(dict.fromkeys(note for header in self._headers for note in header.notes))
        if self._missing:
            names = " and ".join(self._missing)
            picture = "PNG" if self.count == 1 else "TIFF"
            notes.append(f"its header gives no {names}: its mask is a {picture}, not a DICOM segmentation")
        if "ImageOrientationPatient" in self._missing:
            notes.append("its header gives no orientation: left and right, or up and down, may be swapped")
        folders = {header.path.parent for header in self._headers}
        if len(folders) > 1 and not self._headers[0].patient_id:
            notes.append("its files lie in several folders and have no patient ID: check that they are of one patient")
        if not self._is_placed:
            return (*notes, *self._extra_notes, *([NO_PLACES] if self.count > 1 else []))
        gaps = _gap_notes([slice_.frame.distance_mm for slice_ in self._slices], self._headers[0].thickness_mm)
        return (*notes, *self._extra_notes, *gaps)

    @property
    def slab_mm(self) -> tuple[float, ...] | None:
        """See `SliceReader.slab_mm`. A single slice stands for its thickness."""
        if not self._is_placed or self._slices[0].frame.spacing_mm is None:
            return None
        if self.count > 1:
            return slabs_mm([slice_.frame.distance_mm for slice_ in self._slices])
        thickness_mm = self._headers[0].thickness_mm
        return (thickness_mm,) if thickness_mm and not self._missing else None

    @property
    def center_mm(self) -> NDArray[np.float64] | None:
        """Center of the volume (x, y, z) in millimeters, in RAS+ orientation; None if unknown."""
        first, last = self._slices[0].frame, self._slices[-1].frame
        if not self._is_placed or not (first.position and last.position and first.orientation and first.spacing_mm):
            return None
        along_row, along_column = np.reshape(first.orientation, (2, 3))
        (row_mm, column_mm), header = first.spacing_mm, self._slices[0].header
        in_plane = along_row * column_mm * (header.columns - 1) / 2 + along_column * row_mm * (header.rows - 1) / 2
        center: NDArray[np.float64] = (np.add(first.position, last.position) / 2 + in_plane) * LPS_TO_RAS
        return center

    def read(self, index: int) -> Slice:
        """Read a slice, see `Source.read`. MONOCHROME1 images are inverted."""
        header, frame_index, pixels = self._slices[index]
        with silence_decoders():
            stored = decode_frame(header, frame_index, pixels.load())
        turned = np.ascontiguousarray(self.grid.to_slices(stored[:, :, None])[0])
        spacing_mm = self.grid.spacing_mm[1:] if self._slices[index].frame.spacing_mm else None
        return slice_of(turned, self._slices[index].name, spacing_mm)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        """Encode masks (count, H, W) as a DICOM segmentation, or as PNG or TIFF, see `mask_suffix`."""
        if not self._missing:
            return self._segmentation(self._along_normal(masks))
        stored = self._as_stored(masks)
        return mask_png(stored[0]) if self.count == 1 else mask_tiff(stored)

    def probability_bytes(self, values: Uint16Array) -> bytes:
        """Encode probabilities as a fractional DICOM segmentation, PNG or TIFF, see `Source.probability_bytes`.

        A segmentation has 8 bits per pixel. It is what viewers of segmentations read, with the references and the
        geometry of the mask; the 16 bits of a parametric map are read by few.
        """
        if not self._missing:
            return self._segmentation(to_float(self._along_normal(values)))
        stored = self._as_stored(values)
        return probability_png(stored[0]) if self.count == 1 else encode_pages(stored)

    @property
    def missing_for_capture(self) -> list[str]:
        """See `CapturedSource.missing_for_capture`."""
        return [keyword for keyword in ("StudyInstanceUID", "SOPInstanceUID") if keyword in self._missing]

    def encode_captures(self, pictures: Iterable[tuple[int, NDArray[np.uint8]]]) -> Iterator[tuple[int, bytes]]:
        """Encode pictures as secondary captures, see `CapturedSource.encode_captures`."""
        series_uid = generate_uid(prefix=None)
        for index, picture in pictures:
            header, frame_index, _ = self._slices[index]
            with silence_decoders():
                content = encode_capture(
                    header,
                    frame_index,
                    picture,
                    instance_number=index + 1,
                    series_uid=series_uid,
                    plane=self.grid.plane,
                    spacing_mm=self.grid.spacing_mm[1:] if header.frames[frame_index].spacing_mm else None,
                )
            yield index, content

    def _along_normal(self, slices: NDArray[Any]) -> NDArray[Any]:
        """Return displayed slices (count, H, W) as they are stored, in their order along the normal."""
        return np.ascontiguousarray(np.moveaxis(self.grid.to_stored(slices), 2, 0))

    def _as_stored(self, slices: NDArray[Any]) -> NDArray[Any]:
        """Return displayed slices (count, H, W) as they are stored, in the same order."""
        along_normal = self._along_normal(slices)
        return along_normal[::-1] if self.grid.flipped[0] else along_normal

    def _segmentation(self, along_normal: NDArray[Any]) -> bytes:
        slices = self._slices[::-1] if self.grid.flipped[0] else self._slices
        with silence_decoders():
            if len(self._headers) > 1:
                return encode_segmentation([slice_.header for slice_ in slices], along_normal)
            stored = np.empty_like(along_normal)
            stored[[slice_.frame_index for slice_ in slices]] = along_normal
            return encode_segmentation(self._headers, stored)

    def close(self) -> None:
        """Free the content of a multi-frame file, see `Source.close`."""
        for slice_ in self._slices:
            slice_.pixels.free()

    def _check(self) -> None:
        first = min(self._headers, key=lambda header: header.path)  # the results name this file
        check_volume_size(first.path, self.count, first.rows, first.columns, first.frames[0].spacing_mm)
        if not self._is_placed:
            return
        for one, other in itertools.pairwise(slice_.frame for slice_ in self._slices):
            if abs(other.distance_mm - one.distance_mm) < MIN_DISTANCE_MM:
                keywords = [key for key in CONTRAST_ATTRIBUTES if one.contrast.get(key) != other.contrast.get(key)]
                difference = (
                    f"they differ in {', '.join(keywords)}" if keywords else "the headers do not distinguish them"
                )
                raise CascadeError(
                    f"{first.path}: the series contains several images at the same position; {difference}",
                    fix="give one volume of it: T1 with contrast agent",
                )


def _gap_notes(positions_mm: Sequence[float], thickness_mm: float | None) -> Iterator[str]:
    if len(positions_mm) < 2:
        return
    gaps = np.abs(np.diff(positions_mm))
    median = float(np.median(gaps))
    if gaps.max() - gaps.min() > GAP_TOLERANCE * median:
        yield f"its slices are {gaps.min():.3g} to {gaps.max():.3g} mm apart: some may be missing"
    if thickness_mm and median > MAX_STEP * thickness_mm:
        yield f"its slices are {median:.3g} mm apart and {thickness_mm:.3g} mm thick: the volume counts the gaps"
